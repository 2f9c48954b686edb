"""Where peers live: each in a virtual environment of its own, made once by whoever needs it, every version pinned.

The environments lie in ~/.cache/bitwright-peers, or where BITWRIGHT_PEERS says; one that is complete holds a file of that
name. Versions that pip chose by itself are recorded in `versions.txt` there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path


def environment(name: str, installs: Sequence[Sequence[str]], variables: Mapping[str, str] | None = None) -> Path:
    """The Python of peer `name`. `installs` are what `pip install` is called with, in order, on the first call."""
    home = Path(os.environ.get("BITWRIGHT_PEERS", Path.home() / ".cache" / "bitwright-peers"))
    place = home / name
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        print(f"making {place}: this takes minutes, once", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        for arguments in installs:
            install = [str(python), "-m", "pip", "install", "-q", *arguments]
            subprocess.run(install, env=dict(os.environ) | dict(variables or {}), check=True)
        frozen = subprocess.run([str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
        (place / "versions.txt").write_text(frozen, "utf-8")
        (place / "complete").touch()
    return python
