"""A token's time and bytes by part of the model, timed where nobody has timed anything before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)

from bitwright.allocation.device import machine_line
from bitwright.analysis import rooflines
from bitwright.analysis.ceilings import Ceilings
from bitwright.analysis.rooflines import Work, roofline
from bitwright.core import Recipe
from bitwright.engine import Engine
from bitwright.models import load
from bitwright.quantization import quantize
from bitwright.runtime import RuntimeSetting


class Known(Ceilings):
    """A machine that reads 10 GB/s and multiplies at 1 Top/s, if at all."""

    def __init__(self, peak: float | None) -> None:
        super().__init__()
        self.peak = peak

    def read_gb_per_s(self, working_set: int, threads: int, reached: float = 0.0) -> float:
        assert (working_set, threads) == (600, 2)
        return 10.0

    def matrix_ops_per_s(self, kind: str, threads: int, reached: float = 0.0) -> float | None:
        return self.peak


WORKS = [Work("q", 100, 400, 2e-9), Work("head", 300, 600, 3e-9), Work("q", 200, 500, 1e-9)]


def test_matrices_of_a_kind_are_one_point() -> None:
    found = roofline(WORKS, 1e-8, 2, Known(1e12))
    assert found is not None and found["bandwidth_bytes_per_s"] == 1e10 and found["peak_operations_per_s"] == 1e12
    q, head = found["points"]
    assert (q["name"], q["bytes"], q["operations_per_byte"]) == ("q", 300, 3.0)
    assert q["operations_per_s"] == pytest.approx(3e11) and q["seconds_share"] == pytest.approx(0.3)
    assert (head["name"], head["bytes"], head["operations_per_byte"]) == ("head", 300, 2.0)


def test_a_machine_without_a_peak_has_no_roof() -> None:
    assert roofline(WORKS, 1e-8, 2, Known(None)) is None


@pytest.mark.parametrize("case", ["llama", "phi3"])
def test_a_model_is_timed_as_its_recipe_runs_it(
    case: str, tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an empty cache, and whether or not the model stores matrices together that are multiplied together."""
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr("bitwright._native.fastest_threads", lambda: 1)
    loaded, load_engine = list[dict[str, object]](), Engine.load
    monkeypatch.setattr(Engine, "load", lambda *given, **options: loaded.append(options) or load_engine(*given, **options))
    runtime = (RuntimeSetting("fp16", "int16"), RuntimeSetting("int8", "int16", from_context=8))
    made = quantize(load(tiny_directory(case)), replace(Recipe.uniform("int4-g32"), runtime=runtime))
    found = rooflines.of_model(made, Ceilings())
    assert found is not None and found[1] == machine_line()
    points = {point["name"]: point for point in found[0]["points"]}
    assert list(points) == ["q+k+v", "o", "gate+up", "down", "head", rooflines.ATTENTION]
    assert (loaded[0]["activations"], loaded[0]["kv_cache"]) == ("int16", "int8")
    matrices = [name for name in made.names() if len(made.shape(name)) == 2 and name != made.roles()["embedding", -1].name]
    stored = sum(made.stored_bits(name) / 8 for name in {*matrices, made.roles()["head", -1].name})
    assert sum(point["bytes"] for name, point in points.items() if name != rooflines.ATTENTION) == pytest.approx(stored, abs=5)
    assert 0 < sum(point["seconds_share"] for point in points.values()) < 1
