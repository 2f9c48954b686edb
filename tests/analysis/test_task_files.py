"""Files of tasks: which kind each is, and that no line, however hostile, does worse than be refused by its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.analysis.tasks import FileTask, Question, read_task
from bitwright.analysis.tasks.files import KINDS
from bitwright.analysis.tasks.writing import Prompt
from bitwright.errors import TaskError

CHOICE = {"context": "a", "choices": ["a", "b"], "answer": 1}
LABEL = {"text": "a", "label": "yes"}
PAIR = {"text": "a", "label": 1, "positive": "yes", "negative": "no"}
WRITING = {"prompt": "a", "reference": "b"}
ONE_OF_EACH = {"multiple choice": CHOICE, "classification": LABEL, "discrimination": PAIR, "writing": WRITING}


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "is not JSON"),
        ("NaN", "is not JSON"),
        ('{"context": "a", "context": "b", "choices": ["a", "b"], "answer": 0}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([1], "must be an object"),
        ({}, "has no key of a task"),
        ({"sentence": "a"}, "has no key of a task"),
        ({"choices": ["a", "b"], "answer": 0}, "either a context or a question"),
        (CHOICE | {"question": "b"}, "either a context or a question"),
        (CHOICE | {"context": 5}, "must be a text"),
        (CHOICE | {"context": "  "}, "not empty"),
        ({"context": "a", "answer": 0}, "choices must be a list"),
        (CHOICE | {"choices": "ab"}, "choices must be a list"),
        (CHOICE | {"choices": ["a"]}, "choices must be a list"),
        (CHOICE | {"choices": ["a"] * 101}, "choices must be a list"),
        (CHOICE | {"choices": ["a", 5]}, "every choice"),
        (CHOICE | {"choices": ["a", ""]}, "every choice"),
        (CHOICE | {"choices": ["a", "\ud800"]}, "every choice"),
        ({"context": "a", "choices": ["a", "b"]}, "answer must be"),
        (CHOICE | {"answer": 2}, "answer must be"),
        (CHOICE | {"answer": -1}, "answer must be"),
        (CHOICE | {"answer": True}, "answer must be"),
        (CHOICE | {"answer": "0" * 5000}, "answer must be"),
        (json.dumps(CHOICE) + " " * (1 << 20), "longer than"),
        (LABEL, "it is classification, line 1 multiple choice; keep to one kind"),
    ],
)
def test_a_hostile_line_is_named(line: object, fault: str, tmp_path: Path) -> None:
    assert_line_3_is_refused(write(tmp_path / "task.jsonl", CHOICE, "", line), fault)


@pytest.mark.parametrize(
    ("first", "line", "fault"),
    [
        (LABEL, {"text": "a"}, "label must be a text"),
        (LABEL, {"label": "yes"}, "text must be a text"),
        (LABEL, LABEL | {"text": ""}, "text must be a text"),
        (LABEL, LABEL | {"text": "\udfff"}, "valid Unicode"),
        (LABEL, LABEL | {"label": " "}, "label must be a text"),
        (LABEL, LABEL | {"label": 1}, "add positive and negative"),
        (LABEL, LABEL | {"label": True}, "add positive and negative"),
        (LABEL, LABEL | {"label": " yes"}, "by blanks alone"),
        (LABEL, PAIR, "it is discrimination, line 1 classification"),
        (LABEL, WRITING | LABEL, "keys of classification and writing alike"),
        (PAIR, LABEL, "it is classification, line 1 discrimination"),
        (PAIR, PAIR | {"label": 2}, "label must be 1"),
        (PAIR, PAIR | {"label": False}, "label must be 1"),
        (PAIR, PAIR | {"label": 1.0}, "label must be 1"),
        (PAIR, PAIR | {"label": "yes" * 5000}, "label must be 1"),
        (PAIR, PAIR | {"text": None}, "text must be a text"),
        (PAIR, {"text": "a", "label": 0, "positive": "yes"}, "negative must be a text"),
        (PAIR, PAIR | {"positive": ""}, "positive must be a text"),
        (PAIR, PAIR | {"positive": " no"}, "same answer"),
        (PAIR, PAIR | {"positive": "good"}, "must be those of line 1"),
        (WRITING, {"prompt": "a"}, "reference must be a text"),
        (WRITING, {"reference": "a"}, "prompt must be a text"),
        (WRITING, WRITING | {"prompt": ["a"]}, "prompt must be a text"),
        (WRITING, WRITING | {"reference": " \n "}, "reference must be a text"),
        (WRITING, WRITING | {"reference": "a\nb"}, "one line"),
    ],
)
def test_a_hostile_line_of_the_other_kinds_is_named(first: object, line: object, fault: str, tmp_path: Path) -> None:
    assert_line_3_is_refused(write(tmp_path / "task.jsonl", first, "", line), fault)


def assert_line_3_is_refused(path: Path, fault: str) -> None:
    with pytest.raises(TaskError, match=fault) as caught:
        read_task(path)
    assert "line 3: " in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_at_fault_in_a_whole_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    for lines, fault in (
        (["", " "], "holds no task.*prompt, reference"),
        ([LABEL, LABEL], "no label but 'yes'"),
        ([PAIR, PAIR], "no label but 1"),
        ([{"text": "a", "label": f"label {number}"} for number in range(101)], "line 101: it brings label 101"),
    ):
        with pytest.raises(TaskError, match=fault):
            read_task(write(path, *lines))
    for bad in (tmp_path / "none", tmp_path):
        with pytest.raises(TaskError, match="cannot read"):
            read_task(bad)
    path.write_bytes(b'{"context": "\xff"}')
    with pytest.raises(TaskError, match="not JSON"):
        read_task(path)


def test_a_file_of_each_kind_is_read(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    question = {"question": "Who?", "choices": ["a", "b"], "answer": 0}
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(map(json.dumps, [CHOICE | {"id": 7, "label": "B"}, question])).encode())
    asked = Question("a", ("a", "b"), 1, 1), Question("Question: Who?\nAnswer:", ("a", "b"), 0, 3)
    assert read_task(path) == FileTask("multiple choice", asked)
    write(path, LABEL, {"text": "b", "label": "no"}, {"text": "c", "label": "yes", "prompt": "d"})
    labels = ("yes", "no")
    classes = Question("a", labels, 0, 1), Question("b", labels, 1, 2), Question("c", labels, 0, 3)
    assert read_task(path) == FileTask("classification", classes)
    write(path, PAIR, PAIR | {"text": "b", "label": 0})
    pairs = Question("a", ("no", "yes"), 1, 1), Question("b", ("no", "yes"), 0, 2)
    assert read_task(path) == FileTask("discrimination", pairs)
    write(path, "", {"prompt": "a ", "reference": " b c "})
    assert read_task(path) == FileTask("writing", (Prompt("a ", "b c", 2),))


KEYS = sorted({name for kind in KINDS.values() for names in kind.keys for name in names})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
CHANGED = st.builds(
    lambda line, change, gone: {key: value for key, value in (line | change).items() if key != gone},
    st.sampled_from(list(ONE_OF_EACH.values())),
    st.dictionaries(st.sampled_from(KEYS), VALUES | st.sampled_from(["yes", 0, 1, ["a", "b"]]), max_size=2),
    st.none() | st.sampled_from(KEYS),
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CHANGED.map(lambda line: json.dumps(line).encode()) | st.binary(max_size=12), max_size=4))
def test_any_file_is_read_or_refused_in_one_line(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "task.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        task: Any = read_task(path)
    except TaskError as fault:
        assert str(path) in str(fault) and str(fault).isprintable() and len(str(fault)) < 400 + len(str(path))
        return
    assert task.kind in KINDS and task.items
