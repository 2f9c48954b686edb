"""A page whose shares are estimated says so wherever it shows them, and leaves out what only measuring tells."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("plotly", exc_type=ImportError)

from bitwright.analysis.report.document import Document, parse
from bitwright.analysis.report.page import tiles
from bitwright.analysis.report.parts import Chart, Note, Table
from bitwright.analysis.report.sections import sections
from bitwright.errors import ReportError


def read(folder: Path, name: str) -> Document:
    return parse(json.loads((folder / f"{name}.json").read_text("utf-8")))


@pytest.fixture(scope="module")
def estimated(real_pages: Path) -> Document:
    return read(real_pages, "estimated")


def test_what_only_measuring_tells_is_left_out(estimated: Document) -> None:
    assert [section.anchor for section in sections(estimated)] == [
        *("frontier", "map", "worst", "tokens", "predicted", "roofline", "tensors")
    ]
    assert estimated.shares == "estimated" and estimated.additivity is None and estimated.cumulative == ()
    for tensor in estimated.tensors:
        assert tensor.kl_alone is tensor.kl_alone_interval is tensor.kl_regained is None and (tensor.kl_estimated or 0) > 0
        assert tensor.sqnr_db is not None and tensor.output_error is not None


def test_figures_of_the_whole_are_those_of_a_measured_page(estimated: Document, real_pages: Path) -> None:
    measured = read(real_pages, "analysis")
    assert measured.shares == "measured" and measured.whole is not None and estimated.whole is not None
    assert [(label, value) for label, value, _ in tiles(estimated.whole)] == [
        (label, value) for label, value, _ in tiles(measured.whole)
    ]
    assert estimated.token_kinds == measured.token_kinds
    assert {tensor.name: tensor.kl_estimated for tensor in estimated.tensors} == {
        tensor.name: tensor.kl_estimated for tensor in measured.tensors
    }
    alone = {tensor.name: tensor.kl_alone for tensor in measured.tensors}
    assert estimated.estimate is not None
    assert {one.tensor: one.measured for one in estimated.estimate.sample}.items() <= alone.items()


def test_the_rank_correlation_stands_with_the_number_of_tensors(estimated: Document, real_pages: Path) -> None:
    html = re.sub(r"<wbr>", "", (real_pages / "estimated.html").read_text("utf-8"))
    found = estimated.estimate
    assert found is not None and found.tensors == len(found.sample) == 12 and found.rank_correlation is not None
    rank = f"rank correlation with the measured losses of 12 tensors {found.rank_correlation:.2f}."
    assert estimated.verdict.endswith(f"Shares are estimated: {rank}") and estimated.verdict in html
    shown = {section.anchor: section for section in sections(estimated)}
    (note,) = (part.text for part in shown["map"].parts if isinstance(part, Note))
    assert "estimated from one backward pass, not measured." in note and note in html
    assert "Estimated against measured losses of 12 tensors: rank correlation " in note
    chart = next(part for part in shown["predicted"].parts if isinstance(part, Chart))
    assert chart.label.endswith("of 12 tensors") and isinstance(chart.table, Table) and len(chart.table.rows) == 12


def test_shares_are_called_estimated(estimated: Document) -> None:
    shown = {section.anchor: section for section in sections(estimated)}
    assert "of the estimated loss" in shown["map"].opening
    assert shown["worst"].opening.startswith("These tensors cost most, by estimate. Each fix below is foretold, none was tried")
    browser = shown["tensors"].parts[0]
    titles = [column.title for column in browser.table.columns]  # type: ignore[union-attr]
    assert "KL alone, estimated" in titles and "estimated share of loss" in titles and "KL alone" not in titles


def test_fixes_are_foretold_from_the_measured_whole(estimated: Document) -> None:
    assert estimated.fixes and estimated.whole is not None
    for fix in estimated.fixes:
        assert not fix.measured and fix.kl_before == pytest.approx(estimated.whole.kl_mean)
        assert 0 <= fix.kl_after < fix.kl_before


def test_other_shares_are_refused() -> None:
    with pytest.raises(ReportError, match="unknown shares 'guessed' in a report; choose from measured, estimated"):
        parse({"kind": "plan", "verdict": "", "model": {"name": "m"}, "shares": "guessed"})
