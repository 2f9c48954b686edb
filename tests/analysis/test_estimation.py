"""Shares by estimate: their order is the measured one's, and they take few forward passes, however many tensors there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import bitwright
import tiny
from bitwright.allocation.candidates import Unit
from bitwright.analysis.attribution import Attribution, attribute
from bitwright.analysis.estimation import SAMPLED, attribute_by_estimate, spread
from bitwright.analysis.frontiers import of_recipe
from bitwright.calibration.decoder import Decoder
from bitwright.core import Recipe
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.quantization import QuantizedModel

WINDOWS = np.random.default_rng(5).integers(0, tiny.VOCABULARY, (2, 20)).astype(np.int32)
SAME_ORDER = 0.9  # the least rank correlation


def by_definition(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation of values without ties."""
    ranks = [[sorted(values).index(value) for value in values] for values in (a, b)]
    n = len(a)
    return 1 - 6 * sum((x - y) ** 2 for x, y in zip(*ranks, strict=True)) / (n * (n * n - 1))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of its own, where what other schemes would cost is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITWRIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(tiny_directory: Callable[[str], Path]) -> LanguageModel:
    return load(tiny_directory("gemma2"))


@pytest.fixture(scope="module")
def quantized(model: LanguageModel) -> QuantizedModel:
    return bitwright.quantize(model, Recipe.uniform("int3-g32", head="int3-g32"))


def counted(run: Callable[[], Attribution]) -> tuple[Attribution, int]:
    """What `run` finds, and how many blocks it goes through."""
    through, calls = Decoder.through, Counter[str]()

    def counting(*arguments: Any) -> Any:
        calls["blocks"] += 1
        return through(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "through", counting)
        return run(), calls["blocks"]


@pytest.fixture(scope="module")
def measured(model: LanguageModel, quantized: QuantizedModel) -> tuple[Attribution, int]:
    return counted(lambda: attribute(model, quantized, WINDOWS, model.read))


@pytest.fixture(scope="module")
def estimated(model: LanguageModel, quantized: QuantizedModel) -> tuple[Attribution, int]:
    return counted(lambda: attribute_by_estimate(model, quantized, WINDOWS, model.read))


def test_the_order_is_that_of_measured_losses(measured: tuple[Attribution, int], estimated: tuple[Attribution, int]) -> None:
    true = {share.tensor: share.cost for share in measured[0].shares}
    found = {share.tensor: share.cost for share in estimated[0].shares}
    assert true.keys() == found.keys() and list(found.values()) == sorted(found.values(), reverse=True)
    assert by_definition([true[name] for name in found], list(found.values())) > SAME_ORDER
    assert measured[0].measured and not estimated[0].measured
    assert all(share.alone is None and share.regained is None for share in estimated[0].shares)


def test_the_sample_is_measured_as_all_tensors_are(measured: tuple[Attribution, int], estimated: tuple[Attribution, int]) -> None:
    true = {share.tensor: share for share in measured[0].shares}
    sample = estimated[0].sample
    assert len(sample) == len({one.tensor for one in sample}) == SAMPLED
    for one in sample:
        assert one.measured == pytest.approx(true[one.tensor].alone, rel=1e-6)
        assert one.estimated == pytest.approx(true[one.tensor].estimated, rel=1e-6)
    order = by_definition([one.measured for one in sample], [one.estimated for one in sample])
    assert estimated[0].rank_correlation == pytest.approx(order) and order > SAME_ORDER


def test_forward_passes_do_not_grow_with_tensors(
    model: LanguageModel, measured: tuple[Attribution, int], estimated: tuple[Attribution, int]
) -> None:
    """Every block forwards, again for the backward pass, and once for the probe; for the sample, those from its tensor's on."""
    layers = model.architecture.layers
    layer = {share.tensor: max(share.layer, 0) for share in estimated[0].shares}  # the head is the embedding, too
    sample = [layers - layer[one.tensor] for one in estimated[0].sample]
    assert estimated[1] == 3 * layers + sum(sample)
    assert 3 * estimated[1] < measured[1]


def test_repairs_are_foretold(model: LanguageModel, estimated: tuple[Attribution, int]) -> None:
    """Restored whole, a tensor gives back its share."""
    found = estimated[0]
    assert [repair.tensor for repair in found.repairs] == [share.tensor for share in found.shares[: len(found.repairs)]]
    for repair, share in zip(found.repairs, found.shares, strict=False):
        assert repair.before == pytest.approx(found.sum_of_parts)
        assert repair.before - repair.after == pytest.approx(share.estimated)


def test_tensors_that_lose_nothing_are_not_sampled(model: LanguageModel) -> None:
    exact = bitwright.quantize(model, Recipe.from_dict({"choices": [{"pattern": "*", "scheme": "fp32"}]}))
    found = attribute_by_estimate(model, exact, WINDOWS, model.read)
    assert found.sample == () and found.rank_correlation is None and found.sum_of_parts == 0


def units(layers: int, kinds: Sequence[str]) -> list[Unit]:
    inside = [Unit(f"{layer}.{kind}", (8, 8), [(kind, layer)]) for layer in range(layers) for kind in kinds]
    return [Unit("head", (8, 8), [("head", -1)]), *inside]


def test_the_sample_is_spread_over_kinds_and_depths() -> None:
    kinds = ("q", "k", "v", "o", "gate", "up", "down")
    every = units(30, kinds)
    chosen = spread(every, 30)
    assert chosen == spread(every, 30) and len({unit.name for unit in chosen}) == SAMPLED
    assert {unit.kind for unit in chosen} == {*kinds, "head"}
    assert max(Counter(unit.kind for unit in chosen).values()) == 2
    inside = sorted(unit.layer for unit in chosen if unit.kind != "head")
    assert inside[0] < 5 and inside[-1] >= 25 and max(np.diff(inside)) <= 6


def test_of_few_tensors_all_are_the_sample() -> None:
    few = units(2, ("q", "v"))
    assert sorted(unit.name for unit in spread(few, 2)) == sorted(unit.name for unit in few)


@pytest.mark.parametrize("case", ["gemma2", "phi3"])
def test_repairs_are_foretold_of_the_costliest_alone(
    tiny_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Of tensors in several parts, too: what is kept of the others while going through the model is dropped."""
    monkeypatch.setattr("bitwright.analysis.estimation.WORST", 3)
    model, asked = load(tiny_directory(case)), list[str]()
    quantized = bitwright.quantize(model, Recipe.uniform("int3-g32", head="int3-g32"))

    def repair(name: str) -> Any:
        asked.append(name)
        return (model.read(name) + quantized.read(name)) / 2  # half the error, a quarter of the loss

    found = attribute_by_estimate(model, quantized, WINDOWS, repair)
    assert asked == [share.tensor for share in found.shares[:3]]
    for each, share in zip(found.repairs, found.shares, strict=False):
        assert each.before - each.after == pytest.approx(0.75 * share.estimated, rel=1e-4)


def test_one_pass_serves_the_other_schemes_too(
    model: LanguageModel, quantized: QuantizedModel, estimated: tuple[Attribution, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the frontier asks for is in the cache then; where it was before, the shares are the same."""
    again = attribute_by_estimate(model, quantized, WINDOWS, model.read)
    assert again.shares == estimated[0].shares and again.repairs == estimated[0].repairs
    monkeypatch.setattr("bitwright.allocation.sensitivity.sensed", lambda *_: pytest.fail("another pass"))
    assert of_recipe(model, quantized, again, {"kl_mean": 0.1, "size_bytes": 10**5}, WINDOWS)
