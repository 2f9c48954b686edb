"""A token's time and bytes by kind of matrix, and where nothing can be said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)

from bitwright.analysis import rooflines
from bitwright.analysis.ceilings import Ceilings
from bitwright.analysis.rooflines import Work, roofline
from bitwright.core import Recipe
from bitwright.models import load
from bitwright.quantization import quantize


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


def test_a_machine_that_was_not_timed_has_no_roof(
    tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr("bitwright._native.fastest_threads", lambda: 1)
    made = quantize(load(tiny_directory("llama")), Recipe.uniform("int4-g32"))
    assert rooflines.of_model(made, Known(1e12)) is None
    assert not list(tmp_path.iterdir())  # nor is it timed now
