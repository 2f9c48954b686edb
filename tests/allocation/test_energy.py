"""Energy: counters of a made-up powercap folder, and the estimate's arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitwright.allocation.energy import Energy, Meter, estimate


def zone(root: Path, name: str, title: str, microjoules: int, most: int = 1000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(title + "\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder / "energy_uj"


def test_packages_and_memory_count_once_and_wrap(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 900)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 10)
    for name, title in (("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        zone(tmp_path, name, title, 5)
    meter = Meter.of_this_machine(tmp_path)
    assert meter is not None and len(meter.counters) == 2
    before = meter.read()
    package.write_text("99\n")  # 900 to 1000, to 0, to 99
    memory.write_text("60\n")
    assert meter.joules(before, meter.read()) == pytest.approx((200 + 50) / 1e6)


def test_no_counters_are_no_meter(tmp_path: Path) -> None:
    assert Meter.of_this_machine(tmp_path) is None
    assert Meter.of_this_machine(tmp_path / "missing") is None
    zone(tmp_path, "intel-rapl:0", "package-0", 1).unlink()
    assert Meter.of_this_machine(tmp_path) is None
    zone(tmp_path, "intel-rapl:1", "package-1", 1).write_text("nothing")
    assert Meter.of_this_machine(tmp_path) is None


def test_the_estimate_says_so() -> None:
    assert estimate(8e6, 0).joules == pytest.approx(1.3e-3) and estimate(8e6, 0).source == "estimate"
    assert estimate(0, 1e9).joules == pytest.approx(0.3e-3)
    assert estimate(0, 1e9, integer=False).joules == pytest.approx(4.6e-3)
    assert str(estimate(8e6, 0)) == "1.3 mJ (estimate)" and str(Energy(0.25, "RAPL")) == "250 mJ"
