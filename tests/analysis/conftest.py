"""What tests of plans share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one plan measured, the next finds here."""
    return tmp_path_factory.mktemp("cache")
