"""Tiny models on disk, each made once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

import tiny

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("any machine")


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
