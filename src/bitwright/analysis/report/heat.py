"""The heat map of layers x tensor kinds, by share of the loss and by bits; lying for wide screens, standing for phones.

A cell may hold several tensors (experts): it shows their sum, or their mean by bytes, and opens the costliest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bitwright.analysis.report.chart import Figure, axis, figure, literal
from bitwright.analysis.report.document import Document
from bitwright.analysis.report.quantities import number, percent

ORDER = ("q", "k", "v", "o", "gate", "up", "down")  # as a block computes them
Cells = Mapping[tuple[int, str], Sequence[int]]  # (layer, kind) -> positions in document.tensors
Measure = Callable[[Sequence[int]], float | None]


def cells(document: Document) -> dict[tuple[int, str], list[int]]:
    """The tensors of each cell, the costliest first."""
    found: dict[tuple[int, str], list[int]] = {}
    for position, tensor in enumerate(document.tensors):
        if tensor.layer >= 0:
            found.setdefault((tensor.layer, tensor.kind), []).append(position)
    for positions in found.values():
        positions.sort(key=lambda position: -(document.tensors[position].cost or 0))
    return found


def by_share(document: Document, standing: bool) -> Figure:
    total = document.cost

    def share(positions: Sequence[int]) -> float | None:
        costs = [document.tensors[position].cost for position in positions]
        known = [max(cost, 0.0) for cost in costs if cost is not None]
        return sum(known) / total if known and total > 0 else None

    scale = [[0, "var(--heat-0)"], [0.25, "var(--heat-1)"], [0.6, "var(--heat-2)"], [1, "var(--heat-3)"]]
    loss = "estimated loss" if document.estimated else "loss"
    map_ = _map(document, share, lambda value: f"{percent(value)} of the {loss}", standing)
    map_["data"][0] |= {"colorscale": scale, "zmin": 0}
    map_["data"][0]["colorbar"] |= {"tickformat": ".1~%"}
    return map_


def by_bits(document: Document, standing: bool) -> Figure:
    def bits(positions: Sequence[int]) -> float | None:
        tensors = [document.tensors[position] for position in positions]
        weights = [max(tensor.bytes, 1) / max(tensor.bits, 1e-9) for tensor in tensors]
        return sum(t.bits * weight for t, weight in zip(tensors, weights, strict=True)) / sum(weights)

    map_ = _map(document, bits, lambda value: f"{number(value)} bits a weight", standing)
    scale = [[0, "var(--cool-0)"], [0.5, "var(--cool-1)"], [1, "var(--cool-2)"]]
    levels = sorted({round(value, 6) for row in map_["data"][0]["z"] for value in row if value is not None})
    middle = {"zmin": levels[0] - 0.5, "zmax": levels[0] + 0.5} if len(levels) == 1 else {}
    map_["data"][0] |= {"colorscale": scale} | middle
    if len(levels) <= 6:  # few schemes: one label each
        map_["data"][0]["colorbar"] |= {"tickvals": levels, "ticktext": [number(level) for level in levels]}
    return map_


def _map(document: Document, measure: Measure, say: Callable[[float], str], standing: bool) -> Figure:
    found = cells(document)
    layers = sorted({layer for layer, _ in found})
    present = {kind for _, kind in found}
    kinds = [kind for kind in ORDER if kind in present] + sorted(present - set(ORDER))
    rows, data = list[list[float | None]](), list[list[list[object]]]()
    for kind in kinds:
        values = [measure(found[layer, kind]) if (layer, kind) in found else None for layer in layers]
        rows.append(values)
        data.append([_said(document, found.get((layer, kind)), value, say) for layer, value in zip(layers, values, strict=True)])
    trace: Figure = {
        "type": "heatmap",
        "x": layers,
        "y": [literal(kind) for kind in kinds],
        "z": [[None if value is None else float(f"{value:.5g}") for value in row] for row in rows],
        "customdata": data,
        "hovertemplate": "%{customdata[1]}<br>%{customdata[2]}<extra></extra>",
        "hoverongaps": False,
        "xgap": 1.5,
        "ygap": 1.5,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 1, "tickfont": {"size": 11}, "nticks": 5},
    }
    step: Figure = {"dtick": 5 if len(layers) > 12 else 1, "showgrid": False}
    across, down = axis("block", step), axis(more={"showgrid": False, "autorange": "reversed", "type": "category"})
    if standing:
        for key in ("z", "customdata"):
            trace[key] = [list(column) for column in zip(*trace[key], strict=True)]
        trace |= {"x": trace["y"], "y": trace["x"]}
        across, down = down | {"autorange": True, "side": "top"}, across | {"autorange": "reversed"}
        trace["colorbar"] |= {"orientation": "h", "y": -0.02, "yanchor": "top"}
    return figure([trace], {"xaxis": across, "yaxis": down, "margin": _margin(kinds, standing)})


def _margin(kinds: Sequence[str], standing: bool) -> Figure:
    """Fixed: left to itself, plotly now and then gives half of the width to the colour bar."""
    longest = max(len(kind) for kind in kinds)
    sides = {"l": 52, "r": 8, "t": 30, "b": 56} if standing else {"l": 20 + 8 * longest, "r": 72, "t": 8, "b": 48}
    return sides | {"autoexpand": False}


def _said(document: Document, positions: Sequence[int] | None, value: float | None, say: Callable[[float], str]) -> list[object]:
    """What a cell carries: the tensor it opens, its name, and the value in words."""
    if not positions:
        return [-1, "", ""]
    first = document.tensors[positions[0]]
    more = f" and {len(positions) - 1} more" if len(positions) > 1 else ""
    return [
        positions[0],
        literal(first.name) + more,
        f"{literal(first.scheme)}, {'not measured' if value is None else say(value)}",
    ]
