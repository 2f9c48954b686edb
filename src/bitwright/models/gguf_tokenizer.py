"""A tokenizer from GGUF metadata. Two kinds of vocabulary are known:

    gpt2    byte-level BPE: merges in order of rank, words cut by a named pre-tokenizer       Radford et al. 2019
    llama   SentencePiece BPE: of all neighbours whose union is a token, the union with the highest score merges first;
            characters outside the vocabulary become byte tokens <0x00>..<0xFF>               Kudo & Richardson 2018

For the second the merges are made from the scores: every way to cut a token into two tokens, ranked by the score of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from bitwright.errors import TokenizerError
from bitwright.models.gguf_file import shown
from bitwright.models.gguf_pre_tokenizers import PRE_TOKENIZERS
from bitwright.models.tokenizer import END_TOKENS, Tokenizer

LONGEST_TOKEN: Final = 1024  # characters; the longest in use are runs of 128 signs
_PREFIX: Final = "tokenizer.ggml."
_CURE: Final = "convert the model anew or take the tokenizer from the original model's directory"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for a space in SentencePiece vocabularies
# After these tokens phi-3 drops white space, except after the three below.
_KEEPS_SPACE: Final = ("<unk>", "<s>", "<|endoftext|>")
_ALSO_HTML: Final = ("</s>",)  # an end token in SentencePiece vocabularies, a normal one in those that learned HTML
_SPECIAL_IDS: Final = ("bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id")


@dataclass(frozen=True)
class _Vocabulary:
    """`tokens` are made unique, so that one string stands for one id."""

    tokens: list[str]
    types: list[int]
    ids: dict[str, int]
    special: dict[str, int]  # bos_token_id and the like, those that are given
    ends: frozenset[int]  # tokens known to end an answer


def read_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """Raises `TokenizerError` for metadata without a vocabulary, of an unknown kind, or that does not add up."""
    kind = metadata.get(_PREFIX + "model")
    if kind is None:
        raise TokenizerError(f"this GGUF file holds no tokenizer; {_CURE}")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise TokenizerError(f"unknown kind of tokenizer {shown(kind)} in GGUF metadata; known: {', '.join(_KINDS)}")
    vocabulary = _vocabulary(metadata)
    backend, adds_bos = _KINDS[kind](metadata, vocabulary)
    _add_tokens(backend, vocabulary, "phi-3" in str(metadata.get("general.name", "")).lower().replace("phi3", "phi-3"))
    template = metadata.get("tokenizer.chat_template")
    bos_id = vocabulary.special.get("bos_token_id")
    listed = {vocabulary.special[name] for name in _SPECIAL_IDS[1:] if name in vocabulary.special}
    return Tokenizer(
        backend=backend,
        bos_id=bos_id,
        eos_ids=vocabulary.ends | listed,
        chat_template=template if isinstance(template, str) else None,
        add_bos=_truth(metadata, "add_bos_token", adds_bos) and bos_id is not None,
        eos_id=vocabulary.special.get("eos_token_id"),
    )


def _vocabulary(metadata: Mapping[str, Any]) -> _Vocabulary:
    tokens = _list(metadata, "tokens", str)
    if not tokens or max(map(len, tokens)) > LONGEST_TOKEN:
        raise TokenizerError(f"this GGUF file's vocabulary is empty or has a token of over {LONGEST_TOKEN} characters; {_CURE}")
    types = _list(metadata, "token_type", int) if _PREFIX + "token_type" in metadata else [_NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise TokenizerError(f"{len(types)} token types for {len(tokens)} tokens in GGUF metadata; {_CURE}")
    ids: dict[str, int] = {}
    for token, text in enumerate(tokens):
        if not text or text in ids:  # tokens that are broken UTF-8 can read the same
            text = tokens[token] = f"[same {token}]"
            types[token] = _NORMAL
        ids[text] = token
    special = {name: metadata[_PREFIX + name] for name in _SPECIAL_IDS if _PREFIX + name in metadata}
    for name, token in special.items():
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < len(tokens):
            raise TokenizerError(f"{_PREFIX}{name} is {shown(token)}, which is no token of {len(tokens)}; {_CURE}")
    ends = frozenset(ids[text] for text in END_TOKENS if text in ids and not (text in _ALSO_HTML and types[ids[text]] == _NORMAL))
    for token in [*special.values(), *ends]:  # some converters leave these normal
        types[token] = _CONTROL if types[token] == _NORMAL else types[token]
    return _Vocabulary(tokens, types, ids, special, ends)


def _byte_level(metadata: Mapping[str, Any], vocabulary: _Vocabulary) -> tuple[Backend, bool]:
    """The backend, and whether such models want their first token."""
    name = metadata.get(_PREFIX + "pre", "default")
    if not isinstance(name, str) or name not in PRE_TOKENIZERS:
        raise TokenizerError(f"unknown pre-tokenizer {shown(name)} in GGUF metadata; known: {', '.join(PRE_TOKENIZERS)}")
    facts = PRE_TOKENIZERS[name]
    merges = []
    for merge in _list(metadata, "merges", str):
        left, _, right = merge[1:].partition(" ")
        left = merge[:1] + left
        if left in vocabulary.ids and right in vocabulary.ids and left + right in vocabulary.ids:
            merges.append((left, right))
    backend = Backend(models.BPE(vocab=vocabulary.ids, merges=merges, ignore_merges=facts.whole_words))
    cuts = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in facts.expressions]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    return backend, facts.add_bos


def _sentence_piece(metadata: Mapping[str, Any], vocabulary: _Vocabulary) -> tuple[Backend, bool]:
    scores = _list(metadata, "scores", float)
    if len(scores) != len(vocabulary.tokens):
        raise TokenizerError(f"{len(scores)} scores for {len(vocabulary.tokens)} tokens in GGUF metadata; {_CURE}")
    unknown = next((text for text, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind == _UNKNOWN), None)
    backend = Backend(
        models.BPE(
            vocab=vocabulary.ids,
            merges=_merges_by_score(vocabulary, scores),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = _truth(metadata, "add_space_prefix", True)
    spaces = normalizers.Replace(" ", _SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces] if prefixed else [spaces])
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    return backend, True


_KINDS: Final = {"gpt2": _byte_level, "llama": _sentence_piece}


def _merges_by_score(vocabulary: _Vocabulary, scores: list[float]) -> list[tuple[str, str]]:
    """Best first. Control, unknown and byte tokens never come of merging."""
    ranked = []
    ids, types = vocabulary.ids, vocabulary.types
    for token, text in enumerate(vocabulary.tokens):
        if types[token] in (_CONTROL, _UNKNOWN, _BYTE):
            continue
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                ranked.append((-scores[token], ids[left], ids[right], left, right))
    ranked.sort()
    return [(left, right) for *_, left, right in ranked]


def _add_tokens(backend: Backend, vocabulary: _Vocabulary, drops_space: bool) -> None:
    """Tokens that are found in a text before anything else: control tokens, and those that users defined."""
    special, plain = [], []
    for text, kind in zip(vocabulary.tokens, vocabulary.types, strict=True):
        right_strip = drops_space and text not in _KEEPS_SPACE
        if kind in (_CONTROL, _UNKNOWN):
            special.append(AddedToken(text, rstrip=right_strip, normalized=False, special=True))
        elif kind == _USER_DEFINED:
            plain.append(AddedToken(text, rstrip=right_strip, normalized=False))
    backend.add_special_tokens(special)
    backend.add_tokens(plain)


def _list(metadata: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    """A copy of a list whose items are all of one type, and finite."""
    values = metadata.get(_PREFIX + name)
    if not isinstance(values, list):
        raise TokenizerError(f"this GGUF file lacks {_PREFIX}{name}; {_CURE}")
    if not all(type(value) is kind for value in values) or (kind is float and not all(map(math.isfinite, values))):
        raise TokenizerError(f"{_PREFIX}{name} holds something else than {kind.__name__} values; {_CURE}")
    return list(values)


def _truth(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    value = metadata.get(_PREFIX + name, default)
    if not isinstance(value, bool):
        raise TokenizerError(f"{_PREFIX}{name} must be true or false, not {shown(value)}; {_CURE}")
    return value
