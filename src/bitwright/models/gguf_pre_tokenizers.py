r"""How byte-level BPE vocabularies cut text into words before merging: facts about each, by the name GGUF gives them.

`tokenizer.ggml.pre` names the tokenizer a model was trained with; the expressions are those of that model's published
tokenizer.json. Several expressions cut one after the other. All are alternatives of the same six kinds of word:
contractions ('s, 'll), letters with one sign before them, digits, signs with a space before them, line ends, spaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SIGNS = r" ?[^\s\p{L}\p{N}]+"
_SPACES = r"\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_CHINESE = r"[一-龥\u0800-一가-\ud7ff]+"
_JAPANESE = r"[一-龥\u3040-\u309f\u30a0-\u30ff]+"

_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{_SIGNS}|{_SPACES}"


def _modern(digits: str, letters: str = r"\p{L}+") -> str:
    """The expression of cl100k and its kin, which differ in how many digits make a word."""
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{letters}|{digits}|{_SIGNS}[\r\n]*|\s*[\r\n]+|{_SPACES}"


def _cased(digits: str, contraction: str) -> str:
    """The expression of o200k and its kin, which also cut where case changes."""
    return rf"{_CASED % (contraction, contraction)}|{digits}|{_SIGNS}[\r\n/]*|\s*[\r\n]+|{_SPACES}"


@dataclass(frozen=True)
class PreTokenizer:
    """`whole_words`: a word that is a token is taken as it is, without merging. `add_bos`: unless the file says otherwise."""

    expressions: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False


_LLAMA3: Final = PreTokenizer((_modern(r"\p{N}{1,3}"),), whole_words=True, add_bos=True)
_CL100K: Final = PreTokenizer((_modern(r"\p{N}{1,3}"),))
_QWEN: Final = PreTokenizer((_modern(r"\p{N}"),))
_PLAIN: Final = PreTokenizer((_GPT2,))
_SINGLE_DIGITS: Final = PreTokenizer((r"\p{N}", _GPT2))
_GPT4O: Final = PreTokenizer((_cased(r"\p{N}{1,3}", _CONTRACTIONS + "?"),))

PRE_TOKENIZERS: Final[dict[str, PreTokenizer]] = {
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    "gpt-2": _PLAIN,
    "phi-2": _PLAIN,
    "mpt": _PLAIN,
    "olmo": _PLAIN,
    "mellum": _PLAIN,
    "exaone4": _PLAIN,
    "smollm": _SINGLE_DIGITS,
    "starcoder": _SINGLE_DIGITS,
    "refact": _SINGLE_DIGITS,
    "command-r": _SINGLE_DIGITS,
    "codeshell": _SINGLE_DIGITS,
    "exaone": _SINGLE_DIGITS,
    "minerva-7b": _SINGLE_DIGITS,
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "lfm2": _LLAMA3,
    "midm-2.0": _LLAMA3,
    "pixtral": _LLAMA3,
    "dbrx": _CL100K,
    "smaug-bpe": _CL100K,
    "chatglm-bpe": _CL100K,
    "qwen2": _QWEN,
    "deepseek-r1-qwen": _QWEN,
    "megrez": _QWEN,
    "stablelm2": _QWEN,
    "hunyuan": _QWEN,
    "qwen35": PreTokenizer((_modern(r"\p{N}", r"[\p{L}\p{M}]+").replace(_SIGNS, r" ?[^\s\p{L}\p{M}\p{N}]+"),)),
    "gpt-4o": _GPT4O,
    "llama4": _GPT4O,
    "tekken": PreTokenizer((_cased(r"\p{N}", ""),), whole_words=True, add_bos=True),
    "deepseek-llm": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"\s+$", _CHINESE, r"\p{N}+")),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE, r"\p{N}")),
    "deepseek-v3": PreTokenizer(
        (
            r"\p{N}{1,3}",
            _JAPANESE,
            r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|" + _SPACES,
        )
    ),
}
