"""Forecasts: that each part of the work is counted, by paces that are recovered from what was timed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

from bitwright.calibration import guidance, paces
from bitwright.calibration.forecast import Work, _guiding_bytes, forecast
from bitwright.models import load
from bitwright.models.base import LanguageModel
from cli.helpers import HIDDEN, LAYERS, tensors, write_model

PLAIN = Work({}, {}, (16, 64), 0, 10**6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(write_model(tmp_path_factory.mktemp("forecast") / "model", tensors()))


@pytest.fixture
def even_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is timed takes a millisecond, however busy this machine is."""
    monkeypatch.setattr(paces, "_seconds", lambda work: 1e-3)
    monkeypatch.setattr(paces, "COLUMNS", (64, 128))


def work_of(model: LanguageModel, method: str, need: str = "gram", windows: int = 16) -> Work:
    names = [place.name for (role, _), place in model.roles().items() if role in ("q", "up", "down", "head")]
    return replace(PLAIN, methods=dict.fromkeys(names, method), needs=dict.fromkeys(names, need), shape=(windows, 64))


def test_what_a_weight_and_a_column_cost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "_rounding", lambda method, columns: columns)
    monkeypatch.setattr(paces, "_seconds", lambda columns: paces.ROWS * columns * (3e-6 + 2e-9 * columns))
    cost = paces.Rounding.of("gptq")
    np.testing.assert_allclose((cost.alone, cost.a_column), (3e-6, 2e-9))
    np.testing.assert_allclose(cost.seconds(10, 1000), 10 * 1000 * 5e-6)


@pytest.mark.parametrize("method", ["adaround", "signround"])
def test_learned_rounding_is_timed_as_it_is(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 steps, where GPTQ takes one pass."""
    monkeypatch.setattr(paces, "ROWS", 8)
    monkeypatch.setattr(paces, "COLUMNS", (64, 128))
    learned, gptq = (paces.Rounding.of(name).seconds(1000, 64) for name in (method, "gptq"))
    assert learned > 10 * gptq


def test_a_short_piece_of_work_is_timed_after_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lasting = [0.0], iter([9.0, 0.03, 0.01, 0.02, 0.05, 9.0])

    def work() -> None:
        now[0] += next(lasting)

    monkeypatch.setattr(paces.time, "perf_counter", lambda: now[0])
    assert paces._seconds(work) == pytest.approx(0.01)  # the least of four, after which LONG is over


def test_plain_rounding_reads_rounds_and_writes(model: LanguageModel, monkeypatch: pytest.MonkeyPatch, even_pace: None) -> None:
    first = forecast(model, PLAIN)
    more = forecast(model, replace(PLAIN, size_bytes=2 * PLAIN.size_bytes))
    np.testing.assert_allclose(more.seconds - first.seconds, PLAIN.size_bytes / (paces.DISK_BYTES / 1e-3), rtol=1e-6)
    weights = sum(int(np.prod(model.shape(name))) for name in model.names())
    largest = max(int(np.prod(model.shape(name))) for name in model.names())
    read = weights / (largest / 1e-3)
    matrices = weights - sum(model.shape(name)[0] for name in model.names() if len(model.shape(name)) == 1)
    rounded = matrices * 1e-3 / (paces.ROWS * paces.COLUMNS[0]) / paces.THREADS
    np.testing.assert_allclose(first.seconds, read + rounded + PLAIN.size_bytes / (paces.DISK_BYTES / 1e-3), rtol=1e-6)
    assert forecast(model, replace(PLAIN, size_bytes=0)).seconds == 0


@pytest.mark.parametrize(("guiding", "plain"), [("guided", "gram"), ("guided cross", "cross")])
def test_guiding_is_counted(guiding: str, plain: str, model: LanguageModel, even_pace: None) -> None:
    """Its products are four streams' beside one; the head and what is between come on top."""
    guided, refined = (forecast(model, work_of(model, "refine", need)) for need in (guiding, plain))
    walking = paces.Walking.of(model)
    body = sum(int(np.prod(model.shape(name))) for name in model.names() if "_proj" in name)
    products = 2 * 16 * 64 * body / walking.product
    head = 16 * 64 * 1e-3 / guidance.HEAD_TOKENS
    assert guided.seconds - refined.seconds > 4 * products + head > 0
    assert forecast(model, work_of(model, "refine", guiding, 1600)).seconds > 50 * (guided.seconds - refined.seconds)


def test_guiding_holds_streams_of_so_many_windows_alone(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, even_pace: None
) -> None:
    """Beyond them a token takes the walk's stream and its weights, not a stream before each block."""
    one, two, three = (
        forecast(model, work_of(model, "guided", "guided", windows)).peak_rss_bytes for windows in (10**5, 2 * 10**5, 3 * 10**5)
    )
    assert three - two == two - one
    alone, beside = (_guiding_bytes(model, work_of(model, "gptaq", need, 10**5)) for need in ("guided", "guided cross"))
    assert beside - alone == 4 * HIDDEN * 64 * 10**5  # the float model's stream
    monkeypatch.setattr(guidance, "STREAMS_BYTES", 10**12)
    held = forecast(model, work_of(model, "guided", "guided", 10**5)).peak_rss_bytes
    assert held >= 4 * HIDDEN * 64 * 10**5 * (LAYERS + 2) and held > one


def test_learned_rounding_holds_many_copies_of_a_matrix(model: LanguageModel, even_pace: None) -> None:
    peaks = [forecast(model, work_of(model, method)).peak_rss_bytes for method in ("gptq", "refine", "signround", "adaround")]
    assert peaks == sorted(peaks) and len(set(peaks)) == len(peaks)
