"""Rows of text out of a parquet file, through pyarrow, a batch at a time.

A small file may claim to be large: a row group whose column unpacks to more than LARGEST_COLUMN, and to more than RATIO times
its bytes, is not unpacked. A string that repeats is held once, as in the file. What a file that lies in its totals can still
make pyarrow unpack at once is one page, 2 GiB by the format.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bitwright.calibration.text_rows import CURE, text_column
from bitwright.errors import TextError

PARQUET = ".parquet"
LARGEST_COLUMN = 2**28  # bytes
RATIO = 100  # no text is packed by so much
BATCH = 8192  # rows


def require_pyarrow(path: str | Path) -> None:
    """Raises `TextError`."""
    if find_spec("pyarrow") is None:
        raise TextError(f"to read {path} takes pyarrow; pip install 'bitwright[parquet]', or give plain text")


def parquet_rows(path: Path) -> Iterator[str]:
    """The text of each row, without nulls. Raises `TextError`."""
    require_pyarrow(path)
    import pyarrow
    import pyarrow.parquet  # takes a while to import

    try:
        yield from _rows(path, pyarrow)
    except UnicodeDecodeError as fault:
        raise TextError(f"{path} is not UTF-8 ({fault.reason}); write it anew as UTF-8") from fault
    except (OSError, KeyError, pyarrow.ArrowException) as fault:  # KeyError: two of its schemas differ in a name
        reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0][:160]
        raise TextError(f"{path} is no whole parquet file ({reason}); fetch it again, or give plain text") from fault


def _rows(path: Path, pyarrow: Any) -> Iterator[str]:
    schema, types = pyarrow.parquet.read_schema(path), pyarrow.types
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    strings = [field.name for field in schema if any(test(field.type) for test in texts)]
    column = text_column(schema.names, strings, path)
    if column not in strings:
        raise TextError(f"column {column!r} of {path} holds {schema.field(column).type}, not strings; {CURE}")
    with pyarrow.parquet.ParquetFile(path, memory_map=True, read_dictionary=[column]) as file:
        for group in range(file.num_row_groups):
            _check(file.metadata.row_group(group), column, path)
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=[column]):
                batch.validate(full=True)
                words = batch.column(0).dictionary.to_pylist()
                yield from (words[index] for index in batch.column(0).indices.to_pylist() if index is not None)


def _check(group: Any, column: str, path: Path) -> None:
    """Raises `TextError` where the column is packed as no text is."""
    for part in (group.column(index) for index in range(group.num_columns)):
        packed, unpacked = part.total_compressed_size, part.total_uncompressed_size
        if part.path_in_schema == column and unpacked > max(LARGEST_COLUMN, RATIO * packed):
            raise TextError(f"{path} would unpack {packed} bytes to {unpacked}, which no text does; {CURE}")
