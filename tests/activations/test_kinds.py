"""Kinds of activations: their spelling, their ranges against brute force, and what simulating them gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch

import bitwright
import tiny
from bitwright.activations.kind import LARGEST, Kind
from bitwright.activations.ranges import RANGES
from bitwright.activations.simulation import Turns, fake, hidden_states, static_scales
from bitwright.calibration.forward import Site, forward
from bitwright.core import Recipe
from bitwright.engine import Engine
from bitwright.engine.reference import forward_hidden
from bitwright.errors import EngineError, SchemeError, TextError
from bitwright.formats import FORMATS
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.observers.histogram import Histogram
from bitwright.observers.moving_average import MovingAverage

WINDOWS = np.array([tiny.tokens(96)[i * 24 : i * 24 + 24] for i in range(4)], np.int32)
TEXT = " ".join(f"{n} and {n * n % 97} make {n + n * n % 97}." for n in range(300))


@pytest.fixture
def model(tiny_directory: Callable[[str], Path]) -> LanguageModel:
    return load(tiny_directory("llama"))


def test_spellings() -> None:
    assert Kind.parse("int8-tensor-mse") == Kind("int8-tensor-mse", "int8", "tensor", "mse")
    assert (Kind.parse("fp8-token").static, Kind.parse("int8-channel").static, Kind.parse("int4-g32").group) == (False, True, 32)
    wrong = {
        "int5": "unknown activations 'int5'; choose from int8, int16, fp32",
        "int8-g0": "unknown activations",
        "int8-tensor-magic": "unknown range 'magic'",
        "int8-token-mse": "leave it out",
        "fp8-tensor-entropy": "entropy is for int4 and int8",
    }
    for spelling, message in wrong.items():
        with pytest.raises(EngineError, match=message):
            Kind.parse(spelling)


@pytest.mark.parametrize("format", LARGEST)
def test_fake_rounding_is_that_of_the_format(format: str) -> None:
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32) * 3
    largest = np.abs(x).max()
    found = fake(torch.from_numpy(x), torch.tensor(largest), format).numpy()
    scale = np.float32(largest / LARGEST[format])
    if format == "fp8":
        e4m3 = FORMATS["fp8e4m3"]
        expected = e4m3.decode(e4m3.encode((x / scale).astype(np.float32))) * scale
    else:
        expected = np.rint(x / scale) * scale
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    clipped = fake(torch.tensor([5.0, -9.0]), torch.tensor(1.0), format)
    np.testing.assert_allclose(clipped.numpy(), [1, -1], rtol=1e-6)


@pytest.mark.parametrize("name", RANGES)
def test_ranges(name: str) -> None:
    """Of values with one in 20000 a hundred times too large, all but min-max leave it out, and mse finds the least error."""
    random = np.random.default_rng(1)
    x = random.standard_normal(20000).astype(np.float32)
    x[7] = 100
    histogram = Histogram()
    histogram.update(x)

    def back(values: npt.NDArray[np.float64], largest: float) -> npt.NDArray[np.float64]:
        scale = largest / 7
        return np.asarray(np.clip(np.rint(values / scale), -7, 7) * scale)

    cut = RANGES[name](histogram, back, 8)
    if name == "minmax":
        assert 100 <= cut < 100 + 2 * histogram.width
    elif name == "mse":
        errors = {limit: ((back(x.astype(np.float64), limit) - x) ** 2).sum() for limit in np.linspace(1, 101, 300)}
        assert ((back(x.astype(np.float64), cut) - x) ** 2).sum() < 1.05 * min(errors.values())
    else:
        assert 2 < cut < 20


def test_many_bits_change_nothing(model: LanguageModel) -> None:
    expected = [forward_hidden(model, window) for window in WINDOWS]
    for spelling in ("int16-token", "int16-g32", "int16-channel", "int16-tensor"):
        found = hidden_states(model, list(WINDOWS), Kind.parse(spelling), WINDOWS)
        for after, before in zip(found, expected, strict=True):
            np.testing.assert_allclose(after, before, atol=0.02)


def test_windows_of_different_lengths_come_in_order(model: LanguageModel) -> None:
    windows = [WINDOWS[0], WINDOWS[1][:10], WINDOWS[2]]
    found = list(hidden_states(model, windows, Kind.parse("int8-token"), None))
    assert [len(states) for states in found] == [24, 10, 24]
    alone = list(hidden_states(model, [WINDOWS[2]], Kind.parse("int8-token"), None))
    np.testing.assert_allclose(found[2], alone[0], atol=1e-3)


@pytest.mark.parametrize(("rotate", "spelling"), [(True, "int8-token"), (False, "int8-g32")])
def test_the_engines_own_activations_are_simulated_as_it_runs_them(rotate: bool, spelling: str, model: LanguageModel) -> None:
    """One scale a token where columns are rotated, else one for 32 channels: far nearer to the engine than to float."""
    quantized = bitwright.quantize(model, Recipe.uniform("int8-g32", rotate=rotate, head="fp32"))
    ids = WINDOWS[0]
    engine = Engine.load(quantized, activations="int8", kv_cache="fp32").hidden(ids)
    exact = Engine.load(quantized, activations="fp32", kv_cache="fp32").hidden(ids)
    (found,) = hidden_states(quantized, [ids], Kind.parse(spelling), None)
    assert np.abs(found - engine).mean() < 0.5 * np.abs(exact - engine).mean()


def outliers(model: LanguageModel) -> LanguageModel:
    """The same function with two channels before each attention a hundred times as large."""
    from bitwright.transforms.edits import moved
    from bitwright.transforms.model import Edit, TransformedModel

    scale = np.ones(model.architecture.hidden_size)
    scale[[3, 40]] = 0.01

    def find() -> list[Edit]:
        return [edit for layer in range(2) for edit in moved(model, layer, ("q", "k", "v"), scale)]

    return TransformedModel(model, "outliers", find)


def error(model: LanguageModel, spelling: str) -> float:
    expected = np.stack([forward_hidden(model, window) for window in WINDOWS])
    found = np.stack(list(hidden_states(model, list(WINDOWS), Kind.parse(spelling), WINDOWS)))
    return float(np.abs(found - expected).mean())


def test_outliers_break_static_tensors_and_smoothquant_mends_them(model: LanguageModel, tmp_path: Path) -> None:
    from bitwright.calibration.text import Source

    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    hard = outliers(model)
    recipe = Recipe.uniform("fp32", transforms=["smoothquant"])
    smooth = bitwright.quantize(hard, recipe, Source(str(tmp_path / "text.txt"), 8, 32))
    easy, broken, mended = error(model, "int8-tensor"), error(hard, "int8-tensor"), error(smooth, "int8-tensor")
    assert broken > 5 * easy and mended < broken / 3
    assert error(hard, "int8-channel") < broken / 3


def test_rotated_inputs_are_rounded_where_the_engine_rounds_them(model: LanguageModel) -> None:
    rotated = bitwright.quantize(outliers(model), Recipe.uniform("int8-g32"))
    plain = bitwright.quantize(outliers(model), Recipe.uniform("int8-g32", rotate=False))
    scales = [static_scales(m, Turns(m), Kind.parse("int8-tensor"), WINDOWS) for m in (rotated, plain)]
    (first, *_), (other, *_) = (list(found.values()) for found in scales)
    assert float(first) < 0.5 * float(other)


def test_shapes_of_inputs_are_read_from_one_token_in_a_few(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """All positions of a window take their turn, and the largest value is the largest of all tokens."""
    from bitwright.activations import simulation
    from bitwright.observers.histogram import Histogram

    rows: dict[str, list[int]] = {"minmax": [], "entropy": []}
    for name, seen in rows.items():
        update = Histogram.update
        monkeypatch.setattr(Histogram, "update", lambda self, x, u=update, s=seen: (s.append(len(x)), u(self, x))[1])
        found = static_scales(model, Turns(model), Kind.parse(f"int8-tensor-{name}"), WINDOWS)
        monkeypatch.undo()
    inputs = len(found)
    assert sum(rows["minmax"]) == inputs * WINDOWS.size
    assert abs(sum(rows["entropy"]) / inputs - WINDOWS.size / simulation.STRIDE) < 1
    assert np.gcd(simulation.STRIDE, 1 << 20) == 1


def test_an_average_forgets_the_largest_value_of_one_window(model: LanguageModel) -> None:
    """It is the moving average of what minmax finds in each window, in order, whatever parts of the windows come together."""
    kinds = {name: Kind.parse(f"int8-tensor-{name}") for name in ("average", "minmax")}
    found, most = (static_scales(model, Turns(model), kind, WINDOWS) for kind in kinds.values())
    observers = {site: MovingAverage() for site in found}
    for window in WINDOWS:
        for site, largest in _ranges(model, window).items():
            observers[site].update(np.array(largest, np.float32))
    for site, observer in observers.items():
        low, high = observer.range
        np.testing.assert_allclose(float(found[site]), max(-low, high), rtol=1e-5)
    assert all(found[site] <= most[site] for site in found) and any(found[site] < 0.97 * most[site] for site in found)


def _ranges(model: LanguageModel, window: np.ndarray) -> dict[Site, tuple[float, float]]:
    """The smallest and the largest value of each layer's input in one window."""
    found: dict[Site, tuple[float, float]] = {}

    def change(site: Site, x: torch.Tensor) -> torch.Tensor:
        if site.layer >= 0:
            found[site] = float(x.min()), float(x.max())
        return x

    for _ in forward(model, window[None], change, torch.float32):
        pass
    return found


