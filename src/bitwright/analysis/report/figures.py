"""The charts of one whole model: a function each, from the document to plotly's JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bitwright.analysis.report.chart import Figure, axis, compact, envelope, figure, legend, literal, logarithmic
from bitwright.analysis.report.document import (
    WORST,
    Cumulative,
    Document,
    Judged,
    Point,
    Prediction,
    Roofline,
    Tensor,
    TokenKind,
    Work,
    mean_kl,
)
from bitwright.analysis.report.quantities import number, percent, scaled, size, with_unit


def frontier(document: Document) -> Figure:
    """Size against KL, both smaller is better; what is measured is filled, what is predicted hollow, one scheme a square."""
    points = [point for point in document.frontier if point.kl > 0]  # a logarithmic axis has no zero
    sizes = [point.size_bytes / 1e6 for point in points] or [0.0, 1.0]
    ends = min(sizes), max(sizes)
    others = [point for point in points if not point.chosen]
    mixed, uniform = ([point for point in others if point.uniform is same] for same in (False, True))
    traces = [
        _steps([point for point in points if not point.measured], "dot", "var(--quiet)"),
        _steps([point for point in points if point.measured], "solid", "var(--accent)"),
        _points([p for p in mixed if not p.measured], "predicted", ("circle-open", "var(--quiet)"), ends),
        _points([p for p in mixed if p.measured], "measured", ("circle", "var(--accent)"), ends),
        _points([p for p in uniform if not p.measured], "one scheme, predicted", ("square-open", "var(--soft)"), ends),
        _points([p for p in uniform if p.measured], "one scheme for all", ("square", "var(--soft)"), ends),
        _points([point for point in points if point.chosen], "chosen", ("star", "var(--warm)"), ends),
    ]
    floor = document.whole.noise_floor_kl if document.whole else None
    levels = [point.kl for point in points] + ([floor] if floor else [])
    shown = [trace for trace in traces if trace["x"]]
    layout = {
        "xaxis": axis("size, MB", {"tickangle": 0, "nticks": 7, "range": _room(ends)}),
        "yaxis": logarithmic("KL, nats per token", levels),
        "shapes": [_level(floor)] if floor else [],
        "annotations": [_level_name(floor, "noise floor")] if floor else [],
    }
    return figure(shown, layout | legend(sum(bool(trace["showlegend"]) for trace in shown)))


def _steps(points: Sequence[Point], dash: str, colour: str) -> Figure:
    line = envelope((point.size_bytes / 1e6, point.kl) for point in points)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _ in line],
        "y": [y for _, y in line],
        "line": {"color": colour, "width": 1.5, "dash": dash},
        "opacity": 0.55,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _points(points: Sequence[Point], name: str, look: tuple[str, str], ends: tuple[float, float]) -> Figure:
    """Labels lie above the frontier, and that of the chosen point below; all lean to the middle of the chart.

    Of points so close that their labels would lie on each other, the first has one.
    """
    named = name == "chosen" or name.startswith("one scheme")
    return {
        "type": "scatter",
        "mode": "markers+text" if named else "markers",
        "name": name,
        "x": [point.size_bytes / 1e6 for point in points],
        "y": [point.kl for point in points],
        "text": _labels(points, ends),
        "textposition": [_aside(point, name, ends) for point in points],
        "textfont": {"size": 12, "color": "var(--ink)" if name == "chosen" else "var(--soft)"},
        "cliponaxis": False,
        "customdata": [[literal(point.label), size(point.size_bytes), number(point.kl)] for point in points],
        "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}, KL %{customdata[2]}<extra></extra>",
        "marker": {"symbol": look[0], "color": look[1], "size": 18 if name == "chosen" else 9, "line": {"width": 1.5}},
        "showlegend": True,
    }


def _labels(points: Sequence[Point], ends: tuple[float, float]) -> list[str]:
    kept: list[Point] = []
    for point in points:
        apart = [abs(point.size_bytes - other.size_bytes) / 1e6 > 0.2 * (ends[1] - ends[0]) for other in kept]
        if all(far or abs(math.log10(point.kl / other.kl)) > 0.25 for far, other in zip(apart, kept, strict=True)):
            kept.append(point)
    return [literal(point.label) if point in kept else "" for point in points]


def _aside(point: Point, name: str, ends: tuple[float, float]) -> str:
    along = (point.size_bytes / 1e6 - ends[0]) / ((ends[1] - ends[0]) or 1.0)
    if name == "chosen" and along > 0.25:
        return "bottom left"
    return "top right" if along < 0.8 else "top center"


def _room(ends: tuple[float, float]) -> list[float]:
    span = ends[1] - ends[0] or ends[1]
    return [ends[0] - 0.08 * span, ends[1] + 0.14 * span]


def _level(height: float) -> Figure:
    line = {"color": "var(--quiet)", "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": line}


def _level_name(height: float, name: str) -> Figure:
    place = {"xref": "paper", "x": 1, "xanchor": "right", "y": math.log10(height), "yanchor": "bottom"}
    return place | {"text": name, "showarrow": False, "font": {"size": 11, "color": "var(--quiet)"}}


def worst(tensors: Sequence[Tensor]) -> Figure:
    """The costliest tensors, with their intervals."""
    shown = list(reversed(tensors[:WORST]))
    measured, ranges = any(tensor.kl_alone is not None for tensor in shown), [tensor.kl_alone_interval for tensor in shown]
    costs = [tensor.cost or 0.0 for tensor in shown]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": costs,
        "y": [f"{short(tensor)} " for tensor in shown],
        "marker": {"color": "var(--warm)"},
        "customdata": [[literal(tensor.name), number(tensor.cost), literal(tensor.scheme)] for tensor in shown],
        "hovertemplate": "%{customdata[0]}<br>%{customdata[2]}: KL %{customdata[1]}<extra></extra>",
        "error_x": {
            "type": "data",
            "visible": any(ranges),
            "symmetric": False,
            "array": [max(between[1] - cost, 0) if between else 0 for between, cost in zip(ranges, costs, strict=True)],
            "arrayminus": [max(cost - between[0], 0) if between else 0 for between, cost in zip(ranges, costs, strict=True)],
            "color": "var(--ink)",
            "thickness": 1.2,
            "width": 3,
        },
    }
    layout = {
        "xaxis": axis(f"{'' if measured else 'estimated '}KL alone, nats per token", {"rangemode": "tozero", "nticks": 5}),
        "yaxis": axis(more={"type": "category"}),
    }
    return figure([trace], layout | {"bargap": 0.35})


def short(tensor: Tensor) -> str:
    """The tensor as charts call it: its block and kind."""
    return literal(f"{tensor.layer} {tensor.kind}" if tensor.layer >= 0 else tensor.kind)


def cumulative(steps: Sequence[Cumulative]) -> Figure:
    """The loss as block after block is quantized: steep is where it arises."""
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [step.block for step in steps],
        "y": [step.kl for step in steps],
        "line": {"color": "var(--accent)", "width": 2},
        "marker": {"size": 5, "color": "var(--accent)"},
        "fill": "tozeroy",
        "fillcolor": "var(--wash)",
        "customdata": [number(step.kl) for step in steps],
        "hovertemplate": "up to block %{x}: KL %{customdata}<extra></extra>",
    }
    return figure([trace], {"xaxis": axis("block"), "yaxis": axis("KL, nats per token", {"rangemode": "tozero"})})


def token_kinds(kinds: Sequence[TokenKind]) -> Figure:
    """Each kind's share of the tokens beside its share of the loss: where the second is longer, the loss gathers."""
    total = mean_kl(kinds)
    labels = [literal(kind.kind) + " " for kind in reversed(kinds)]
    shares = [kind.share for kind in reversed(kinds)]
    losses = [kind.share * kind.kl / total if total > 0 else 0 for kind in reversed(kinds)]
    traces = [_bars("of the loss", (labels, losses), "var(--warm)"), _bars("of the tokens", (labels, shares), "var(--quiet)")]
    layout = {"xaxis": axis(more={"tickformat": "~%", "nticks": 5}), "yaxis": axis(more={"type": "category"}), "bargap": 0.3}
    return figure(traces, layout | legend(2) | {"legend": legend(2)["legend"] | {"traceorder": "reversed"}})


