"""Charts: each reads with plotly's own classes, and holds what the document says."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.report.example import example, hostile
from bitwright.analysis.report import figures, heat
from bitwright.analysis.report.chart import envelope
from bitwright.analysis.report.document import Counts, Document, Histogram, parse
from bitwright.analysis.report.histograms import histogram
from bitwright.analysis.report.page import data
from bitwright.analysis.report.sections import sections
from bitwright.analysis.report.tables import described


@pytest.fixture(scope="module")
def document() -> Document:
    return parse(example(3))


@pytest.mark.parametrize("make", [example, hostile])
def test_plotly_reads_every_figure(make: Any) -> None:
    graph = pytest.importorskip("plotly.graph_objects", exc_type=ImportError)
    document = parse(example(3) if make is example else make())
    drawn = data(document, sections(document))
    every = [one for pair in drawn["figures"].values() for one in pair.values() if one]
    every += [
        one for tensor in drawn["tensors"][:3] for one in (tensor["histograms"]["weights"], tensor["histograms"]["activations"])
    ]
    assert len(every) == 9 + 4 + 6 - 1
    for one in every:
        graph.Figure(one)  # raises for what plotly does not know


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_the_frontier_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    def beaten(point: tuple[int, int]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)

    assert envelope(points) == sorted({point for point in points if not beaten(point)})


@pytest.mark.parametrize("standing", [False, True])
def test_cells_of_the_heat_map(document: Document, standing: bool) -> None:
    shares, bits = heat.by_share(document, standing)["data"][0], heat.by_bits(document, standing)["data"][0]
    kinds, layers = (shares["x"], shares["y"]) if standing else (shares["y"], shares["x"])
    assert kinds == list(heat.ORDER) and layers == [0, 1, 2]
    for (row, kind), (column, layer) in itertools.product(enumerate(kinds), enumerate(layers)):
        at = (column, row) if standing else (row, column)
        (tensor,) = (tensor for tensor in document.tensors if (tensor.layer, tensor.kind) == (layer, kind))
        assert shares["z"][at[0]][at[1]] == pytest.approx((tensor.kl_alone or 0) / document.cost, rel=1e-4)
        assert bits["z"][at[0]][at[1]] == pytest.approx(tensor.bits, rel=1e-4)
        assert document.tensors[shares["customdata"][at[0]][at[1]][0]] == tensor


def test_tensors_that_share_a_cell_and_cells_without_one() -> None:
    expert = {"layer": 0, "kind": "up", "scheme": "int4-g64", "bits": 4.0, "bytes": 400}
    tensors = [
        expert | {"name": "cheap", "kl_alone": 0.1},
        expert | {"name": "dear", "kl_alone": 0.5, "bits": 8.0, "bytes": 800},
        expert | {"name": "other", "layer": 1, "kind": "router", "kl_alone": 0.4},
    ]
    document = parse({"kind": "analysis", "verdict": "", "model": {"name": "m"}, "tensors": tensors})
    shares, bits = heat.by_share(document, False)["data"][0], heat.by_bits(document, False)["data"][0]
    assert shares["z"] == [[pytest.approx(0.6), None], [None, pytest.approx(0.4)]] and bits["z"][0][0] == 6.0
    assert shares["customdata"][0][0][:2] == [1, "dear and 1 more"] and shares["customdata"][0][1][0] == -1


def test_what_lies_beyond_the_grid_is_shaded() -> None:
    drawn = histogram(Counts((-2.0, -1.0, 0.0, 1.0), (1, 2, 1), (-1.5, 0.0, 1.5)), "weight")
    assert [(shape["x0"], shape["x1"]) for shape in drawn["layout"]["shapes"]] == [(-2.0, -1.5)]
    bars, levels = drawn["data"]
    assert bars["y"] == [0.25, 0.5, 0.25] and (bars["x0"], bars["dx"]) == (-1.5, 1.0)
    assert levels["x"][::3] == [-1.5, 0.0, 1.5]
    uneven = histogram(Counts((0.0, 1.0, 3.0), (1, 1), tuple(range(256))), "weight")["data"]
    assert uneven[0]["x"] == [0.5, 2.0] and uneven[0]["width"] == [1.0, 2.0] and uneven[1]["x"] == [0, 255]


def test_points_that_are_not_above_zero_stay_off_a_logarithmic_axis() -> None:
    points = [{"label": "fp16", "size_bytes": 9, "kl": 0.0, "uniform": True}, {"label": "int8", "size_bytes": 5, "kl": 0.1}]
    drawn = figures.frontier(parse({"kind": "plan", "verdict": "", "model": {"name": "m"}, "frontier": points}))
    assert all(y > 0 for trace in drawn["data"] for y in trace["y"])


def test_a_grid_too_fine_for_lines_is_a_strip_over_its_range() -> None:
    """Its two ends are enough, and nothing is taken to be clipped."""
    counts = Counts((-32384.0, 0.0, 32384.0), (3.0, 1.0), (-32384.0, 32384.0), 64769)
    drawn = histogram(counts, "activation")
    assert (drawn["data"][1]["x"], drawn["layout"]["shapes"]) == ([-32384.0, 32384.0], [])
    few = histogram(Counts((-1.0, 0.0, 1.0), (3.0, 1.0), (-1.0, 1.0)), "weight")
    assert few["data"][1]["x"] == [-1.0, -1.0, None, 1.0, 1.0, None]
    said = described(Histogram("w", None, counts))
    assert said == "Activations: −32,384 to 32,384, 64,769 levels from −32,384 to 32,384."


def test_schemes_that_lie_together_share_a_label() -> None:
    sizes_and_losses = {"int4-g64": (100, 0.1), "kmeans4-g64": (101, 0.09), "int8-channel": (200, 0.001), "int3-g64": (99, 0.5)}
    points = [
        {"label": label, "size_bytes": size, "kl": kl, "uniform": True, "measured": False}
        for label, (size, kl) in sizes_and_losses.items()
    ]
    drawn = figures.frontier(parse({"kind": "plan", "verdict": "", "model": {"name": "m"}, "frontier": points}))
    (trace,) = (trace for trace in drawn["data"] if trace.get("name") == "one scheme, predicted")
    assert trace["text"] == ["int4-g64", "", "int8-channel", "int3-g64"]
    assert [said[0] for said in trace["customdata"]] == list(sizes_and_losses)


def test_the_roof_is_the_lower_of_bandwidth_and_peak(document: Document) -> None:
    assert document.roofline is not None
    line = figures.roofline(document.roofline)["data"][0]
    bandwidth, peak = document.roofline.bandwidth_bytes_per_s, document.roofline.peak_operations_per_s
    assert line["y"] == [pytest.approx(min(peak, bandwidth * x)) for x in line["x"]]


def test_dots_that_lie_together_share_a_label(document: Document) -> None:
    assert document.roofline is not None
    dots = figures.roofline(document.roofline)["data"][1]
    assert dots["text"] == ["MLP, attention matrices", "", "head", "attention over the cache", "prompt, all matrices"]
    assert dots["textposition"][0] != dots["textposition"][2]


def test_names_are_no_markup() -> None:
    document = parse(hostile())
    said = json.dumps(data(document, sections(document))["figures"])
    assert "<script" not in said and "<img" not in said and "<a href" not in said and "&lt;img" in said
