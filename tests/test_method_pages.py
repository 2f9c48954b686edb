"""Every method has a page of the same form, its example runs, and no page is about a method that does not exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bitwright.cli import main
from bitwright.rounding import ROUNDING
from bitwright.transforms import TRANSFORMS
from cli.helpers import tensors, write_model

DOCS = Path(__file__).parent.parent / "docs"
METHODS = [*ROUNDING, "hqq", *TRANSFORMS, "rotate", "distill"]  # other fittings share a page: tests/test_format_pages.py
SECTIONS = ["When to use it", "Maths", "Source", "Example"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with path/to/model, text.txt and held_out.txt."""
    directory = tmp_path_factory.mktemp("pages")
    write_model(directory / "path" / "to" / "model", tensors())
    (directory / "held_out.txt").write_text(" ".join(f"{n} less {n // 3} is {n - n // 3};" for n in range(200)), "utf-8")
    (directory / "text.txt").write_text(" ".join(f"{n} times {n} is {n * n}." for n in range(200)), "utf-8")
    return directory


def indented(text: str) -> list[str]:
    """The blocks of code of a page."""
    return [re.sub("^    ", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^(?:    .*)?\n)+", text, re.MULTILINE)]


def needs_torch(text: str) -> bool:
    named = any(f'method="{name}"' in text for name, method in ROUNDING.items() if method.needs)
    return (
        named
        or "int8-tensor" in text
        or "distill=" in text
        or any(f'"{name}"' in text for name, row in TRANSFORMS.items() if row.observes)
    )


def test_there_is_one_page_for_each_method() -> None:
    assert sorted(path.stem for path in (DOCS / "methods").iterdir()) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_pages_have_one_form(name: str) -> None:
    text = (DOCS / "methods" / f"{name}.md").read_text("utf-8")
    assert text.startswith(f"# {name}: ")
    assert re.findall("^## (.*)", text, re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("page", [*(f"methods/{name}.md" for name in METHODS), "calibration.md", "activations.md", "kv_cache.md"])
def test_examples_run(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / page).read_text("utf-8")
    if needs_torch(text):
        pytest.importorskip("torch", exc_type=ImportError)
    monkeypatch.chdir(place)
    programs = [block for block in indented(text) if re.search("^(import|from) bitwright", block, re.MULTILINE)]
    commands = [block.strip() for block in indented(text) if block.startswith("bitwright ")]
    assert programs
    for program in programs:
        exec(compile(program, page, "exec"), {})
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0
    assert (place / "out" / "manifest.json").is_file()
