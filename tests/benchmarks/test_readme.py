"""Every figure in the README is one that a benchmark wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

import readme
from results import verdict


def test_the_readme_shows_the_results_as_they_were_written() -> None:
    text = readme.README.read_text("utf-8")
    assert readme.with_results(text, readme.HERE / "results") == text


def test_results_replace_what_stood_there(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text("# Speed\n\n| 1 |\n", "utf-8")
    once = readme.with_results("a\n<!-- speed -->\nold\n<!-- /speed -->\nb", tmp_path)
    assert once == "a\n<!-- speed -->\n\n### Speed\n\n| 1 |\n\n<!-- /speed -->\nb"
    assert readme.with_results(once, tmp_path) == once


def test_of_a_long_result_the_first_table_is_shown_and_bars_are_counted(tmp_path: Path) -> None:
    bars = [verdict(f"ratio {number}", number, 38, at_least=True) for number in range(39)]
    text = "# Speed\n\nA machine.\n\n| 1 |\n\n| 2 |\n\nHow.\n\n" + "\n".join([*bars, "- no bar: 3"]) + "\n"
    (tmp_path / "speed.md").write_text(text, "utf-8")
    assert readme.shown(tmp_path / "speed.md") == text  # LONGEST lines
    (tmp_path / "speed.md").write_text(text + "- nor this: 4\n", "utf-8")
    link = "[benchmarks/results/speed.md](benchmarks/results/speed.md)"
    said = f"Of 39 bars 1 are met: all of them, and what they were judged by, are in {link}."
    assert readme.shown(tmp_path / "speed.md") == f"# Speed\n\nA machine.\n\n| 1 |\n\n{said}\n"


def test_a_result_without_a_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text("# Speed\n", "utf-8")
    with pytest.raises(SystemExit, match="0 places for results/speed.md"):
        readme.with_results("nothing here", tmp_path)
