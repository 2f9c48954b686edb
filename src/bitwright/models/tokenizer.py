"""Text to tokens and back, and the words around a conversation: a tokenizer, its chat template and its special tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

from bitwright.errors import TokenizerError

# Tokens that end an answer in some family; models often list only one of theirs in their configs.
END_TOKENS = (
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
)
LONGEST_PENDING = 8  # tokens; a character of UTF-8 has at most 4 bytes, so a longer wait means bytes that are no text


@dataclass(frozen=True)
class Tokenizer:
    """`bos_id` and `eos_id` are what templates call bos_token and eos_token; generation ends at any of `eos_ids`.

    `add_bos`: the model wants `bos_id` first, and the backend does not put it there by itself.
    """

    backend: tokenizers.Tokenizer
    bos_id: int | None
    eos_ids: frozenset[int]
    chat_template: str | None = None
    add_bos: bool = False
    eos_id: int | None = None

    @property
    def vocab_size(self) -> int:
        """Tokens it knows; the model's own vocabulary may be padded beyond that."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        """Tokens of a text. `add_special` puts what the model wants around a text, as a rule the first token;
        a text that `chat` made has it already. Raises `TokenizerError` on text that is not Unicode."""
        try:
            ids = list(self.backend.encode(text, add_special_tokens=add_special).ids)
        except (TypeError, UnicodeError) as fault:  # lone surrogates
            raise TokenizerError(f"this text cannot be encoded ({fault}); pass valid Unicode") from fault
        except BaseException as fault:
            if type(fault).__name__ != "PanicException":  # what the library raises where its file contradicts itself
                raise
            raise TokenizerError(f"tokenizer.json is damaged ({fault}); copy it anew from the model's source") from fault
        if add_special and self.add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of tokens, without special tokens unless asked. Bytes that are no UTF-8 become U+FFFD."""
        return str(self.backend.decode([int(token) for token in ids], skip_special_tokens=skip_special))

    def stream(self) -> TextStream:
        """A decoder for tokens that come one at a time."""
        return TextStream(self)

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt for the next answer in a conversation of {"role", "content"} messages, to be encoded with
        `add_special=False`. Raises `TokenizerError` without a template, or where it refuses the messages."""
        if self.chat_template is None:
            raise TokenizerError(
                "this model has no chat template; use plain prompts (`bitwright run`) or an instruction-tuned model"
            )
        from bitwright.models.chat_template import render  # brings jinja2, which most verbs do without

        return render(self.chat_template, messages, self._text_of(self.bos_id), self._text_of(self.eos_id))

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, from which `from_directory` makes an equal tokenizer."""
        settings = {
            "bos_token": self._text_of(self.bos_id) or None,
            "eos_token": self._text_of(self.eos_id) or None,
            "bos_token_id": self.bos_id,
            "eos_token_id": sorted(self.eos_ids),
            "add_bos_token": self.add_bos or None,
            "chat_template": self.chat_template,
        }
        kept = {key: value for key, value in settings.items() if value is not None}
        (Path(directory) / "tokenizer.json").write_text(self.backend.to_str(pretty=True), "utf-8")
        text = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
        (Path(directory) / "tokenizer_config.json").write_text(text, "utf-8")

    @classmethod
    def from_directory(cls, directory: str | Path) -> Tokenizer:
        """The tokenizer beside a model. Raises `TokenizerError`."""
        from bitwright.models.tokenizer_files import read_tokenizer

        return read_tokenizer(Path(directory))

    def _text_of(self, token: int | None) -> str:
        return (self.backend.id_to_token(token) or "") if token is not None else ""


@dataclass
class TextStream:
    """Text of a growing list of tokens, given out as soon as it can no longer change.

    A token may end inside a character; its text is held back until the character is whole. The text so far is decoded
    together with the new tokens, since many tokenizers drop the space before a first word. All that `push` and
    `finish` return, joined, is what `decode` gives for all the tokens.
    """

    tokenizer: Tokenizer
    skip_special: bool = True
    _shown: list[int] = field(default_factory=list)  # the last tokens given out: context for the next
    _pending: list[int] = field(default_factory=list)

    def push(self, token: int) -> str:
        """The text that this token completes, often none."""
        self._pending.append(token)
        text = self._new_text()
        if text.endswith("\N{REPLACEMENT CHARACTER}") and len(self._pending) < LONGEST_PENDING:
            return ""
        return self._give_out(text) if text else ""

    def finish(self) -> str:
        """What is held back, whole or not."""
        return self._give_out(self._new_text())

    def _new_text(self) -> str:
        before = self.tokenizer.decode(self._shown, self.skip_special)
        return self.tokenizer.decode(self._shown + self._pending, self.skip_special)[len(before) :]

    def _give_out(self, text: str) -> str:
        self._shown, self._pending = self._pending, []
        return text
