"""The table of methods: who runs, which earlier rows stay, and who is held against whom."""

from __future__ import annotations

from typing import Any

import pytest

import methods
from method_contenders import CONTENDERS, PEERS, chosen

WHERE = {"windows": 32, "calibration": "abc", "tokens": 4096}


def row(system: str, kind: str, kl: float, bits: float = 4.25, **more: Any) -> dict[str, Any]:
    return {"system": system, "kind": kind, "budget": 4.25, "bits": bits, "kl_mean": kl} | WHERE | more


def test_every_contender_has_a_name_of_its_own_and_a_way_to_run() -> None:
    names = [contender.name for contender in CONTENDERS]
    assert len(set(names)) == len(names)
    assert all("," not in name for name in names)
    assert {contender.system for contender in CONTENDERS} == {*PEERS, "bitwright"}


def test_contenders_are_chosen_by_system_by_name_and_by_budget() -> None:
    assert {contender.system for contender in chosen("hqq,nncf nf4-g64 awq scale", "")} == {"hqq", "nncf"}
    assert [contender.name for contender in chosen("hqq,nncf", "2.25")] == ["hqq int2-g64"]
    assert chosen("", "") == list(CONTENDERS)


def test_a_name_that_nobody_has_is_refused() -> None:
    with pytest.raises(SystemExit, match="nobody is called hqqq"):
        chosen("hqqq", "")


def test_rows_of_an_earlier_run_stay_unless_tried_again_or_got_otherwise() -> None:
    earlier = {
        "circumstances": {"cpu": "an old one"},
        "rows": [
            row("hqq", "int4-g64", 1.0),
            row("gptqmodel", "gptq int4-g64-affine", 2.0),
            row("gptqmodel", "gptaq int4-g64-affine", 3.0, calibration="other"),
            row("hqq", "int2-g64", 4.0, calibration="other", cpu="another"),
            row("nncf", "a kind of the past", 5.0),
        ],
        "failed": {"llm-compressor awq int4-g64-affine": "crashed", "nncf nf4-g64 awq scale": "crashed"},
    }
    tried, broken = row("hqq", "int4-g64", 1.5), {"nncf nf4-g64 awq scale": "crashed again"}
    rows, failed = methods.with_earlier([tried], broken, WHERE, earlier)
    same, other_budget = row("gptqmodel", "gptq int4-g64-affine", 2.0), row("hqq", "int2-g64", 4.0, calibration="other")
    assert rows == [tried, same | {"cpu": "an old one"}, other_budget | {"cpu": "another"}]
    assert failed == {"nncf nf4-g64 awq scale": "crashed again", "llm-compressor awq int4-g64-affine": "crashed"}


def test_the_best_of_ours_is_held_against_the_best_peer_at_no_fewer_bits() -> None:
    rows = [
        row("bitwright", "a", 0.08),
        row("bitwright", "b", 0.01, bits=4.5),
        row("hqq", "c", 0.1),
        row("hqq", "d", 0.02, bits=4.1),
        row("llama.cpp", "e", 0.02, bits=5.5),
    ]
    assert methods.judged(rows, 4.25, 0.2) == ["- KL at 4.25 bits, a, beside hqq c: 0.08 (bar: at most 0.08): met"]
