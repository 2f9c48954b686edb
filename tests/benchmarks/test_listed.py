"""Each benchmark is in the table of benchmarks/README.md, run by `make bench` or excused there, and has a place in README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import readme

SCRIPTS = [
    path
    for path in sorted(readme.HERE.glob("*.py"))
    if "__main__" in path.read_text("utf-8") and (path.stem == "device_costs" or "from results import" in path.read_text("utf-8"))
]
TABLE = (readme.HERE / "README.md").read_text("utf-8")
TARGET = (readme.HERE.parent / "Makefile").read_text("utf-8").partition("\nbench:")[2].partition("\n\n")[0]


def test_there_are_benchmarks() -> None:
    assert {"engines", "methods", "gptq_cost", "activations"} <= {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("name", [path.name for path in SCRIPTS])
def test_a_benchmark_is_in_the_table_and_is_run_or_excused(name: str) -> None:
    assert f"| `python benchmarks/{name}" in TABLE
    excused = next(line for line in TABLE.splitlines() if line.startswith("| `make bench`"))
    assert (f"benchmarks/{name}" in TARGET) != (f"`{name}`" in excused)


@pytest.mark.parametrize(
    "path", [path for path in readme.HERE.glob("*.py") if path.stem != "results"], ids=lambda path: path.name
)
def test_what_it_writes_has_a_place_in_the_readme(path: Path) -> None:
    for name in re.findall(r"^ *write\(\s*\"(\w+)\"", path.read_text("utf-8"), flags=re.MULTILINE):
        assert len(re.findall(rf"<!-- {name} -->.*?<!-- /{name} -->", readme.README.read_text("utf-8"), flags=re.DOTALL)) == 1