def test_groups_must_divide_inputs(model: LanguageModel) -> None:
    with pytest.raises(SchemeError, match="48 does not divide an input of 64 channels"):
        list(hidden_states(model, list(WINDOWS), Kind.parse("int8-g48"), None))


def test_evaluate_says_what_is_simulated(model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT[4000:], "utf-8")
    options = {"context": 64, "tokens": 600, "calibration": str(tmp_path / "text.txt")}
    found = {
        kind: bitwright.evaluate(model, model, TEXT[:4000], activations=kind, **options)  # type: ignore[arg-type]
        for kind in ("int8", "int8-token", "int4-token", "int8-tensor")
    }
    assert [found[kind].simulated for kind in found] == [False, True, True, True]
    kl = {kind: result.kl_mean or 0.0 for kind, result in found.items()}
    assert 0 < kl["int8-token"] < kl["int8-tensor"] < kl["int4-token"]
    caches = ("fp32", "fp16", "int8", "int4")
    lost = [
        bitwright.evaluate(model, model, TEXT[:4000], activations="fp32", kv_cache=cache, **options).kl_mean for cache in caches
    ]  # type: ignore[arg-type]
    assert lost == sorted(lost) and lost[3] > 10 * lost[2] > 0  # type: ignore[operator, type-var]
    for wrong in ({"kv_cache": "int3"}, {"kv_cache": "int8", "activations": "int8-token"}):
        with pytest.raises(EngineError, match="KV cache 'int3'|leave out --kv-cache int8"):
            bitwright.evaluate(model, model, TEXT[:4000], **(options | wrong))  # type: ignore[arg-type]
    alone = bitwright.evaluate(model, None, TEXT[:4000], activations="int8-token", context=64, tokens=600)
    assert alone.perplexity == pytest.approx(found["int8-token"].perplexity)
    with pytest.raises(TextError, match="ranges would be fitted on"):
        bitwright.evaluate(model, model, TEXT[4000:], activations="int8-tensor", **options)  # type: ignore[arg-type]
