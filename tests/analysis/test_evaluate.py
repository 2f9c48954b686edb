"""The figures against their definitions, on a model small enough to compute them by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from analysis.fakes import BigramModel, FakeEngine, Letters, log_softmax
from bitwright.analysis.evaluate import Evaluation, evaluate
from bitwright.errors import NonFiniteError, TextError, TokenizerError

TEXT = "".join(map(chr, np.random.default_rng(5).integers(33, 123, 700)))
CONTEXT = 32


def module(name: str, **members: object) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(members)
    return made


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(
        sys.modules, "bitwright.engine", module("bitwright.engine", Engine=FakeEngine, ACTIVATIONS=("int8", "int16", "fp32"))
    )
    size = SimpleNamespace(summary=lambda model: {"size_bytes": 1000, "bits_per_weight": 4.25, "tensors": []})
    monkeypatch.setitem(sys.modules, "bitwright.inspection", module("bitwright.inspection", summary=size.summary))
    monkeypatch.setattr("bitwright.analysis.noise_floor.divergence", lambda model, window: np.linspace(1e-5, 2e-5, 31))
    FakeEngine.loaded.clear()
    FakeEngine.hidden_calls.clear()
    yield


def run(model: BigramModel, reference: BigramModel | None = None, text: str = TEXT, **options: object) -> Evaluation:
    return evaluate(model, reference, text, **({"context": CONTEXT} | options))  # type: ignore[arg-type]


def test_every_figure_is_its_definition() -> None:
    model, reference = BigramModel(noise=0.3), BigramModel()
    tokens = np.array(Letters().encode(TEXT))
    windows = [tokens[begin : begin + CONTEXT] for begin in range(0, len(tokens), CONTEXT)]
    inputs, targets = np.concatenate([w[:-1] for w in windows]), np.concatenate([w[1:] for w in windows])
    p, q = log_softmax(reference.logits(inputs)), log_softmax(model.logits(inputs))
    row = np.arange(len(targets))
    kl = (np.exp(p) * (p - q)).sum(axis=1)

    result = run(model, reference)
    assert result.tokens == len(targets) and result.windows == len(windows)
    assert result.perplexity == pytest.approx(np.exp(-q[row, targets].mean()), rel=1e-5)
    assert result.perplexity_reference == pytest.approx(np.exp(-p[row, targets].mean()), rel=1e-5)
    assert result.perplexity_ratio == pytest.approx(result.perplexity / result.perplexity_reference, rel=1e-5)
    assert result.kl_mean == pytest.approx(kl.mean(), rel=1e-5)
    assert result.kl_median == pytest.approx(np.quantile(kl, 0.5, method="inverted_cdf"), rel=1e-5)
    assert result.kl_p99 == pytest.approx(np.quantile(kl, 0.99, method="inverted_cdf"), rel=1e-5)
    p_best, q_best = p.argmax(axis=1), q.argmax(axis=1)
    assert result.top1_agreement == pytest.approx((p_best == q_best).mean())
    assert result.kl_max == pytest.approx(kl.max(), rel=1e-5)
    assert result.loss_reference == pytest.approx(-p[row, targets].mean(), rel=1e-5)
    assert result.loss_added == pytest.approx((p - q)[row, targets].mean(), rel=1e-5)
    assert result.flips_count == (p_best != q_best).sum() and result.flips == pytest.approx((p_best != q_best).mean())
    lost, gained = (p_best == targets) & (q_best != targets), (q_best == targets) & (p_best != targets)
    assert result.flips_lost_count == lost.sum() and result.flips_lost == pytest.approx(lost.mean())
    assert result.flips_gained_count == gained.sum() and result.flips_gained == pytest.approx(gained.mean())
    assert result.noise_floor_kl == pytest.approx(1.5e-5)


def test_every_interval_holds_its_figure_and_has_width() -> None:
    result = run(BigramModel(noise=0.3), BigramModel()).to_dict()
    for key in [key.removesuffix("_interval") for key in result if key.endswith("_interval")]:
        low, high = result[f"{key}_interval"]
        assert low <= result[key] <= high and low < high, key


def test_json_has_the_public_keys() -> None:
    result = json.loads(json.dumps(run(BigramModel(noise=0.1), BigramModel()).to_dict(), allow_nan=False))
    figures = {"perplexity", "perplexity_reference", "kl_mean", "kl_median", "kl_p99", "top1_agreement"}
    assert figures | {f"{key}_interval" for key in figures} <= set(result)
    assert {"tokens", "seconds", "size_bytes", "bits_per_weight", "peak_rss_bytes"} <= set(result)
    assert result["size_bytes"] == 1000 and result["seconds"] > 0 and result["peak_rss_bytes"] > 1_000_000


def test_a_model_against_itself_loses_nothing() -> None:
    result = run(BigramModel(), BigramModel())
    assert result.kl_mean == result.kl_p99 == 0 and result.top1_agreement == 1
    assert result.perplexity_ratio == 1 and result.perplexity_ratio_interval == (1, 1)


def test_without_a_reference_there_is_perplexity_alone() -> None:
    alone, both = run(BigramModel(noise=0.3)), run(BigramModel(noise=0.3), BigramModel())
    assert alone.perplexity == both.perplexity and alone.perplexity_interval == both.perplexity_interval
    assert alone.kl_mean is None and alone.perplexity_reference_interval is None
    empty = {key for key, value in alone.to_dict().items() if value is None}
    assert empty == {
        key for key in both.to_dict() if key.startswith(("kl_", "loss_", "flips", "noise_", "top1", "perplexity_r"))
    } | {"kinds"}


def test_the_reference_runs_in_full_precision_and_the_model_as_asked() -> None:
    model, reference = BigramModel(noise=0.3), BigramModel()
    run(model, reference, activations="int16")
    options = {id(entry["model"]): entry for entry in FakeEngine.loaded}
    assert options[id(model)]["activations"] == "int16"
    assert (options[id(reference)]["activations"], options[id(reference)]["kv_cache"]) == ("fp32", "fp32")


def test_the_reference_is_computed_once() -> None:
    reference = BigramModel()
    first = run(BigramModel(noise=0.3), reference)
    computed = FakeEngine.hidden_calls.count(reference)
    second = run(BigramModel(noise=0.3), reference)
    assert computed > 0 and FakeEngine.hidden_calls.count(reference) == computed
    assert first.kl_mean_interval == second.kl_mean_interval
    run(BigramModel(noise=0.3), reference, context=CONTEXT - 1)  # other windows, other states
    assert FakeEngine.hidden_calls.count(reference) > computed


def test_progress_counts_every_token_up_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    result = run(BigramModel(noise=0.1), BigramModel(), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (result.tokens, result.tokens)


def test_a_short_text_is_one_short_window() -> None:
    result = run(BigramModel(noise=0.1), BigramModel(), text="ab")
    assert (result.windows, result.tokens) == (1, 1)
    with pytest.raises(TextError):
        run(BigramModel(noise=0.1), BigramModel(), text="")


def test_a_broken_model_is_named() -> None:
    broken = BigramModel()
    broken.head[5, 5] = np.nan
    with pytest.raises(NonFiniteError, match=r"NaN or infinite at 31 of 31 positions"):
        run(broken, BigramModel())


def test_models_that_read_differently_are_not_compared() -> None:
    with pytest.raises(TokenizerError, match="vocabularies of 128 and 129"):
        run(BigramModel(), BigramModel(vocabulary=129))

    class Reversed(Letters):
        def encode(self, text: str, add_special: bool = True) -> list[int]:
            return super().encode(text[::-1], add_special)

    with pytest.raises(TokenizerError, match="different tokens"):
        run(BigramModel(), BigramModel(encoder=Reversed()))