def _bars(name: str, values: tuple[Sequence[str], Sequence[float]], colour: str) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": list(values[0]),
        "x": list(values[1]),
        "marker": {"color": colour},
        "customdata": [percent(value) for value in values[1]],
        "hovertemplate": "%{y}: %{customdata} " + name + "<extra></extra>",
    }


def predicted(predictions: Sequence[Prediction]) -> Figure:
    """How far the truth lies from what was predicted, in percent of the prediction."""
    known = [one for one in reversed(predictions) if one.predicted != 0]
    misses = [one.true / one.predicted - 1 for one in known]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": misses,
        "y": [literal(one.quantity) + " " for one in known],
        "marker": {"size": 12, "color": "var(--accent)"},
        "error_x": {"type": "data", "symmetric": False, "array": [max(-miss, 0) for miss in misses]}
        | {"arrayminus": [max(miss, 0) for miss in misses], "width": 0, "thickness": 2, "color": "var(--accent)"},
        "customdata": [[literal(with_unit(value, one.unit)) for value in (one.predicted, one.true)] for one in known],
        "hovertemplate": "%{y}: predicted %{customdata[0]}, true %{customdata[1]}<extra></extra>",
    }
    reach = 1.25 * max([abs(miss) for miss in misses] + [0.02])
    level = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0, "line": {"color": "var(--ink)", "width": 1}}
    horizontal = axis("true value, against the prediction", {"tickformat": "+~%", "range": [-reach, reach], "nticks": 7})
    return figure([trace], {"xaxis": horizontal, "yaxis": axis(more={"type": "category"}), "shapes": [level]})


