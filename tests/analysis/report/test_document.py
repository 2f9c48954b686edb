"""Reading a report's document: what is kept, and which fault names which place."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.report.example import example
from bitwright.analysis.report.document import TokenKind, mean_kl, parse
from bitwright.errors import ReportError

LEAST = {"kind": "plan", "verdict": "It fits.", "model": {"name": "m"}}
TENSOR = {"name": "w", "layer": 0, "kind": "q", "scheme": "int4-g64", "bits": 4.25, "bytes": 17}


def test_everything_is_read() -> None:
    given = example(2)
    read = parse(given)
    assert [tensor.name for tensor in read.tensors] == [tensor["name"] for tensor in given["tensors"]]
    assert read.whole is not None and read.whole.kl_mean_interval == (0.0388, 0.0437)
    assert read.roofline is not None and read.roofline.points[0].bytes == 47_000_000
    assert read.histograms[3].weights is not None
    assert list(read.histograms[3].weights.edges) == given["histograms"][3]["weights"]["edges"]
    assert read.cost == pytest.approx(sum(tensor["kl_alone"] for tensor in given["tensors"]))


def test_all_but_three_parts_may_be_missing_or_null() -> None:
    assert parse(LEAST) == parse(LEAST | {"tensors": None, "whole": None, "machine": None, "unheard of": object()})
    for key in LEAST:
        with pytest.raises(ReportError, match=f"lacks '{key}'"):
            parse({name: value for name, value in LEAST.items() if name != key})


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"kind": "poem"}, "unknown kind of report 'poem'; choose from analysis, plan"),
    ({"verdict": 3}, "verdict of the report must be a text, not 3"),
    ({"model": "m"}, "model of the report must be an object, not 'm'"),
    ({"tensors": [TENSOR, TENSOR | {"bits": "4"}]}, r"tensors\[1\].bits of the report must be a number, not '4'"),
    ({"tensors": [TENSOR | {"layer": 1.5}]}, r"tensors\[0\].layer of the report must be a whole number, not 1.5"),
    ({"tensors": [TENSOR | {"bytes": True}]}, r"tensors\[0\].bytes of the report must be a whole number, not True"),
    ({"tensors": [TENSOR | {"bits": float("nan")}]}, r"tensors\[0\].bits of the report is nan; leave out"),
    ({"tensors": {"w": TENSOR}}, "tensors of the report must be a list"),
    ({"whole": {"kl_mean_interval": [1.0]}}, "whole.kl_mean_interval of the report must have 2 entries, not 1"),
    ({"warnings": "one"}, "warnings of the report must be a list, not 'one'"),
    ({"histograms": [{"name": "w", "weights": {"edges": [1, 2], "counts": [1, 2]}}]}, "2 counts needs 3 edges, not 2"),
]


@pytest.mark.parametrize(("part", "words"), FAULTS, ids=lambda part: str(part)[:40])
def test_a_fault_names_its_place(part: dict[str, Any], words: str) -> None:
    with pytest.raises(ReportError, match=words) as fault:
        parse(LEAST | part)
    assert "\n" not in str(fault.value)


def test_what_has_no_finite_value_is_missing() -> None:
    """A lossless tensor has an infinite signal-to-noise ratio."""
    (tensor,) = parse(LEAST | {"tensors": [TENSOR | {"sqnr_db": float("inf"), "kl_alone": float("nan")}]}).tensors
    assert tensor.sqnr_db is None and tensor.cost is None


def test_the_share_of_the_loss_counts_each_group_of_kinds_once() -> None:
    groups = [TokenKind("a: one", 0.25, 0.8), TokenKind("a: two", 0.75, 0.4), TokenKind("b: one", 1.0, 0.5)]
    assert mean_kl(groups) == pytest.approx(0.5) == mean_kl(groups[:2])
