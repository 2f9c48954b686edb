"""A tokenizer from the files beside a model: tokenizer.json for the backend, four others for its settings.

Where files disagree the order is: tokenizer_config.json, special_tokens_map.json, then generation_config.json and
config.json; a template is looked for in chat_template.jinja, tokenizer_config.json, chat_template.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from bitwright.errors import TokenizerError
from bitwright.models.json_file import check_size, read_json
from bitwright.models.tokenizer import END_TOKENS, Tokenizer


def read_tokenizer(directory: Path) -> Tokenizer:
    """Raises `TokenizerError` where a file is broken, or tokenizer.json is missing."""
    backend = _backend(directory / "tokenizer.json")
    settings = _optional(directory, "tokenizer_config.json")
    special = _optional(directory, "special_tokens_map.json")
    others = [settings, _optional(directory, "generation_config.json"), _optional(directory, "config.json")]
    eos_id = _token_id(backend, settings.get("eos_token", special.get("eos_token")))
    listed = [token for other in others for token in _ids(other.get("eos_token_id"))]
    known = [
        token for token, added in backend.get_added_tokens_decoder().items() if added.special and added.content in END_TOKENS
    ]
    return Tokenizer(
        backend=backend,
        bos_id=_bos_id(backend, special | settings, others),
        eos_ids=frozenset([*([] if eos_id is None else [eos_id]), *listed, *known]),
        chat_template=_chat_template(directory, settings),
        add_bos=settings.get("add_bos_token") is True,
        eos_id=eos_id if eos_id is not None else next(iter(listed), None),
    )


def _backend(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        cure = "save it with a fast tokenizer (AutoTokenizer.from_pretrained(...).save_pretrained(...))"
        raise TokenizerError(f"{path.parent} has no tokenizer.json; {cure}")
    check_size(path, TokenizerError)
    try:
        backend = tokenizers.Tokenizer.from_buffer(path.read_bytes())  # faster than the library's own reading of the file
    except Exception as fault:  # the library raises nothing more precise
        read_json(path, TokenizerError)  # which names the fault where this is no JSON; the library reads the file but once
        raise TokenizerError(f"{path} describes no tokenizer: {str(fault)[:200]}; fetch the model again") from fault
    backend.no_truncation()  # settings of whoever saved it last, which would cut or fill texts
    backend.no_padding()
    return backend


def _optional(directory: Path, name: str) -> dict[str, Any]:
    return read_json(directory / name, TokenizerError) if (directory / name).is_file() else {}


def _token_id(backend: tokenizers.Tokenizer, token: object) -> int | None:
    """A special token is written as a string or as {"content": string}; one that the backend lacks is none."""
    text = token.get("content") if isinstance(token, Mapping) else token
    found = backend.token_to_id(text) if isinstance(text, str) else None
    return None if found is None else int(found)


def _bos_id(backend: tokenizers.Tokenizer, settings: Mapping[str, Any], others: list[dict[str, Any]]) -> int | None:
    """The token named in the settings, where null says that there is none; otherwise the id in another file."""
    if "bos_token" in settings:
        return _token_id(backend, settings["bos_token"])
    return next((token for other in others for token in _ids(other.get("bos_token_id"))), None)


def _ids(value: object) -> Iterator[int]:
    """A token id or a list of them."""
    for token in value if isinstance(value, list) else [value]:
        if token is None:
            continue
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 1 << 31:
            raise TokenizerError(f"a token id must be a whole number from 0, not {str(token)[:60]!r}; fetch the model again")
        yield token


def _chat_template(directory: Path, settings: Mapping[str, Any]) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise TokenizerError(f"cannot read {path}: {fault}; fetch the model again") from fault
    template = settings.get("chat_template") or _optional(directory, "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several by name, such as one for tools
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, Mapping)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"the chat template in {directory} is no text; fetch the model again")
    return template
