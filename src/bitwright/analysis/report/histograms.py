"""A tensor's weights, and the activations it meets, as histograms with the grid's levels drawn over them.

What lies beyond the outermost level is shaded: it is clipped to that level.
"""

from __future__ import annotations

from bitwright.analysis.report.chart import Figure, axis, compact, figure
from bitwright.analysis.report.document import Counts

FEW = 40  # levels that can be drawn as lines from top to bottom; more become a strip


def histogram(counts: Counts, title: str) -> Figure:
    total = sum(counts.counts) or 1.0
    heights = [compact(count / total) for count in counts.counts]
    edges = [compact(edge) for edge in counts.edges]
    bars = _bins(edges) | {
        "type": "bar",
        "y": heights,
        "marker": {"color": "var(--accent)", "line": {"width": 0}},
        "opacity": 0.8,
        "hovertemplate": "%{x}: %{y:.2%}<extra></extra>",
    }
    top = max(heights, default=1.0) or 1.0
    traces, shapes = [bars], list[Figure]()
    if counts.levels:
        traces.append(_levels([compact(level) for level in counts.levels], counts.level_count or len(counts.levels), top))
        shapes = _clipped(edges, counts.levels)
    layout = {
        "xaxis": axis(title, {"nticks": 6, "range": _range(counts)}),
        "yaxis": axis(more={"tickformat": "~%", "nticks": 4, "range": [0, 1.06 * top]}),
        "bargap": 0,
        "shapes": shapes,
    }
    return figure(traces, layout)


def _bins(edges: list[float]) -> Figure:
    """Where bars stand and how wide they are; in three numbers where all are equally wide."""
    widths = [right - left for left, right in zip(edges, edges[1:], strict=False)]
    if max(widths) - min(widths) < 1e-2 * max(widths):
        width = (edges[-1] - edges[0]) / len(widths)
        return {"x0": edges[0] + width / 2, "dx": width, "width": width}
    return {"x": [left + width / 2 for left, width in zip(edges, widths, strict=False)], "width": widths}


def _levels(levels: list[float], count: int, top: float) -> Figure:
    """A line each, or one strip over their range where they are too many to be told apart."""
    trace: Figure = {"type": "scatter", "mode": "lines", "hoverinfo": "skip"}
    if count > FEW:
        ends = {"x": [min(levels), max(levels)], "y": [0.02 * top, 0.02 * top]}
        return trace | ends | {"line": {"color": "var(--warm)", "width": 5}}
    points = {"x": [x for level in levels for x in (level, level, None)], "y": [0, 1.06 * top, None] * len(levels)}
    return trace | points | {"line": {"color": "var(--warm)", "width": 1.2}}


def _range(counts: Counts) -> list[float]:
    values = [*counts.edges, *(counts.levels or ())]
    room = 0.02 * (max(values) - min(values)) or 1.0
    return [compact(min(values) - room), compact(max(values) + room)]


def _clipped(edges: list[float], levels: tuple[float, ...]) -> list[Figure]:
    look = {
        "type": "rect",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "fillcolor": "var(--wash-bad)",
        "line": {"width": 0},
        "layer": "below",
    }
    sides = []
    if edges[0] < min(levels):
        sides.append(look | {"x0": edges[0], "x1": compact(min(levels))})
    if edges[-1] > max(levels):
        sides.append(look | {"x0": compact(max(levels)), "x1": edges[-1]})
    return sides
