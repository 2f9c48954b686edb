"""What the pages of real runs say: nothing is left out that was measured, and what is foretold is called so."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("plotly", exc_type=ImportError)

from bitwright.analysis.report.document import WORST, Document, parse
from bitwright.analysis.report.page import tiles
from bitwright.analysis.report.sections import sections
from bitwright.analysis.report.sentences import costliest
from bitwright.analysis.report.tables import fixes
from bitwright.analysis.rooflines import ATTENTION

TILES = ("size", "KL, mean", "KL, worst 1 %", "same next token", "perplexity", "loss added")
VOCABULARY = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def plan(real_pages: Path) -> Document:
    return parse(json.loads((real_pages / "plan.json").read_text("utf-8")))


@pytest.fixture(scope="module")
def analysis(real_pages: Path) -> Document:
    return parse(json.loads((real_pages / "analysis.json").read_text("utf-8")))


def test_sections_of_both(plan: Document, analysis: Document) -> None:
    assert [section.anchor for section in sections(plan)] == [
        *("budget", "frontier", "map", "worst", "predicted", "roofline", "tensors")
    ]
    assert [section.anchor for section in sections(analysis)] == [
        *("frontier", "map", "worst", "cumulative", "tokens", "predicted", "roofline", "tensors")
    ]


def test_losses_of_a_plan(plan: Document) -> None:
    whole = plan.whole
    assert whole is not None and whole.loss_added is not None and whole.loss_reference is not None
    assert whole.perplexity is not None and whole.perplexity_reference == pytest.approx(math.exp(whole.loss_reference))
    assert whole.perplexity / whole.perplexity_reference == pytest.approx(math.exp(whole.loss_added))
    low, high = whole.loss_added_interval or (math.nan, math.nan)
    assert low <= whole.loss_added <= high
    assert whole.kl_mean is not None and 0 < (whole.noise_floor_kl or 0) < whole.kl_mean
    assert [label for label, _, _ in tiles(whole)] == list(TILES)


def test_limits_of_a_plan(plan: Document) -> None:
    limits = {limit.quantity: limit for limit in plan.budget}
    assert limits.keys() == {"max-size", "max-drop"} and all(limit.met for limit in limits.values())
    assert plan.whole is not None and plan.whole.loss_added is not None
    assert limits["max-drop"].limit == 0.5 and limits["max-drop"].reached == pytest.approx(math.expm1(plan.whole.loss_added))


def test_fixes_of_a_plan_are_foretold(plan: Document) -> None:
    """Each is the step up that its reason names, for as many tensors as are shown."""
    tensors = {tensor.name: tensor for tensor in plan.tensors}
    foretold = next(one.predicted for one in plan.predicted if one.quantity == "KL")
    shown = {tensor.name for tensor in costliest(plan)[:WORST]}
    assert {fix.tensor for fix in plan.fixes} == {name for name in shown if tensors[name].scheme != "int8-channel"}
    for fix in plan.fixes:
        tensor = tensors[fix.tensor]
        assert not fix.measured and fix.from_scheme == tensor.scheme and fix.to_scheme in (tensor.reason or "")
        assert 0 < foretold - fix.kl_after <= (tensor.kl_estimated or 0) * (1 + 1e-9) and fix.kl_before == foretold
        assert fix.extra_bytes > 0
    (worst,) = (section for section in sections(plan) if section.anchor == "worst")
    assert "is foretold, none was tried (bitwright analyze --recipe tries them)" in worst.opening
    assert {"KL after, foretold", "change, foretold"} <= {column.title for column in fixes(plan).columns}


def test_fixes_of_an_analysis_are_measured_for_all_tensors_that_are_shown(analysis: Document) -> None:
    assert [fix.tensor for fix in analysis.fixes] == [tensor.name for tensor in costliest(analysis)[:WORST]]
    assert len(analysis.fixes) == WORST and all(fix.measured for fix in analysis.fixes)
    tensors = {tensor.name: tensor for tensor in analysis.tensors}
    for fix in analysis.fixes:
        assert fix.from_scheme == tensors[fix.tensor].scheme and fix.extra_bytes > 0
    (vocabulary,) = (fix for fix in analysis.fixes if fix.tensor == VOCABULARY)  # in blocks of rows: no scheme is the next
    assert vocabulary.to_scheme == "fp16" and vocabulary.kl_after < vocabulary.kl_before
    assert {"KL after", "change"} <= {column.title for column in fixes(analysis).columns}


def test_histograms_of_a_plan(plan: Document) -> None:
    tensors = {tensor.name: tensor for tensor in plan.tensors}
    assert {histogram.name for histogram in plan.histograms} == set(tensors)
    for histogram in plan.histograms:
        weights, activations, tensor = histogram.weights, histogram.activations, tensors[histogram.name]
        assert weights is not None and sum(weights.counts) == min(128, tensor.shape[0]) * tensor.shape[1]
        assert len(weights.levels or ()) == {"int3-g32": 8, "int4-g32": 16, "int8-channel": 256}[tensor.scheme]
        assert activations is not None and sum(activations.counts) == 128 * tensor.shape[1]  # a window's inputs
        assert (activations.levels, activations.level_count) == ((-127, 127), 255)


def test_all_tensors_of_an_analysis_have_histograms(analysis: Document) -> None:
    tensors = {tensor.name: tensor for tensor in analysis.tensors}
    assert {histogram.name for histogram in analysis.histograms} == set(tensors)
    for histogram in analysis.histograms:
        assert histogram.activations is not None and sum(histogram.activations.counts) == 128 * tensors[histogram.name].shape[1]
        if " + " not in tensors[histogram.name].scheme:  # of rows stored in several ways
            assert histogram.weights is not None and sum(histogram.weights.counts) == math.prod(tensors[histogram.name].shape)


def test_the_loss_of_the_model_and_what_is_added_are_told_apart(analysis: Document) -> None:
    whole = analysis.whole
    assert whole is not None and whole.loss_reference is not None and whole.loss_added is not None
    assert whole.perplexity == pytest.approx(math.exp(whole.loss_reference + whole.loss_added))
    for name in ("kl_mean", "kl_p99", "top1_agreement", "perplexity", "loss_reference", "loss_added", "noise_floor_kl"):
        low, high = getattr(whole, f"{name}_interval")
        assert low <= getattr(whole, name) <= high, name
    shown = {label: notes for label, _, notes in tiles(whole)}
    assert list(shown) == list(TILES)
    assert "(95" in shown["loss added"][0] and shown["loss added"][1].startswith("the original's own ")
    assert all(len(notes) == 2 for label, notes in shown.items() if label != "size")


def test_the_frontier_of_a_recipe(analysis: Document) -> None:
    """Sizes are those that files of the scheme have, and more bits lose less."""
    (chosen,) = (point for point in analysis.frontier if point.chosen)
    assert analysis.whole is not None and (chosen.size_bytes, chosen.kl) == (analysis.whole.size_bytes, analysis.whole.kl_mean)
    assert chosen.measured and not any(point.measured for point in analysis.frontier if not point.chosen)
    uniform = {point.label: point for point in analysis.frontier if point.uniform}
    losses = [uniform[scheme].kl for scheme in ("int2-g32", "int3-g64", "int4-g64", "int5-g64", "int6-g64", "int8-channel")]
    assert losses == sorted(losses, reverse=True) and losses[-1] > 0
    weights = sum(math.prod(tensor.shape) for tensor in analysis.tensors)
    assert uniform["int6-g64"].size_bytes - uniform["int5-g64"].size_bytes == pytest.approx(weights / 8, abs=1)
    rest = chosen.size_bytes - sum(tensor.bits * math.prod(tensor.shape) for tensor in analysis.tensors) / 8
    assert uniform["int6-g64"].size_bytes == pytest.approx(6.25 * weights / 8 + rest, abs=1)


def test_where_time_goes(plan: Document, analysis: Document) -> None:
    """Blocks of rows of a vocabulary are timed as their share of it; an analysis times what is multiplied together."""
    assert {tensor.name for tensor in plan.tensors if ":" in tensor.name} == {f"{VOCABULARY}:0-64", f"{VOCABULARY}:64-320"}
    (vocabulary,) = (tensor for tensor in analysis.tensors if tensor.name == VOCABULARY)
    assert " + " in vocabulary.scheme
    together = {"q+k+v": ("q", "k", "v"), "gate+up": ("gate", "up"), "head": ("embedding+head",)}
    for document in (plan, analysis):
        assert document.roofline is not None and document.machine
        points = {point.name: point for point in document.roofline.points}
        assert sum(point.seconds_share or 0 for point in points.values()) < 1
        attention = points.pop(ATTENTION)
        assert (attention.bytes or 0) > 0 and attention.operations_per_s > 0
        for part, point in points.items():
            tensors = [tensor for tensor in document.tensors if tensor.kind in together.get(part, (part,))]
            assert point.bytes == pytest.approx(sum(tensor.bits * math.prod(tensor.shape) for tensor in tensors) / 8, abs=1)
            assert point.operations_per_byte == pytest.approx(2 * sum(math.prod(t.shape) for t in tensors) / (point.bytes or 1))
