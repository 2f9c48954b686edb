"""The machine's ceilings: kept, refused when foreign, measured again when beaten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitwright import _native, machine
from bitwright.analysis import ceilings
from bitwright.analysis.ceilings import Ceilings


class Meter:
    """Every measurement finds 1 GB/s more than the last, and 10 operations a second a thread."""

    isa = staticmethod(_native.isa)

    def __init__(self) -> None:
        self.passes: list[tuple[int, int]] = []
        self.cores = 2
        self.instruction = "dot"

    def available_cores(self) -> int:
        return self.cores

    def read_bandwidth(self, size: int, threads: int, seconds: float) -> float:
        self.passes.append((size, threads))
        return len(self.passes) * 1e9

    def matrix_instruction(self, kind: str) -> str | None:
        return self.instruction if kind == "int8" else None

    def matrix_peak(self, kind: str, threads: int, seconds: float) -> float:
        return 10.0 * threads * len(self.instruction)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Meter:
    meter = Meter()
    monkeypatch.setattr(ceilings, "_native", meter)
    monkeypatch.setattr(machine, "_native", meter)
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    return meter


def test_figures_are_kept_for_this_machine_alone(meter: Meter, tmp_path: Path) -> None:
    assert Ceilings.of_this_machine().read_gb_per_s(50_000_000, 2) == 1.0
    assert Ceilings.of_this_machine().read_gb_per_s(50_000_000, 2) == 1.0
    assert meter.passes == [(48 << 20, 2)]
    assert Ceilings.of_this_machine().read_gb_per_s(50_000_000, 1) == 2.0
    meter.cores = 3
    assert Ceilings.of_this_machine().read_gb_per_s(50_000_000, 2) == 3.0
    assert json.loads((tmp_path / ceilings.FILE).read_text("utf-8"))["machine"]["cores"] == 3
    assert [path.name for path in tmp_path.iterdir()] == [ceilings.FILE]


def test_what_is_beaten_is_measured_again_and_never_lowered(meter: Meter) -> None:
    figures = Ceilings()
    assert figures.read_gb_per_s(1, 1) == 1.0
    assert figures.read_gb_per_s(1, 1, reached=0.9) == 1.0
    assert figures.read_gb_per_s(1, 1, reached=1.5) == 2.0
    figures.figures = {name: 100.0 for name in figures.figures}
    assert figures.read_gb_per_s(1, 1, reached=200.0) == 100.0


def test_peaks_and_their_absence(meter: Meter) -> None:
    assert Ceilings().matrix_ops_per_s("int8", 2) == 60.0
    assert Ceilings().matrix_ops_per_s("bf16", 2) is None


def test_each_instruction_has_a_peak_of_its_own(meter: Meter) -> None:
    assert Ceilings.of_this_machine().matrix_ops_per_s("int8", 1) == 30.0
    meter.instruction = "lesser dot"  # as BITWRIGHT_ISA would
    assert Ceilings.of_this_machine().matrix_ops_per_s("int8", 1) == 100.0
    meter.instruction = "dot"
    assert Ceilings.of_this_machine().matrix_ops_per_s("int8", 1) == 30.0


def test_huge_models_need_no_huge_buffer(meter: Meter) -> None:
    Ceilings().read_gb_per_s(10**12, 1)
    assert meter.passes == [(1 << 30, 1)]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"machine": 1}', "\\xff", '{"machine": MACHINE, "figures": {"x": Infinity, "y": "z"}}']
)
def test_a_damaged_file_is_as_good_as_none(meter: Meter, tmp_path: Path, text: str) -> None:
    (tmp_path / ceilings.FILE).write_text(text.replace("MACHINE", json.dumps(machine.identity())), "utf-8")
    assert Ceilings.of_this_machine().figures == {}


def test_a_folder_that_cannot_be_written_costs_nothing(meter: Meter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path / "file" / "folder"))
    assert Ceilings.of_this_machine().read_gb_per_s(1, 1) == 1.0
    monkeypatch.setenv("BITWRIGHT_CACHE_BYTES", "0")
    assert Ceilings.of_this_machine().path is None


def test_the_native_peaks_are_those_of_real_instructions() -> None:
    for kind in ceilings.TYPES:
        peak = _native.matrix_peak(kind, 2, 0.001)
        assert (peak > 1e6) == (_native.matrix_instruction(kind) is not None)
    with pytest.raises(ValueError, match="unknown matrix type"):
        _native.matrix_peak("int4", 1, 0.001)


@pytest.mark.parametrize(
    ("isa", "instructions"),
    [
        ("avx2", ["avx2 vpmaddubsw", None]),
        ("avxvnni", ["avx vpdpbusd", None]),
        ("neon", ["neon smull", None]),
        ("dotprod", ["dotprod sdot", None]),
    ],
)
def test_a_forced_set_is_held_against_its_own_peak(isa: str, instructions: list[str | None]) -> None:
    if isa not in _native.supported_isas():
        pytest.skip(f"this machine has no {isa}")
    program = (
        "import json; from bitwright.analysis.ceilings import TYPES, matrix_instruction;"
        "print(json.dumps([matrix_instruction(kind) for kind in TYPES]))"
    )
    command, environment = [sys.executable, "-c", program], os.environ | {"BITWRIGHT_ISA": isa}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == instructions
