"""Reading a JSON object from a file that may be anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bitwright.errors import BitwrightError

LARGEST_BYTES = 256 << 20  # the largest published tokenizer.json has 35 MB


def read_json(path: Path, error: type[BitwrightError]) -> dict[str, Any]:
    """The object in a JSON file. Raises `error` where there is no file, no JSON or another value than an object."""
    check_size(path, error)
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as fault:  # RecursionError: brackets nested a thousand deep
        raise error(f"cannot read {path}: {str(fault)[:200]}; fetch the model again") from fault
    if not isinstance(value, dict):
        raise error(f"{path} holds no JSON object; fetch the model again")
    return value


def check_size(path: Path, error: type[BitwrightError]) -> None:
    """Raises `error` where there is no file, or one that is larger than any of its kind."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as fault:
        raise error(f"{path.parent} has no {path.name}; fetch the model again") from fault
    except OSError as fault:
        raise error(f"cannot read {path}: {str(fault)[:200]}; fetch the model again") from fault
    if size > LARGEST_BYTES:
        raise error(f"{path} is larger than {LARGEST_BYTES >> 20} MB, which no {path.name} is; fetch the model again")
