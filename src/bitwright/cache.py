"""Where Bitwright keeps what is costly to make again: $BITWRIGHT_CACHE, else $XDG_CACHE_HOME/bitwright or ~/.cache/bitwright."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def cache_directory() -> Path:
    """The folder, which may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("BITWRIGHT_CACHE") or Path(home) / "bitwright")


def keep(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """A file that appears whole or not at all: written beside, then renamed.

    A folder that cannot be written costs time later, not this run its result.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            write(file)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
