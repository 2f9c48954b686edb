"""Imports run one way, and the run-time half stands without torch. Both are read off the source, so no path escapes.

A room is a package or module directly under src/bitwright. MAY_IMPORT is the whole law: what is not listed is refused.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "bitwright"

BASE = {"errors", "core", "formats", "runtime", "_native"}
READERS = BASE | {"artifact", "models"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "runtime": {"errors"},
    "core": {"errors", "formats", "runtime"},  # formats only inside functions: see test_core_meets_formats_only_when_called
    "formats": BASE,
    "cache": set(),
    "machine": {"_native", "cache"},
    "observers": BASE,
    "fitting": BASE,
    "rounding": BASE | {"fitting"},
    "sparsity": READERS | {"fitting"},
    "transforms": READERS | {"observers"},
    "calibration": READERS | {"cache", "engine", "fitting", "observers", "rounding"},
    "artifact": READERS,
    "models": READERS,
    "inspection": READERS,
    "engine": READERS,
    "refusals": READERS | {"fitting", "rounding", "sparsity"},
    "guards": READERS,
    "quantization": READERS
    | {"fitting", "rounding", "sparsity", "calibration", "observers", "transforms", "refusals"}
    | {"guards"},
    "activations": READERS | {"fitting", "observers", "calibration"},
    "allocation": READERS
    | {"cache", "machine", "engine", "fitting", "rounding", "observers", "calibration", "quantization", "inspection"},
    "analysis": READERS
    | {"cache", "machine", "inspection", "engine", "quantization", "calibration", "activations", "allocation", "observers"},
    "cli": READERS
    | {"inspection", "engine", "quantization", "analysis", "fitting", "rounding", "sparsity", "calibration", "transforms"}
    | {"allocation"},
    "__main__": {"cli"},
}
PUBLIC = {"evaluate", "load", "quantize"}  # the package's own verbs, for the skins
ALGORITHMS = {"observers", "fitting", "rounding", "transforms", "sparsity", "calibration", "activations", "refusals"} | {
    "quantization",
    "allocation",
}
RUNTIME = ("errors", "runtime", "machine", "core", "formats", "artifact", "models", "inspection", "engine", "cli")
HEAVY = {"torch", "transformers"}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(node: ast.AST) -> Iterator[str]:
    """Dotted names that the code under `node` imports when it runs, `from a import b` as a.b."""
    if is_type_checking(node):
        assert isinstance(node, ast.If)
        for other in node.orelse:
            yield from imported(other)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute here"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imported(child)


def rooms_imported(path: Path) -> set[str]:
    names = imported(ast.parse(path.read_text("utf-8")))
    return {name.split(".")[1] for name in names if name.startswith("bitwright.")}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
    strangers = rooms_imported(path) - MAY_IMPORT[room] - {room, "__version__"} - (PUBLIC if room == "cli" else set())
    assert not strangers, f"{path} imports {', '.join(sorted(strangers))}"


@pytest.mark.parametrize("room", ["models", "artifact", "inspection", "engine", "formats", "core"])
def test_no_algorithm_is_reachable_from(room: str) -> None:
    reached, frontier = set(), {room}
    while frontier:
        reached |= frontier
        frontier = {other for known in frontier for other in MAY_IMPORT.get(known, set())} - reached
    assert not reached & ALGORITHMS


@pytest.mark.parametrize("path", [path for path in sources() if room_of(path) in RUNTIME], ids=lambda path: path.name)
def test_the_runtime_half_never_imports_torch(path: Path) -> None:
    names = {name.split(".")[0] for name in imported(ast.parse(path.read_text("utf-8")))}
    assert not names & HEAVY


def test_core_meets_formats_only_when_called() -> None:
    """The types look the table of formats up when they are used; at import, core stands alone."""
    tree = ast.parse((SOURCE / "core.py").read_text("utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any(name.startswith("bitwright.formats") for node in top for name in imported(node))


def test_importing_bitwright_brings_nothing_heavy() -> None:
    code = "import sys, bitwright; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"torch", "transformers", "numpy", "gguf", "tokenizers", "huggingface_hub", "typer", "rich"}
