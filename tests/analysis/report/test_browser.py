"""The page in a real browser: headless Chromium opens it, uses it, and keeps pictures in build/report.

`make browser` brings what this needs; without that it skips and says what is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from analysis.report.example import example, hostile
from bitwright.analysis.report import write

ROOT = Path(__file__).parents[3]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def tool(names: tuple[str, ...]) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no {names[0]} on this machine; make browser installs it where it may")
    return found


def visit(pictures: Path, *reports: Path) -> subprocess.CompletedProcess[str]:
    node, chromium = tool(("node",)), tool(BROWSERS)
    playwright = ROOT / "build" / "browser" / "node_modules" / "playwright-core"
    if not playwright.is_dir():
        pytest.skip("no playwright-core in build/browser; make browser installs it")
    script = Path(__file__).parent / "browser" / "visit.js"
    pictures.mkdir(parents=True, exist_ok=True)
    command = [node, str(script), str(playwright), chromium, str(pictures), *map(str, reports)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module", autouse=True)
def plotly() -> None:
    pytest.importorskip("plotly", exc_type=ImportError)


def test_a_reader_can_use_the_page(tmp_path: Path) -> None:
    write(example(), tmp_path / "report.html")
    write(hostile(), tmp_path / "hostile.html")
    pictures = ROOT / "build" / "report"
    visited = visit(pictures, tmp_path / "report.html", tmp_path / "hostile.html")
    assert visited.returncode == 0, visited.stdout + visited.stderr
    for name in ("desktop-light", "desktop-dark", "phone-light", "phone-dark"):
        assert (pictures / f"{name}.png").stat().st_size > 50_000, name
