"""Where Bitwright keeps what is costly to make again: $BITWRIGHT_CACHE, else $XDG_CACHE_HOME/bitwright or ~/.cache/bitwright."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """The folder, which may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("BITWRIGHT_CACHE") or Path(home) / "bitwright")
