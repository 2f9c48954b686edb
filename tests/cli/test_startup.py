"""`bitwright --help` answers at once because nothing heavy is imported before a verb runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = {"torch", "transformers", "numpy", "rich", "tokenizers", "gguf", "jinja2", "huggingface_hub"}


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(found.stderr.split())


def test_importing_the_command_line_brings_nothing_heavy() -> None:
    assert not loaded_after("import bitwright.cli") & HEAVY


def test_help_brings_nothing_heavy() -> None:
    for arguments in ("['--help']", "[]", "['eval', '--help']"):
        assert not loaded_after(f"from bitwright.cli import main\nassert main({arguments}) == 0") & HEAVY


def test_running_an_artifact_brings_only_what_it_needs(artifact: Path) -> None:
    found = loaded_after(
        f"from bitwright.cli import main\nassert main(['run', {str(artifact)!r}, 'Hi', '--raw', '-n', '1']) == 0"
    )
    assert {"numpy", "tokenizers"} <= found
    assert not found & (HEAVY - {"numpy", "tokenizers"} | {"argparse", "concurrent", "logging", "pydantic"})


def test_module_and_command_are_one() -> None:
    found = subprocess.run([sys.executable, "-m", "bitwright", "--help"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("Usage: bitwright [OPTIONS] COMMAND")


def test_an_early_end_of_the_reader_is_no_fault() -> None:
    command = f"{sys.executable} -m bitwright formats | head -n 1"
    found = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=True)
    assert found.stderr == ""
