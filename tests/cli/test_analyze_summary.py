"""What `bitwright analyze` prints below its tables."""

from __future__ import annotations

import pytest

from analysis.report.example import example
from bitwright.cli.analyze import _show


def test_the_models_own_loss_and_what_is_added(capsys: pytest.CaptureFixture[str]) -> None:
    _show(example(2))
    said = " ".join(capsys.readouterr().err.split())
    assert "own loss on this text is 2.838 nats a token, quantizing adds 0.0311 (0.0254 to 0.0371)" in said
    assert "perplexity 17.08 -> 17.62" in said
    assert "measured with int16 activations, as the recipe says" in said
