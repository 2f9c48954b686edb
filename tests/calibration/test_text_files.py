"""Text out of files of every ending; hostile ones are refused in one line, and unpack to no more than is read."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitwright.calibration import parquet, text_files
from bitwright.calibration.text import Source
from bitwright.calibration.text_files import ENDINGS, read_text
from bitwright.errors import TextError

WORDS = ["one ünit", "two\u2028lines\x85in one", "three"]
TEXT = "\n\n".join(WORDS)


def write(path: Path, texts: list[str | None], column: str = "text") -> Path:
    """As the path's ending says, with a column of numbers beside the text."""
    rows = [{"id": number, column: text} for number, text in enumerate(texts)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        return path
    is_lines = ".json" in path.name
    body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) if is_lines else "\n\n".join(map(str, texts))
    path.write_bytes(gzip.compress(body.encode()) if path.suffix == ".gz" else body.encode())
    return path


def refused(path: Path) -> str:
    with pytest.raises(TextError) as caught:
        read_text(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize("ending", [*ENDINGS, "", ".log"])
def test_every_ending_is_read(tmp_path: Path, ending: str) -> None:
    assert read_text(write(tmp_path / f"file{ending}", [*WORDS])) == TEXT


@pytest.mark.parametrize("ending", [".jsonl", ".json.gz", ".parquet"])
def test_the_text_is_in_text_or_in_the_only_column_of_strings(tmp_path: Path, ending: str) -> None:
    assert read_text(write(tmp_path / f"file{ending}", ["a", None, "b"])) == "a\n\nb"
    assert read_text(write(tmp_path / f"other{ending}", ["a", None, "b"], "content")) == "a\n\nb"


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"question": "q", "answer": "a"}, "'question', 'answer'"),
        ({"id": 1, "label": 2}, "'id', 'label'"),
        ({"evil\nname": "q", "answer": "a"}, r"'evil\nname'"),
    ],
)
def test_columns_are_named_where_none_is_the_text(tmp_path: Path, row: dict[str, Any], named: str) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    for path in (tmp_path / "x.jsonl", tmp_path / "x.parquet"):
        assert named in refused(path)


def test_a_text_that_is_no_string_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n\n{"text": [1]}\n', "utf-8")
    assert "line 3 of" in refused(tmp_path / "x.jsonl")
    pq.write_table(pa.table({"text": [[1]]}), tmp_path / "x.parquet")
    assert "list<" in refused(tmp_path / "x.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array([1])], ["text", "text"]), tmp_path / "x.parquet")
    assert "'text', 'text'" in refused(tmp_path / "x.parquet")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_parquet_strings_of_every_kind(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(WORDS).cast(kind)}), tmp_path / "x.parquet")
    assert read_text(tmp_path / "x.parquet") == TEXT


def test_no_more_is_unpacked_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LARGEST_TEXT", 100_000)
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"a" * 2**24))
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b'{"text": "aaaaaaaaaa"}\n' * 2**19))
    pq.write_table(pa.table({"text": pa.array(["a" * 2**16] * 1000)}), tmp_path / "x.parquet", compression="zstd")
    lengths = {}
    for path in tmp_path.iterdir():
        tracemalloc.start()
        lengths[path.name] = len(read_text(path))
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
        tracemalloc.stop()
    rows = 100_000 // len('{"text": "aaaaaaaaaa"}\n')  # whole ones
    assert lengths == {"x.txt.gz": 100_000, "x.json.gz": 12 * rows - 2, "x.parquet": 100_000}


def test_a_column_that_unpacks_as_no_text_does_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": ["a" * 2**20]})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd", use_dictionary=False)
    assert len(read_text(tmp_path / "x.parquet")) == 2**20
    monkeypatch.setattr(parquet, "LARGEST_COLUMN", 2**19)
    assert "which no text does" in refused(tmp_path / "x.parquet")
    pq.write_table(table, tmp_path / "x.parquet", compression="none", use_dictionary=False)
    assert len(read_text(tmp_path / "x.parquet")) == 2**20  # a large file may be large


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_a_schema_is_not_run(tmp_path: Path) -> None:
    name, data = b"ARROW:extension:name", b"ARROW:extension:metadata"
    trap = {name: b"arrow.py_extension_type", data: pickle.dumps(_Trap(tmp_path / "sprung"))}
    schema = pa.schema([pa.field("text", pa.string(), metadata=trap)])
    pq.write_table(pa.table([pa.array(WORDS)], schema=schema), tmp_path / "x.parquet")
    assert read_text(tmp_path / "x.parquet") == TEXT and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("ending", [".txt.gz", ".jsonl.gz", ".parquet"])
def test_damaged_files_are_read_or_refused(tmp_path: Path, ending: str) -> None:
    whole = write(tmp_path / f"whole{ending}", [*WORDS]).read_bytes()
    path, rng, faults = tmp_path / f"x{ending}", random.Random(5), 0
    for _ in range(300):
        damaged = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for _ in range(rng.choice([0, 1, 3]) if damaged else 0):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_text(path)
        except TextError as fault:
            faults += "\n" not in str(fault)
    assert faults > 100


def test_nested_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": ' + "[" * 100_000, "utf-8")
    assert "line 1 of" in refused(tmp_path / "x.jsonl")


def test_without_pyarrow_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", [*WORDS])
    Source(str(path)).check()
    monkeypatch.setattr(parquet, "find_spec", lambda _: None)
    with pytest.raises(TextError, match=r"takes pyarrow; pip install 'bitwright\[parquet\]'"):
        Source(str(path)).check()
    refused(path)
