"""One self-contained HTML page from what `analyze` and `plan` measured. docs/report.md says what each section means."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.analysis.report.document import parse
from bitwright.artifact.staging import explain
from bitwright.errors import OutputError

__all__ = ["render", "write"]


def render(document: Mapping[str, Any]) -> str:
    """The page. Raises `ReportError` where the document is not as document.py says, or where plotly is not installed."""
    from bitwright.analysis.report.page import page

    return page(parse(document))


def write(document: Mapping[str, Any], place: str | Path, json_place: str | Path | None = None) -> None:
    """The page at `place` and the document at `json_place`: written beside and renamed, so they appear whole or not at all.

    Raises what `render` raises, before anything is written, and `OutputError`.
    """
    _write(Path(place), render(document))
    if json_place is not None:
        finite = json.loads(json.dumps(document), parse_constant=lambda name: None)  # JSON has no NaN and no infinity
        _write(Path(json_place), json.dumps(finite, indent=1) + "\n")


def _write(place: Path, content: str) -> None:
    if not place.parent.is_dir():
        raise OutputError(f"there is no folder {place.parent}; create it or choose another output")
    if place.is_dir():
        raise OutputError(f"{place} is a folder; choose another output")
    partial = place.parent / f".{place.name}.partial-{os.urandom(4).hex()}"
    try:
        partial.write_bytes(content.encode("utf-8", "replace"))  # a lone surrogate in a name is no character
        partial.replace(place)
    except OSError as fault:
        raise OutputError(explain(fault, place)) from fault
    finally:
        partial.unlink(missing_ok=True)
