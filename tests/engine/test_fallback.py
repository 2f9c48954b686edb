"""`Engine.load` says what it decodes to fp32, once, or refuses it; where floats were asked for there is nothing to say."""

from __future__ import annotations

from pathlib import Path

import pytest

import bitwright
from bitwright.core import Recipe
from bitwright.engine import Engine, fallback
from bitwright.engine.layout import decoded
from bitwright.errors import EngineError
from bitwright.models.base import LanguageModel
from cli.helpers import tensors, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bitwright.load(write_model(tmp_path_factory.mktemp("fallback") / "model", tensors()))


def test_load_tells_or_refuses(model: LanguageModel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a saved and an unsaved model alike."""
    fallback._warn.cache_clear()
    unsaved = bitwright.quantize(model, Recipe.uniform("fp8e4m3-g64", fitting="minmax"))
    saved = unsaved.save(tmp_path / "out")
    assert decoded(unsaved) == decoded(saved) and len(decoded(saved)) == 15
    for quantized in (unsaved, saved):
        with pytest.raises(
            EngineError, match=r"15 matrices of fp8e4m3-g64: no integer kernel.*`bitwright formats`.*leave out strict"
        ):
            Engine.load(quantized, strict=True)
        Engine.load(quantized, activations="fp32", strict=True)
        assert not caplog.messages
    Engine.load(saved), Engine.load(unsaved, activations="int16")
    assert [line[:28] for line in caplog.messages] == ["15 matrices of fp8e4m3-g64: "] and caplog.records[
        0
    ].name == "bitwright.engine"


def test_what_runs_as_integers_or_was_never_rounded_is_no_fallback(
    model: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    fallback._warn.cache_clear()
    for quantized in (
        model,
        bitwright.quantize(model, Recipe.uniform("int4-g32")),
        bitwright.quantize(model, Recipe.uniform("nf4-g64")),
    ):
        assert decoded(quantized) == {}
        Engine.load(quantized, strict=True)
    assert not caplog.messages
