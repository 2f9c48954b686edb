"""Tiny models on disk, each made once per run, and measurements that are short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

import tiny

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("any machine")

# What makes figures exact on a machine that others use, too: no test asks how fast this machine is.
QUICK = {"calibration.paces.PAUSE": 0.0, "allocation.device.ROUNDS": 2, "analysis.ceilings.BANDWIDTH_SECONDS": 0.02}
QUICK |= {"analysis.ceilings.PEAK_SECONDS": 0.01}


@pytest.fixture(scope="session", autouse=True)
def quick_measurements() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK.items():
            patch.setattr(f"bitwright.{name}", value)
        yield


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Case -> its directory, to be read only. Skips where torch or transformers are not installed."""
    pytest.importorskip("torch", exc_type=ImportError)
    pytest.importorskip("transformers", exc_type=ImportError)
    root, made = tmp_path_factory.mktemp("tiny"), dict[str, Path]()

    def directory(case: str) -> Path:
        if case not in made:
            made[case] = tiny.make_tiny(case, root / case)
        return made[case]

    return directory


@pytest.fixture
def text_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of this run's own, where text that models write is kept from test to test."""
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "text-cache"))
