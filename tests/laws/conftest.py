"""Laws hold of a neural curve after any number of steps: where it does not matter how good it is, it is trained for a few."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def short_training() -> Iterator[None]:
    """40 steps in place of 600, for a whole file of tests. test_tables.py trains in full, on the same matrices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitwright.fitting.compander.STEPS", 40)
        yield
