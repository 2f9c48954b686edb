"""The table of plans: promises are judged by what was said before anything was measured, times by whole commands."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", exc_type=ImportError)

import plans
import results
from watched import LINE, Watched

FIRST = {
    "name": "plan 1",
    "blind": {"bytes": 100, "divergence": 0.010, "seconds": 0.012, "prefill": 0.25, "ram": 3e8},
    "promised": {"bytes": 100, "divergence": 0.010, "seconds": 0.010, "prefill": 0.20, "ram": 3e8},
    "foretold": {"bytes": 100, "divergence": 0.010, "seconds": 0.008, "prefill": 0.25, "ram": 3e8},
    "measured": {"bytes": 100, "divergence": 0.013, "seconds": 0.010, "prefill": 0.2, "slowness": 1.0, "prefill_slowness": 1.0},
}
SWAPPED = {
    "name": "swap 1",
    "blind": {"bytes": 104, "divergence": 0.011, "seconds": 0.012, "prefill": 0.25, "ram": 3e8},
    "promised": {"bytes": 104, "divergence": 0.011, "seconds": 0.010, "prefill": 0.20, "ram": 3e8},
    "foretold": {"bytes": 104, "divergence": 0.012, "seconds": 0.008, "prefill": 0.30, "ram": 3e8},
    "measured": {
        **{"bytes": 104, "divergence": 0.012, "seconds": 0.015, "prefill": 0.3, "ram": 3e8},
        **{"slowness": 1.8, "prefill_slowness": 1.6},
    },
}
TIME = {"seconds": 400.0, "silent": 6.0, "cold": True, "said_over_true": [0.7, 1.2], "true_within": 0.97}


def plan(size: int, chosen: dict[str, Any], *tried: dict[str, Any]) -> dict[str, Any]:
    said = {name: chosen[name] for name in ("blind", "promised", "foretold", "measured")}
    said |= {"tried": list(tried), "activations": {"kind": "int16"}, "swaps": []}
    rival = {"recipe": "int5", "activations": "int16", "ratio": 0.5, "ratio_interval": (0.45, 0.55)}
    rival |= {"ratio_alike": 0.72, "ratio_alike_interval": (0.7, 0.74)}
    figures = {"kl_mean": 0.02, "size_bytes": 104, "kl_mean_interval": (0.01, 0.03), "perplexity": 20.0, "top1_agreement": 0.9}
    told = {"limit_mb": size, "plan": said, "measured": figures, "uniform": [rival | figures], "time": TIME}
    return copy.deepcopy(told)


def test_a_promise_is_what_was_said_before_anything_was_measured() -> None:
    lines = plans.promises(plan(108, SWAPPED, FIRST, SWAPPED), "108 MB")
    assert lines == [
        "- promised KL off by, first plan, 108 MB: 0.2308 (bar: at most 0.2): **not met**",
        "- promised KL off by, chosen plan, 108 MB: 0.08333 (bar: at most 0.2): met",
        "- by what the first plan had taught, the chosen one's KL was foretold off by, 108 MB: 0",
        "- promised decode speed off by, raw, 108 MB: 0.3333 (bar: at most 0.1): **not met**",
        "- promised decode speed off by, at one pace, 108 MB: 0.04 (bar: at most 0.1): met",
        "- promised prompt speed off by, raw, 108 MB: 0.3333 (bar: at most 0.1): **not met**",
        "- promised prompt speed off by, at one pace, 108 MB: 0.06667 (bar: at most 0.1): met",
        "- size promised to the byte, 108 MB: met",
    ]
    assert [line for line in plans.promises(plan(108, FIRST, FIRST), "108 MB") if "KL" in line] == lines[:1]


def test_speeds_are_told_by_costs_by_a_stand_in_and_as_they_were() -> None:
    _, activations, *figures = plans.speeds(plan(108, SWAPPED, FIRST, SWAPPED))
    assert activations == "int16"
    assert figures == pytest.approx([1 / 0.012, 100, 1 / 0.015, 96, 512 / 0.25, 512 / 0.2, 512 / 0.3, 512 / 0.1875])


def test_the_bar_is_for_the_same_activations_for_both() -> None:
    assert plans.against_uniform(plan(108, FIRST, FIRST), "108 MB") == [
        "- KL over that of int5, int16 activations for both, 108 MB (0.7 to 0.74): 0.72 (bar: at most 0.7): **not met**",
        "- the same with its activations as by default, 108 MB (0.45 to 0.55): 0.5",
    ]
    (first, _) = plans.against_uniform(plan(90, FIRST, FIRST), "90 MB")
    assert first.endswith("(0.7 to 0.74): 0.72")  # no size of llama.cpp's


def test_the_time_left_is_judged_of_every_plan() -> None:
    warm = plan(125, FIRST, FIRST)
    warm["time"] |= {"cold": False, "true_within": 1.0}
    lines = plans.time_verdicts([plan(108, FIRST, FIRST), warm], None)
    assert [line.rpartition(": ")[2] for line in lines] == ["met", "met", "**not met**", "met"]
    assert "the plan for 108 MB, nothing cached" in lines[0] and "125 MB, what the one before measured cached" in lines[3]


def test_results_are_kept_after_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is interrupted keeps what it has, and `--keep` goes on from there."""
    monkeypatch.setattr(plans, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(plans, "home", lambda: tmp_path)
    monkeypatch.setenv("BITWRIGHT_CACHE", "elsewhere")
    asked = list[int]()

    def contest(size: int, *_: int) -> dict[str, Any]:
        asked.append(size)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return plan(size, SWAPPED, FIRST, SWAPPED)

    def run(*arguments: str) -> list[int]:
        monkeypatch.setattr("sys.argv", ["benchmarks/plans.py", *arguments])
        try:
            plans.main()
        except KeyboardInterrupt:
            assert asked == [90, 108]
        return [each["limit_mb"] for each in json.loads((tmp_path / "plans.json").read_text("utf-8"))["plans"]]

    monkeypatch.setattr(plans, "contest", contest)
    assert run("--sizes", "90,108,125") == [90]
    assert run("--sizes", "108,125", "--keep") == [90, 108, 125]
    assert "size promised to the byte, 125 MB: met" in (tmp_path / "plans.md").read_text("utf-8")


def test_what_a_command_says_is_read_off_its_lines() -> None:
    match = LINE.fullmatch("rounding layer by layer: 42% of all, about 3 min 20 s left")
    assert match and match.groups() == ("rounding layer by layer", "3", "20")
    assert LINE.fullmatch("measuring plan 1: 90% of all, about 5 s left")
    assert not LINE.fullmatch("wrote recipe.json; bitwright quantize MODEL --recipe recipe.json -o OUT")


def test_the_time_left_is_right_until_the_next_line_says_otherwise() -> None:
    watched = Watched(60.0, ((5.0, "a", 55.0), (15.0, "a", 90.0), (20.0, "b", 40.0), (52.0, "c", 1.0)))
    found = watched.to_dict()
    assert found["phases"] == {"a": 15.0, "b": 32.0, "c": 8.0} and found["silent"] == 5.0
    assert found["said_over_true"] == [1.0, 2.0]  # what is said in the last 10 s does not count
    assert found["true_within"] == pytest.approx(40 / 45)
    assert "true_within" not in Watched(8.0, ((2.0, "a", 1.0),)).to_dict()
