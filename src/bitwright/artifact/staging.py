"""A directory or a file that appears whole or not at all: written beside its place, then renamed.

    with staged(out, size, is_artifact) as directory:   # .OUT.partial-XXXX beside OUT
        ...

Any exception in the block, Ctrl-C included, removes that directory and leaves OUT as it was. A directory is flushed to the
disk before it is renamed; a single file of text (`write_file`) is made again in a moment, and is not.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bitwright.errors import BitwrightError, OutputError

SPARE = 2**20  # bytes of free space asked for beyond the size that is announced
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def staged(out: str | Path, size: int, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield an empty directory that becomes `out` when the block ends well.

    `size` is the number of bytes that will be written. `out` may be absent, an empty directory, or one that `may_replace`
    accepts, which then goes as a whole. Raises `OutputError` before any work where `out` cannot be written, and later for
    whatever the file system refuses.
    """
    place = Path(os.path.realpath(out))  # through a link, so that it is the link's target that is replaced
    partial = place.parent / f".{place.name}.partial-{os.urandom(4).hex()}"
    try:
        check_place(place, may_replace)
        try:
            partial.mkdir()
            _check_space(place.parent, size)
            yield partial
            for path in (*sorted(partial.iterdir()), partial):  # files first, then the directory that names them
                _flush(path)
            check_place(place, may_replace)  # much time may have passed
            _swap(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as fault:
        if isinstance(fault, BitwrightError):
            raise
        raise OutputError(explain(fault, place)) from fault


def check_place(place: Path, may_replace: Callable[[Path], bool]) -> None:
    """Raises `OutputError` unless `place` is absent, an empty directory, or one that `may_replace` accepts."""
    if not place.parent.is_dir():
        raise OutputError(f"there is no folder {place.parent}; create it or choose another output")
    if not place.exists():
        return
    if not place.is_dir():
        raise OutputError(f"{place} exists and is a file; choose another output")
    if any(place.iterdir()) and not may_replace(place):
        raise OutputError(f"{place} exists and is not (or not only) a Bitwright artifact; remove it or choose another output")


def check_file(place: Path) -> None:
    """Raises `OutputError` unless a file can stand at `place`, where another may stand now."""
    if not place.parent.is_dir():
        raise OutputError(f"there is no folder {place.parent}; create it or choose another output")
    if place.is_dir():
        raise OutputError(f"{place} is a folder; choose another output")


def write_file(place: Path, content: str) -> None:
    """Put a text file at `place`, in place of one that stands there. Raises `OutputError`, and then leaves that as it was."""
    check_file(place)
    partial = place.parent / f".{place.name}.partial-{os.urandom(4).hex()}"
    try:
        try:
            partial.write_bytes(content.encode("utf-8", "replace"))  # a lone surrogate in a name is no character
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as fault:
        raise OutputError(explain(fault, place)) from fault


def explain(fault: OSError, place: Path) -> str:
    """One line that names the fault and the cure."""
    if fault.errno in _FULL:
        return f"the disk is full ({fault.strerror}) while writing {place}; free some space or choose another output"
    if fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot write into {place.parent} ({fault.strerror}); change its permissions or choose another output"
    return f"cannot write {place} ({fault.strerror}); choose another output"


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        needed = f"{(size + SPARE) / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free"
        raise OutputError(f"the disk is too full: {needed} in {folder}; free some space or choose another output")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(partial: Path, place: Path) -> None:
    """Put `partial` in the place of `place`; whatever goes wrong, one of the two stands there afterwards."""
    old = place.parent / f".{place.name}.replaced-{os.urandom(4).hex()}"
    replacing = place.exists()
    try:
        if replacing:
            place.rename(old)
        partial.rename(place)
    except BaseException:
        if replacing and not place.exists():
            old.rename(place)
        raise
    if replacing:
        shutil.rmtree(old, ignore_errors=True)
    _flush(place.parent)
