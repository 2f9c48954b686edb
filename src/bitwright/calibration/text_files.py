"""A text out of what data sets ship: plain text, JSON lines, either one gzipped, or parquet.

However little a file is, and however much it unpacks to, no more than LARGEST_TEXT characters of it are read.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bitwright.calibration.parquet import PARQUET, parquet_rows
from bitwright.calibration.text_rows import json_rows
from bitwright.errors import TextError

LARGEST_TEXT = 2**26  # characters
PLAIN, LINES, GZIP = (".txt", ".text", ".md"), (".jsonl", ".json"), ".gz"
ENDINGS = (*PLAIN, *LINES, *(ending + GZIP for ending in PLAIN + LINES), PARQUET)


def read_text(path: Path) -> str:
    """The text of a file, or its beginning; a file of another ending is plain text.

    Raises `TextError` where it cannot be read, is not UTF-8, or has no column of text.
    """
    if path.suffix == PARQUET:
        return _joined(parquet_rows(path))
    try:
        with _open(path) as file:
            text = file.read(LARGEST_TEXT)
    except UnicodeDecodeError as fault:
        raise TextError(f"{path} is not UTF-8 ({fault.reason}); convert it, for example with iconv -t utf-8") from fault
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        raise TextError(f"{path} is no whole gzip file ({fault}); fetch it again, or give plain text") from fault
    except OSError as fault:
        raise TextError(f"cannot read the text {path}: {fault.strerror}; give a UTF-8 text file") from fault
    if not path.name.removesuffix(GZIP).endswith(LINES):
        return text
    if len(text) == LARGEST_TEXT and "\n" in text:
        text = text[: text.rindex("\n")]  # the last line was cut off
    return _joined(json_rows(text, path))


def _open(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == GZIP else path.open(encoding="utf-8-sig")


def _joined(rows: Iterator[str]) -> str:
    """With a blank line between."""
    taken, length = [], 0
    for row in rows:
        taken.append(row)
        length += len(row)
        if length >= LARGEST_TEXT:
            break
    return "\n\n".join(taken)[:LARGEST_TEXT]
