"""`bitwright methods` and `bitwright formats` list all there is, and every row is explained by a page of docs/."""

from __future__ import annotations

import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bitwright import observers
from bitwright.activations.kind import LARGEST, Kind
from bitwright.activations.ranges import NAMES
from bitwright.cli.catalogue import KINDS, method_rows
from bitwright.fitting import CALIBRATED, FITTING
from bitwright.formats import FORMATS, NAMED
from bitwright.rounding import ROUNDING
from bitwright.runtime import ACTIVATIONS, CACHES
from bitwright.sparsity import pruning
from bitwright.sparsity.clustering import STARTS
from bitwright.transforms import TRANSFORMS
from cli.helpers import Command

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "guidance": "methods/guided.md",
    "fitting": "fitting.md",
    "pruning": "sparsity.md",
    "schedule": "sparsity.md",
    "clustering": "sparsity.md",
    "activations": "activations.md",
    "simulated activations": "activations.md",
    "KV cache": "kv_cache.md",
    "observer": "fitting.md",
}  # of kinds whose methods share one; others have docs/methods/NAME.md


def names(kind: str) -> list[str]:
    return [row["name"] for row in method_rows() if row["kind"] == kind]


def classes_with(method: str, module: str) -> set[str]:
    """Names of the classes that a module defines and that have this method."""
    found = inspect.getmembers(import_module(module), inspect.isclass)
    return {name for name, type in found if type.__module__ == module and hasattr(type, method)}


def test_every_row_has_a_name_and_one_line() -> None:
    rows = method_rows()
    assert list(dict.fromkeys(row["kind"] for row in rows)) == list(KINDS)
    assert len({(row["kind"], row["name"]) for row in rows}) == len(rows)
    assert all(len(row["summary"]) > 10 and "\n" not in row["summary"] and "et al" not in row["summary"] for row in rows)


@pytest.mark.parametrize(
    "kind, registry",
    [
        ("rounding", [*ROUNDING]),
        ("fitting", [*FITTING, *CALIBRATED]),
        ("transform", [*TRANSFORMS]),
        ("clustering", [*STARTS]),
    ],
)
def test_registries_are_listed_in_their_order(kind: str, registry: list[str]) -> None:
    assert names(kind) == registry


def test_what_the_engine_runs_is_listed() -> None:
    assert (set(names("activations")), set(names("KV cache"))) == (set(ACTIVATIONS), set(CACHES))


def test_simulated_activations_show_every_format_scale_and_range() -> None:
    kinds = [Kind.parse(name) for name in names("simulated activations")]
    text = KINDS["simulated activations"] + " ".join(names("simulated activations"))
    assert all(format in text for format in LARGEST)
    assert {kind.range for kind in kinds if kind.scales == "tensor"} == set(NAMES)
    assert {kind.scales for kind in kinds} == {"token", "tensor", "channel", "g128"}


def test_prunings_are_patterns_of_each_spelling() -> None:
    found = [pruning.Pattern.parse(name) for name in names("pruning")]
    assert {pattern.pool for pattern in found} == {pruning.TENSOR, pruning.ROW, 4} and (4, 4) in {p.block for p in found}
    assert set(names("schedule")) == classes_with("share_at", pruning.__name__) - {"Schedule"}


def test_every_observer_is_listed() -> None:
    modules = [f"{observers.__name__}.{module.name}" for module in pkgutil.iter_modules(observers.__path__)]
    assert set(names("observer")) == set().union(*(classes_with("update", module) for module in modules))


@pytest.mark.parametrize("row", method_rows(), ids=lambda row: f"{row['kind']}-{row['name']}")
def test_every_row_is_explained_by_a_page(row: dict[str, str]) -> None:
    text = (DOCS / PAGES.get(row["kind"], f"methods/{row['name']}.md")).read_text("utf-8")
    parts = row["name"].replace("g128", "gN").split("-") if row["kind"] == "simulated activations" else [row["name"]]
    assert row["kind"] not in PAGES or all(f"`{part}`" in text for part in parts)


@pytest.mark.parametrize("name", [*FORMATS, *NAMED, *ROUNDING, *FITTING, *CALIBRATED, *TRANSFORMS, *ACTIVATIONS])
def test_the_readme_says_when_to_choose_it(name: str) -> None:
    """By its name, alone or in a scheme or with its option, or between two others: `int5` to `int7`."""
    section = (DOCS.parent / "README.md").read_text("utf-8").partition("## Formats and methods")[2].partition("\n## ")[0]
    whole = {word for code in re.findall(r"`([^`]+)`", section) for word in (code, code.split()[-1], code.split("-")[0])}
    for family, least, most in re.findall(r"`([a-z]+)(\d)` to `[a-z]+(\d)`", section):
        whole |= {f"{family}{bits}" for bits in range(int(least), int(most) + 1)}
    assert name in whole


def test_methods_and_formats_are_printed(bitwright: Command) -> None:
    assert bitwright("methods", "--json").json["methods"] == method_rows()
    assert [row["name"] for row in bitwright("formats", "--json").json["formats"]] == [*FORMATS, *NAMED]
    formats, methods = bitwright("formats").out, bitwright("methods").out
    assert all(name in formats for name in (*FORMATS, *NAMED))
    assert all(row["name"] in methods for row in method_rows()) and all(kind in methods for kind in KINDS)


def test_the_list_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from bitwright.cli import main; sys.exit(main(['methods']))"
    assert "distill" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
