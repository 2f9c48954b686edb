"""The reference's side of an evaluation, computed once and kept on disk in bounded space.

What is kept is not the log-probabilities (98 kB a token in fp16 for a vocabulary of 49152) but the hidden state after
the final norm in float32 (2.3 kB a token for 576 channels): logits = softcap(hidden @ head^T) gives them back exactly.

One entry is one plain .npy file, `<key>-<crc32 of the rows>.npy`. The key is a hash of all that the rows depend on.
An entry is written beside and renamed; one whose header, size or checksum is wrong is deleted and computed again.
The directory holds at most `limit` bytes: the entries used least recently go first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from bitwright.cache import cache_directory
from bitwright.errors import OutputError

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]

DEFAULT_LIMIT = 2_000_000_000
ABANDONED_AFTER_SECONDS = 3600
_LAYOUT = 1  # raise it when the meaning of an entry changes
_logger = logging.getLogger("bitwright")


@dataclass(frozen=True)
class HiddenCache:
    """Where entries lie and how many bytes all of them may take. A limit of 0 turns caching off."""

    directory: Path
    limit: int = DEFAULT_LIMIT

    @classmethod
    def from_environment(cls) -> Self:
        """In Bitwright's cache directory; $BITWRIGHT_CACHE_BYTES bounds it."""
        limit = os.environ.get("BITWRIGHT_CACHE_BYTES", str(DEFAULT_LIMIT))
        if not limit.isdecimal():
            raise OutputError(f"BITWRIGHT_CACHE_BYTES must be a whole number of bytes, not {limit!r}; 0 turns the cache off")
        return cls(cache_directory(), int(limit))

    def find(self, key: str, shape: tuple[int, int]) -> Floats | None:
        """The rows of a sound entry, memory-mapped, marked as just used; None where there is none."""
        for path in self.directory.glob(f"{key}-*.npy"):
            rows = _read_sound(path, shape)
            if rows is not None:
                _touch(path)
                return rows
            path.unlink(missing_ok=True)
        return None

    def make_room(self, needed: int) -> None:
        """Delete the least recently used entries until `needed` bytes more fit, and what killed writers left behind."""
        for part in self.directory.glob("*.part"):
            if time.time() - part.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                part.unlink(missing_ok=True)
        entries = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self.directory.glob("*.npy"))
        excess = sum(size for _, size, _ in entries) + needed - self.limit
        for _, size, path in entries:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size


def cache_key(identity: Sequence[str], windows: Sequence[Tokens]) -> str:
    """A hash of whatever tells one reference run from another: the strings of `identity` and every token."""
    digest = hashlib.sha256(json.dumps([_LAYOUT, *identity, [len(window) for window in windows]]).encode())
    for window in windows:
        digest.update(np.ascontiguousarray(window, "<i4").data)
    return digest.hexdigest()[:32]


def hidden_states(
    windows: Sequence[Tokens], compute: Callable[[Tokens], Floats], width: int, identity: Sequence[str], cache: HiddenCache
) -> Iterator[Floats]:
    """Yield compute(window) (tokens, width) for each window, from the cache or into it. Never holds more than one window.

    A cache that cannot be written costs one warning, not the evaluation.
    """
    key = cache_key(identity, windows)
    shape = (sum(len(window) for window in windows), width)
    try:
        stored = cache.find(key, shape)
    except OSError:
        stored = None
    if stored is not None:
        ends = np.cumsum([len(window) for window in windows])
        yield from np.split(stored, ends[:-1])
        return
    entry = _Entry(cache, key, shape)
    try:
        for window in windows:
            rows = compute(window)
            entry.append(rows)
            yield rows
        entry.commit()
    finally:
        entry.discard()


class _Entry:
    """An entry on its way to disk. After the first fault it swallows all further rows."""

    def __init__(self, cache: HiddenCache, key: str, shape: tuple[int, int]) -> None:
        self.cache, self.key, self.checksum = cache, key, 0
        self.part = cache.directory / f"{key}.{os.getpid()}.part"
        self.file: BinaryIO | None = None
        size = shape[0] * shape[1] * 4
        if size > cache.limit:
            if cache.limit:
                _logger.warning(
                    "note: not caching the reference: %d bytes are more than the %d allowed (BITWRIGHT_CACHE_BYTES)",
                    size,
                    cache.limit,
                )
            return
        try:
            cache.directory.mkdir(parents=True, exist_ok=True)
            cache.make_room(size + 128)
            self.file = self.part.open("wb")
            self.file.write(_header(shape))
        except OSError as fault:
            self._give_up(fault)

    def append(self, rows: Floats) -> None:
        if self.file is None:
            return
        data = np.ascontiguousarray(rows, "<f4").tobytes()
        try:
            self.file.write(data)
            self.checksum = zlib.crc32(data, self.checksum)
        except OSError as fault:
            self._give_up(fault)

    def commit(self) -> None:
        if self.file is None:
            return
        try:
            self.file.close()
            self.file = None
            self.part.rename(self.cache.directory / f"{self.key}-{self.checksum:08x}.npy")
        except OSError as fault:
            self._give_up(fault)

    def discard(self) -> None:
        """Leave nothing half-written behind. Does nothing after `commit`."""
        if self.file is not None:
            self._close_quietly()

    def _give_up(self, fault: OSError) -> None:
        _logger.warning("note: not caching the reference in %s: %s", self.cache.directory, fault.strerror)
        self._close_quietly()

    def _close_quietly(self) -> None:
        try:
            if self.file is not None:
                self.file.close()
            self.part.unlink(missing_ok=True)
        except OSError:  # closing flushes what did not fit, and the folder may be read-only: nothing more can be done
            _logger.debug("could not remove %s", self.part)
        self.file = None


def _read_sound(path: Path, shape: tuple[int, int]) -> Floats | None:
    """The header must be the very bytes that we would write: nothing in a foreign one is ever parsed."""
    header = _header(shape)
    try:
        with path.open("rb") as file:
            if file.read(len(header)) != header or path.stat().st_size != len(header) + shape[0] * shape[1] * 4:
                return None
        rows = np.memmap(path, "<f4", "r", len(header), shape)
    except OSError:
        return None
    checksum = 0
    for begin in range(0, len(rows), 4096):
        checksum = zlib.crc32(rows[begin : begin + 4096].data, checksum)
    return rows if path.stem.endswith(f"-{checksum:08x}") else None


def _header(shape: tuple[int, int]) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _touch(path: Path) -> None:
    """Mark as just used; in a cache that may only be read, the order of use is not kept."""
    try:
        os.utime(path)
    except OSError:
        _logger.debug("could not mark %s as used", path)
