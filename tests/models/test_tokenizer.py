"""Tokenizers: text to tokens and back, streams, chat templates, files beside a model, and every fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

import tiny
from bitwright.errors import TokenizerError
from bitwright.models.tokenizer import Tokenizer

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye"}]
START, END = 0, 1  # ids of <|start|> and <|end|>


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(directory)


@pytest.fixture
def copy(directory: Path, tmp_path: Path) -> Path:
    """The same files, for the test to change."""
    for path in directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def with_settings(directory: Path, **changes: Any) -> Tokenizer:
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    return Tokenizer.from_directory(directory)


def with_template(template: str, tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer(tokenizer.backend, START, frozenset({END}), template, eos_id=END)


@given(st.text())
def test_text_survives_and_streams_as_it_decodes(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special=False)
    assert tokenizer.decode(ids, skip_special=False) == text
    stream = tokenizer.stream()
    assert "".join([stream.push(token) for token in ids] + [stream.finish()]) == tokenizer.decode(ids)


@given(st.lists(st.integers(0, tiny.VOCABULARY - 1), max_size=30))
def test_any_tokens_stream_without_loss(tokenizer: Tokenizer, ids: list[int]) -> None:
    """Broken characters become U+FFFD in both ways, perhaps not equally many where a stream gives up waiting."""
    stream = tokenizer.stream()
    streamed = "".join([stream.push(token) for token in ids] + [stream.finish()])
    assert streamed.replace("\ufffd", "") == tokenizer.decode(ids).replace("\ufffd", "")


def test_a_character_is_held_back_until_it_is_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a€", add_special=False)
    stream = tokenizer.stream()
    assert [stream.push(token) for token in ids] == ["a", "", "", "€"]
    assert stream.finish() == ""
    stream = tokenizer.stream()
    assert [stream.push(token) for token in ids[:3]] == ["a", "", ""]
    assert stream.finish() == "\ufffd"


def test_spaces_survive_in_the_stream_of_a_tokenizer_that_drops_the_first() -> None:
    vocabulary = {"▁one": 0, "▁two": 1, "s": 2}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="s"))
    backend.decoder = tokenizers.decoders.Metaspace()
    stream = Tokenizer(backend, None, frozenset()).stream()
    assert [stream.push(token) for token in (0, 1, 2, 0)] == ["one", " two", "s", " one"]


def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids) == (START, END, frozenset({END}))
    plain = tokenizer.encode("dog", add_special=False)
    assert tokenizer.encode("dog") == [START, *plain]
    assert tokenizer.decode([START, *plain, END]) == "dog"
    assert tokenizer.decode([START, *plain, END], skip_special=False) == "<|start|>dog<|end|>"
    assert tokenizer.vocab_size == tiny.VOCABULARY


def test_the_first_token_where_the_backend_does_not_add_it(copy: Path) -> None:
    fields = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    (copy / "tokenizer.json").write_text(json.dumps(fields | {"post_processor": None}), "utf-8")
    without, added = Tokenizer.from_directory(copy), with_settings(copy, add_bos_token=True)
    plain = added.encode("dog", add_special=False)
    assert without.encode("dog") == plain
    assert added.encode("dog") == added.encode("<|start|>dog") == [START, *plain]


def test_truncation_and_padding_of_whoever_saved_it_are_undone(copy: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(copy / "tokenizer.json"))
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    backend.save(str(copy / "tokenizer.json"))
    tokenizer = Tokenizer.from_directory(copy)
    assert tokenizer.decode(tokenizer.encode("x y z " * 10)) == "x y z " * 10
    assert len(tokenizer.encode("x y z")) < 10


def test_transformers_agrees(directory: Path, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(directory)
    text = "The quick brown fox, 12345 jumps."
    assert tokenizer.encode(text, add_special=False) == theirs.encode(text, add_special_tokens=False)
    assert tokenizer.encode(text) == theirs.encode(text)
    assert tokenizer.chat(MESSAGES) == theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)


def test_files_are_asked_in_order(copy: Path) -> None:
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 3]}))
    (copy / "config.json").write_text(json.dumps({"eos_token_id": 5, "bos_token_id": 2}))
    tokenizer = Tokenizer.from_directory(copy)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids) == (START, END, frozenset({1, 3, 5}))
    assert with_settings(copy, bos_token=None).bos_id is None
    (copy / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|user|>"}}))
    (copy / "tokenizer_config.json").write_text("{}")
    tokenizer = Tokenizer.from_directory(copy)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (2, tokenizer.backend.token_to_id("<|user|>"))
    assert tokenizer.eos_ids == {1, 2, 3, 5}  # <|end|> is known by its name
    assert tokenizer.chat_template is None and not tokenizer.add_bos


def test_where_a_template_may_stand(copy: Path) -> None:
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": "from json"}))
    assert with_settings(copy, chat_template=None).chat([]) == "from json"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "by name"}]
    assert with_settings(copy, chat_template=named).chat([]) == "by name"
    (copy / "chat_template.jinja").write_text("from jinja")
    assert with_settings(copy).chat([]) == "from jinja"


def test_saved_and_read_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    assert again.backend.to_str() == tokenizer.backend.to_str()
    assert (again.bos_id, again.eos_id, again.eos_ids) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids)
    assert (again.chat_template, again.add_bos) == (tokenizer.chat_template, tokenizer.add_bos)
    bare = Tokenizer(tokenizer.backend, None, frozenset({3, 9}))
    bare.save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    assert (again.bos_id, again.chat_template, again.add_bos, set(again.eos_ids)) == (None, None, False, {1, 3, 9})


def test_conversations(tokenizer: Tokenizer) -> None:
    expected = "<|start|><|user|>Hi<|end|><|assistant|>Hello.<|end|><|user|>Bye<|end|><|assistant|>"
    assert tokenizer.chat(MESSAGES) == expected
    assert tokenizer.decode(tokenizer.encode(expected, add_special=False), skip_special=False) == expected


TEMPLATES = {
    "break": ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
    "trimmed": ("{% if true %}\n    {% if true %}\nx\n    {% endif %}\n{% endif %}\n", "x\n"),
    "tojson": ("{{ {'b': 'é<', 'a': 1} | tojson }}", '{"b": "é<", "a": 1}'),
    "tojson indented": ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
    "generation": ("{% for m in messages %}{% generation %}{{ m.role }},{% endgeneration %}{% endfor %}", "user,assistant,user,"),
    "names": (
        "{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ add_generation_prompt }}{{ nothing }}",
        "<|start|><|end|>TrueTrue",
    ),
    "namespace": ("{% set n = namespace(x=1) %}{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}", "4"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_templates_in_the_wild_use(name: str, tokenizer: Tokenizer) -> None:
    template, expected = TEMPLATES[name]
    assert with_template(template, tokenizer).chat(MESSAGES) == expected


def test_the_date(tokenizer: Tokenizer) -> None:
    assert with_template("{{ strftime_now('%Y-%m-%d') }}", tokenizer).chat([]).startswith("20")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{% if %}",
        "{{ messages[99].content }}",
        "{{ 1 / 0 }}",
        "{{ messages + 3 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_templates_that_fail_or_try_to_escape(template: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="the chat template refuses this conversation") as caught:
        with_template(template, tokenizer).chat(MESSAGES)
    assert "\n" not in str(caught.value)


def test_no_template(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="no chat template; use plain prompts"):
        Tokenizer(tokenizer.backend, None, frozenset()).chat(MESSAGES)


def test_text_that_is_no_unicode(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="cannot be encoded"):
        tokenizer.encode("\ud800")


BROKEN = {
    "tokenizer.json": [b"", b"{", b"[]", b"{}", b'{"model": {"type": "BPE"}}', b"[" * 100_000, b"\xff"],
    "tokenizer_config.json": [b"{", b"[]", b'{"chat_template": 3}', b'{"eos_token_id": -1}', b'{"eos_token_id": "x"}', b"\xff"],
    "generation_config.json": [b"nonsense", b'{"eos_token_id": [true]}', b'{"eos_token_id": 1e99}'],
    "special_tokens_map.json": [b"3"],
    "chat_template.jinja": [b"\xff\xfe"],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, contents in BROKEN.items() for content in contents])
def test_broken_files(name: str, content: bytes, copy: Path) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_directory(copy)
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer.json; save it with a fast tokenizer"):
        Tokenizer.from_directory(tmp_path)
