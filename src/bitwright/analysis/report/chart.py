"""What all charts share: one look, in colours that the page resolves when it draws (`var(--accent)`), so they follow its theme.

A figure is plotly's JSON, {"data": [...], "layout": {...}}, made by hand rather than with plotly's classes: the page needs only
the JSON, and a test reads each figure with those classes. Texts go through `literal`: plotly reads `<b>` and `<a>` as markup.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import Any

Figure = dict[str, Any]

FONT: Figure = {
    "family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
    "size": 13,
    "color": "var(--soft)",
}
AXIS: Figure = {
    "gridcolor": "var(--grid)",
    "linecolor": "var(--line)",
    "zeroline": False,
    "automargin": True,
    "fixedrange": True,
    "ticks": "",
}
LEGEND: Figure = {
    "orientation": "h",
    "x": 0,
    "xanchor": "left",
    "y": 1.02,
    "yanchor": "bottom",
    "bgcolor": "rgba(0,0,0,0)",
    "itemclick": False,
}
LAYOUT: Figure = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": FONT,
    "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
    "dragmode": False,
    "hoverlabel": {"bgcolor": "var(--raised)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}, "align": "left"},
    "showlegend": False,
}


def literal(text: str) -> str:
    """For plotly to show as it stands."""
    return html.escape(text, quote=False)


def axis(title: str = "", more: Figure | None = None) -> Figure:
    return AXIS | ({"title": {"text": literal(title), "standoff": 10, "font": {"size": 12}}} if title else {}) | (more or {})


def logarithmic(title: str, values: Iterable[float]) -> Figure:
    """Labels at 1, 2 and 5 where few decades are shown, else at powers of ten."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.log10(min(positive)), math.log10(max(positive))
    room = max(0.06 * (high - low), 0.08)
    step: str | int = "D2" if high - low < 1.3 else math.ceil((high - low) / 6)
    return axis(title, {"type": "log", "range": [low - room, high + room], "dtick": step, "tickformat": "~g"})


def figure(traces: list[Figure], layout: Figure) -> Figure:
    return {"data": traces, "layout": LAYOUT | layout}


def legend(entries: int) -> Figure:
    """The layout of a figure with a legend above; it takes more lines on a phone."""
    return {"showlegend": entries > 1, "legend": LEGEND, "margin": LAYOUT["margin"] | {"t": 40 if entries > 1 else 12}}


def compact(value: float) -> float:
    """Five significant digits: more cannot be seen, and take room in the page."""
    return float(f"{value:.5g}")


def envelope(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that none beats in both coordinates, from left to right: the frontier."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not kept or y < kept[-1][1]:
            kept.append((x, y))
    return kept
