"""Which file of a data set is read, by config and split, on listings as they are on the hub; the hub itself is a stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitwright.calibration import parquet
from bitwright.calibration.hub_text import HubText
from bitwright.calibration.text import Source
from bitwright.errors import TextError

WIKITEXT = [
    f"wikitext-{size}-{kind}/{split}-00000-of-00001.parquet"
    for size in ("103", "2")
    for kind in ("raw-v1", "v1")
    for split in ("test", "train", "validation")
]
C4 = [f"{config}/c4-{split}.json.gz" for config in ("en", "en.noblocklist") for split in ("train.00000-of-01024", "validation")]
FINEWEB = ["data/CC-MAIN-2013-20/train-00000-of-00014.parquet", "sample/100BT/000_00000.parquet", "sample/10BT/000_00000.parquet"]
LANGUAGES = ["data/de-en.jsonl", "data/de.jsonl", "data/en.jsonl"]
CHAT = ["data/test_sft-00000-of-00001.parquet", "data/train_gen-00000-of-00003.parquet", "data/train_sft-00000-of-00003.parquet"]
ABOUT = ["README.md", ".gitattributes", "LICENSE.txt", "dataset_infos.json", "requirements.txt"]


@pytest.mark.parametrize(
    ("files", "words", "expected"),
    [
        (WIKITEXT, "wikitext-2-raw-v1", "wikitext-2-raw-v1/train-00000-of-00001.parquet"),
        (WIKITEXT, "wikitext-2-raw-v1:validation", "wikitext-2-raw-v1/validation-00000-of-00001.parquet"),
        (WIKITEXT, ":test", "wikitext-103-raw-v1/test-00000-of-00001.parquet"),
        (WIKITEXT, "", "wikitext-103-raw-v1/train-00000-of-00001.parquet"),
        (C4, "en", "en/c4-train.00000-of-01024.json.gz"),
        (C4, "en.noblocklist:validation", "en.noblocklist/c4-validation.json.gz"),
        (FINEWEB, "sample-10BT", "sample/10BT/000_00000.parquet"),
        (FINEWEB, "CC-MAIN-2013-20:train", FINEWEB[0]),
        (LANGUAGES, "en", "data/en.jsonl"),
        (LANGUAGES, "", "data/de-en.jsonl"),
        (CHAT, ":train_sft", CHAT[2]),
        (["a.txt.gz", "citations.txt.parquet"], "", "a.txt.gz"),
    ],
)
def test_the_file_is_found_by_the_words_in_its_path(files: list[str], words: str, expected: str) -> None:
    data_set = HubText.parse(f"org/name:{words}" if words else "org/name")
    assert data_set is not None and data_set.find([*reversed(files), *ABOUT]) == expected


@pytest.mark.parametrize(
    ("files", "words", "message"),
    [
        (WIKITEXT, "wiki", r"has 'wiki' in its path; it has wikitext-103-raw-v1/test-00000-of-00001.parquet, .*, \.\.\.$"),
        (C4, "en:test", r"has 'en' and 'test' in its path; it has en.noblocklist/c4-train"),
        (ABOUT, "", r"has no \.txt, .*\.parquet file; give a text file"),
    ],
)
def test_where_none_matches_the_files_are_named(files: list[str], words: str, message: str) -> None:
    data_set = HubText.parse(f"org/name:{words}")
    assert data_set is not None
    with pytest.raises(TextError, match=message):
        data_set.find(files)


def test_spellings() -> None:
    assert HubText.parse("org/name") == HubText.parse("org/name:") == HubText.parse("org/name::") == HubText("org/name")
    assert HubText.parse("org/name::test") == HubText("org/name", "", "test")
    for place in ("name", "org/name:a:b:c", "no/such.txt", "no/such.parquet", "no/such.json.gz", "/org/name", "org/../x:a"):
        assert HubText.parse(place) is None
        with pytest.raises(TextError, match="give a text file, a data set org/name:config:split, or 'self'"):
            Source(place).check()


def test_a_parquet_file_is_fetched_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def fetch(name: str, file: str, **asked: Any) -> str:
        fetched.append((name, file, asked))
        pq.write_table(pa.table({"id": [1, 2], "content": ["first", "second"]}), tmp_path / "fetched.parquet")
        return str(tmp_path / "fetched.parquet")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: WIKITEXT)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    data_set = HubText("org/name", "wikitext-2-v1", "test")
    assert data_set.read() == "first\n\nsecond"
    assert fetched == [("org/name", "wikitext-2-v1/test-00000-of-00001.parquet", {"repo_type": "dataset"})]
    monkeypatch.setattr(parquet, "find_spec", lambda _: None)
    with pytest.raises(TextError, match="pip install"):
        data_set.read()
    assert len(fetched) == 1  # refused before anything is fetched
