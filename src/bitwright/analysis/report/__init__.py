"""One self-contained HTML page from what `analyze` and `plan` measured. docs/report.md says what each section means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.analysis.report.document import parse
from bitwright.artifact.staging import write_file

__all__ = ["finite", "render", "write"]


def render(document: Mapping[str, Any]) -> str:
    """The page. Raises `ReportError` where the document is not as document.py says, or where plotly is not installed."""
    from bitwright.analysis.report.page import page

    return page(parse(document))


def finite(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with null where a figure is NaN or infinite, which JSON has not."""
    return dict(json.loads(json.dumps(document), parse_constant=lambda name: None))


def write(document: Mapping[str, Any], place: str | Path, json_place: str | Path | None = None) -> None:
    """The page at `place` and the document at `json_place`: written beside and renamed, so they appear whole or not at all.

    Raises what `render` raises, before anything is written, and `OutputError`.
    """
    write_file(Path(place), render(document))
    if json_place is not None:
        write_file(Path(json_place), json.dumps(finite(document), indent=1) + "\n")
