"""Every figure in the README is one that a benchmark wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

import readme


def test_the_readme_shows_the_results_as_they_were_written() -> None:
    text = readme.README.read_text("utf-8")
    assert readme.with_results(text, readme.HERE / "results") == text


def test_results_replace_what_stood_there(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text("# Speed\n\n| 1 |\n", "utf-8")
    once = readme.with_results("a\n<!-- speed -->\nold\n<!-- /speed -->\nb", tmp_path)
    assert once == "a\n<!-- speed -->\n\n### Speed\n\n| 1 |\n\n<!-- /speed -->\nb"
    assert readme.with_results(once, tmp_path) == once


def test_a_result_without_a_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text("# Speed\n", "utf-8")
    with pytest.raises(SystemExit, match="0 places for results/speed.md"):
        readme.with_results("nothing here", tmp_path)
