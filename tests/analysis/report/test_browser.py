"""The page in a real browser: headless Chromium opens it, uses it, and keeps pictures in build/report.

`make browser` brings what this needs. What is missing makes the test skip, and fail where the environment variable CI is set, as
all services for continuous integration set it, and `make browser` as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from analysis.report.example import example, hostile
from bitwright.analysis.report import write

ROOT = Path(__file__).parents[3]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def tool(names: tuple[str, ...]) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        lacking(f"no {names[0]} on this machine; make browser installs it where it may")
    return found


def lacking(what: str) -> NoReturn:
    """A test that nobody ran is no proof: where that matters, it is a failure."""
    if os.environ.get("CI"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def visit(pictures: Path, *reports: Path) -> subprocess.CompletedProcess[str]:
    node, chromium = tool(("node",)), tool(BROWSERS)
    playwright = ROOT / "build" / "browser" / "node_modules" / "playwright-core"
    if not playwright.is_dir():
        lacking("no playwright-core in build/browser; make browser installs it")
    script = Path(__file__).parent / "browser" / "visit.js"
    pictures.mkdir(parents=True, exist_ok=True)
    command = [node, str(script), str(playwright), chromium, str(pictures), *map(str, reports)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(autouse=True)
def plotly() -> None:
    if find_spec("plotly") is None:
        lacking("no plotly here; pip install 'bitwright[report]'")


def test_a_reader_can_use_the_page(tmp_path: Path, real_pages: Path) -> None:
    write(example(), tmp_path / "report.html")
    write(hostile(), tmp_path / "hostile.html")
    pictures = ROOT / "build" / "report"
    real = [real_pages / f"{name}.html" for name in ("plan", "analysis")]
    visited = visit(pictures, tmp_path / "report.html", tmp_path / "hostile.html", *real)
    assert visited.returncode == 0, visited.stdout + visited.stderr
    for page in ("", "plan-", "analysis-"):
        for view in ("desktop-light", "desktop-dark", "phone-light", "phone-dark"):
            assert (pictures / f"{page}{view}.png").stat().st_size > 50_000, page + view


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_missing_browser_fails_where_it_must_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(outcome, match="no node on this machine"):
        visit(tmp_path / "pictures", tmp_path / "report.html")