def estimates(judged: Sequence[Judged]) -> Figure:
    """Estimated against measured loss of each tensor, all above zero; on the diagonal the estimate is right."""
    estimated, measured = [one.estimated for one in judged], [one.measured for one in judged]
    ends = [min(estimated + measured, default=1.0), max(estimated + measured, default=1.0)]
    diagonal = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip"}
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [compact(value) for value in estimated],
        "y": [compact(value) for value in measured],
        "marker": {"size": 7, "color": "var(--accent)", "opacity": 0.7},
        "text": [literal(one.tensor) for one in judged],
        "customdata": [[number(x), number(y)] for x, y in zip(estimated, measured, strict=True)],
        "hovertemplate": "%{text}<br>estimated %{customdata[0]}, measured %{customdata[1]}<extra></extra>",
    }
    layout = {
        "xaxis": logarithmic("estimated KL alone", estimated + measured),
        "yaxis": logarithmic("measured KL alone", estimated + measured),
    }
    return figure([diagonal | {"line": {"color": "var(--quiet)", "dash": "dash", "width": 1}}, dots], layout)


def roofline(roof: Roofline) -> Figure:
    """Operations per second against operations per byte, under what memory and arithmetic allow.
    S. Williams, A. Waterman, D. Patterson: Roofline, Communications of the ACM 52(4), 2009."""
    ridge = roof.peak_operations_per_s / roof.bandwidth_bytes_per_s
    dots = [point for point in roof.points if point.operations_per_byte > 0 and point.operations_per_s > 0]
    intensities = [point.operations_per_byte for point in dots]
    low, high = min([ridge, *intensities]) / 4, max([ridge, *intensities]) * 3
    names, places = _named(dots, math.sqrt(low * high))
    line: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": "the machine's limit",
        "x": [low, ridge, high],
        "y": [low * roof.bandwidth_bytes_per_s, roof.peak_operations_per_s, roof.peak_operations_per_s],
        "line": {"color": "var(--ink)", "width": 2},
        "hoverinfo": "skip",
    }
    points: Figure = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [point.operations_per_byte for point in dots],
        "y": [point.operations_per_s for point in dots],
        "text": names,
        "textposition": places,
        "textfont": {"size": 12},
        "marker": {
            "size": [8 + 30 * math.sqrt(max(point.seconds_share or 0, 0)) for point in dots],
            "color": "var(--accent)",
            "opacity": 0.75,
            "line": {"color": "var(--raised)", "width": 1},
        },
        "customdata": [[literal(p.name), scaled(p.operations_per_s, "op/s"), percent(p.seconds_share)] for p in dots],
        "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}, %{customdata[2]} of the time<extra></extra>",
    }
    heights = [*line["y"], *points["y"]]
    layout = {
        "xaxis": logarithmic("operations per byte", [low, high]) | {"dtick": 1},
        "yaxis": logarithmic("operations per second", heights) | {"dtick": 1, "tickformat": "~s"},
    }
    return figure([line, points], layout)


def _named(points: Sequence[Work], middle: float) -> tuple[list[str], list[str]]:
    """Each dot's label and where it stands: dots that lie together share one label, and close labels stand apart."""
    names, places = [""] * len(points), ["bottom left"] * len(points)
    spots = [(math.log10(point.operations_per_byte), math.log10(point.operations_per_s)) for point in points]
    for first, (x, y) in enumerate(spots):
        together = [n for n, (left, height) in enumerate(spots) if abs(left - x) < 0.15 and abs(height - y) < 0.12]
        if together[0] < first:
            continue
        names[first] = ", ".join(points[n].name for n in together)
        near = {places[n] for n in range(first) if names[n] and abs(spots[n][0] - x) < 0.6 and abs(spots[n][1] - y) < 0.3}
        if 10**x < middle:
            places[first] = next(
                one for one in ("middle right", "bottom center", "bottom right") if one not in near or len(near) > 2
            )
    return [literal(name) for name in names], places


def shares(roof: Roofline) -> Figure:
    """What part of a token's time and of its bytes each part of the model takes."""
    known = [point for point in reversed(roof.points) if point.seconds_share is not None or point.bytes is not None]
    total = sum(point.bytes or 0 for point in known)
    labels = [literal(point.name) + " " for point in known]
    traces = [_bars("of the time", (labels, [point.seconds_share or 0 for point in known]), "var(--warm)")]
    if total:
        traces.insert(0, _bars("of the bytes", (labels, [(point.bytes or 0) / total for point in known]), "var(--accent)"))
    layout = {"xaxis": axis(more={"tickformat": "~%", "nticks": 5}), "yaxis": axis(more={"type": "category"}), "bargap": 0.3}
    return figure(traces, layout | legend(2) | {"legend": legend(2)["legend"] | {"traceorder": "reversed"}})
