"""Rows and verdicts of the scaling table, and the models that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import scaling
import scaling_report
from bitwright.models import load
from shapes import Shape, artifact, random_model

ON = {"scheme": "int4-g64", "threads": 1}
SIZE = ON | {"model": "7B-shaped", "decode_fraction_of_bandwidth": 0.7, "prefill_fraction_of_peak": 0.19}


def row(*speeds: float, **more: Any) -> dict[str, Any]:
    return ON | {"isa": "", "kv_cache": "int8", "depth": 16, "batch": 1, "rounds": list(speeds)} | more


def test_each_ratio_is_taken_over_rows_like_it() -> None:
    depths = [row(100, depth=128), row(74, depth=4096), row(10, depth=128, kv_cache="fp16"), row(9, depth=4096, kv_cache="fp16")]
    depths += [row(10, depth=128, isa="avx2"), row(8, depth=4096, isa="avx2")]
    batches = [row(50, batch=8, threads=2), row(9, threads=2), row(40, batch=8), row(10), row(99, batch=16)]
    batches += [row(7, scheme="int8-channel"), row(42, batch=8, scheme="int8-channel")]
    assert scaling_report.verdicts({"sizes": [], "heads": [], "depths": depths, "batches": batches}) == [
        "- decode at 4096 over 128, int8 cache, int4-g64, 1 thread(s): 0.74 (bar: at least 0.75): **not met**",
        "- decode at 4096 over 128, int8 cache, int4-g64 (avx2), 1 thread(s): 0.8 (bar: at least 0.75): met",
        "- decode of 8 sequences over one, int4-g64, 2 thread(s): 5.556 (bar: at least 5): met",
        "- decode of 8 sequences over one, int4-g64, 1 thread(s): 4 (bar: at least 5): **not met**",
        "- decode of 8 sequences over one, int8-channel, 1 thread(s): 6 (bar: at least 5): met",
    ]


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    one, eight = row(10, 5, 8), row(60, 20, 16, batch=8)
    assert scaling_report.over(eight, [one, eight], "batch") == 4


def test_sizes_and_heads_have_bars() -> None:
    head = ON | {"model": "1B-shaped", "rows": 128256, "whole_fraction_of_time": 0.2}
    assert scaling_report.verdicts({"sizes": [SIZE], "heads": [head], "depths": [], "batches": []}) == [
        "- decode, share of read bandwidth, 7B-shaped, int4-g64, 1 thread(s): 0.7 (bar: at least 0.65): met",
        "- prefill, share of the int8 peak, 7B-shaped, int4-g64, 1 thread(s): 0.19 (bar: at least 0.2): **not met**",
        "- head of 128256 rows, share of a decoded token's time with all layers, 1B-shaped, int4-g64, 1 thread(s): "
        "0.2 (bar: at most 0.5): met",
    ]


@pytest.mark.parametrize("tied", [False, True])
def test_the_models_it_makes_are_models(tmp_path: Path, tied: bool) -> None:
    shape = Shape(128, 192, 4, 2, layers=2, whole=8, vocabulary=64, tied=tied)
    made = artifact(random_model(shape, tmp_path / "model"), "int4-g64", tmp_path / "artifact")
    model = load(made)
    assert model.architecture.layers == 2 and model.architecture.kv_heads == 2
    assert model.shape("model.layers.1.mlp.down_proj.weight") == (128, 192)
    found = scaling.head(made, {"threads": 1, "head_fraction_of_time": 0.5}, shape.whole / shape.layers)
    assert found["rows"] == 64 and found["whole_fraction_of_time"] == pytest.approx(0.2)
    assert 0 < found["whole_fraction_of_bytes"] < found["fraction_of_bytes"] < 1


def test_ways_of_decoding_have_speeds_and_a_head(tmp_path: Path) -> None:
    shape = Shape(128, 192, 4, 2, layers=1, whole=1, vocabulary=64)
    made = artifact(random_model(shape, tmp_path / "model"), "int4-g64", tmp_path / "artifact")
    ways = [scaling.Way("int8", 20), scaling.Way(batch=2)]
    one, two = scaling.paces(made, "", 1, ways, 2)
    assert (one["kv_cache"], one["depth"], two["batch"], len(two["rounds"])) == ("int8", 20, 2, 2)
    assert min(one["rounds"] + two["rounds"]) > 0 and 0 < one["head_fraction_of_time"] < 1
