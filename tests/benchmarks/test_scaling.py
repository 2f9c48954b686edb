"""Rows and verdicts of the scaling table, and the models that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import scaling
from bitwright.models import load


def row(speed: float, **more: Any) -> dict[str, Any]:
    return {"model": "135M", "threads": 1, "kv_cache": "int8", "depth": 16, "batch": 1, "decode_tokens_per_s": speed} | more


def test_each_ratio_is_taken_over_rows_like_it() -> None:
    depths = [row(100, depth=128), row(74, depth=4096), row(10, depth=128, kv_cache="fp16"), row(9, depth=4096, kv_cache="fp16")]
    batches = [row(50, batch=8, threads=2), row(9, threads=2), row(40, batch=8), row(10)]
    assert scaling.verdicts({"depths": depths, "batches": batches}) == [
        "- decode at 4096 over 128, int8 cache, 1 thread(s): 0.74 (bar: at least 0.75): **not met**",
        "- decode of 8 sequences over one, 2 thread(s): 5.556 (bar: at least 5): met",
        "- decode of 8 sequences over one, 1 thread(s): 4 (bar: at least 5): **not met**",
    ]


def test_the_models_it_makes_are_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "VOCABULARY", 64)
    made = scaling.artifact(scaling.random_model((128, 192, 2, 4, 2), tmp_path / "model"), tmp_path / "artifact")
    model = load(made)
    assert model.architecture.layers == 2 and model.architecture.kv_heads == 2
    assert model.shape("model.layers.1.mlp.down_proj.weight") == (128, 192)
