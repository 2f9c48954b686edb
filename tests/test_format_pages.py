"""Every example in the pages on formats, fittings and sparsity runs, and every format and fitting has a page."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from bitwright.fitting import CALIBRATED, FITTING
from bitwright.formats import FORMATS, NAMED

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted([*DOCS.glob("formats/*.md"), DOCS / "fitting.md", DOCS / "sparsity.md"])
ENGINES = [DOCS / "activations.md", DOCS / "kv_cache.md"]  # their examples: tests/test_method_pages.py
SECTIONS = ("**What it does.**", "**When to use it.**", "**The maths.**", "**Source.**")


def examples(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path) -> None:
    assert examples(page)
    for code in examples(page):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, str(page), "exec"), {})
        assert printed.getvalue().strip() and "nan" not in printed.getvalue()


@pytest.mark.parametrize("page", [*DOCS.glob("formats/*.md"), *ENGINES], ids=lambda page: page.name)
def test_a_page_says_what_when_how_and_whence(page: Path) -> None:
    """In each of its parts, where it has several."""
    parts = re.split("^## ", page.read_text("utf-8"), flags=re.MULTILINE)
    assert all(section in part for part in parts[1:] or parts for section in SECTIONS)


@pytest.mark.parametrize("name", [*FORMATS, *NAMED])
def test_every_format_has_a_page(name: str) -> None:
    """By its name, or by its family in the title: `nf2` to `nf4`. Full precision, which all pages name, by a title."""
    family = re.sub(r"[0-9]+$", "", name)
    titles = [page.read_text("utf-8").partition("\n")[0] for page in PAGES]
    texts = [page.read_text("utf-8") for page in PAGES]
    if name in FORMATS and not FORMATS[name].scaled:
        assert any(re.search(rf"\b{name}\b", title) for title in titles)
    else:
        assert any(f"`{name}`" in text for text in texts) or any(re.search(rf"\b{family}[0-9]*\b", title) for title in titles)


def test_every_fitting_is_on_its_page() -> None:
    text = (DOCS / "fitting.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in (*FITTING, *CALIBRATED))
