"""What the engine says of two models' distributions, against their logits in numpy."""

from __future__ import annotations

import numpy as np
import pytest

import bitwright as bw
import tiny
from bitwright.engine import Engine
from cli.helpers import tensors, write_model
from engine.measures import log_softmax


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    model = bw.load(write_model(tmp_path_factory.mktemp("models") / "model", tensors()))
    return Engine.load(model, activations="fp32"), Engine.load(bw.quantize(model, bw.Recipe.uniform("int3-g32")))


def test_every_field_is_its_definition(engines: tuple[Engine, Engine]) -> None:
    reference, model = engines
    tokens = np.array(tiny.tokens(120), np.int32)
    theirs, ours = reference.hidden(tokens), model.hidden(tokens)
    p, q = log_softmax(reference.project(theirs)), log_softmax(model.project(ours))
    targets = np.where(np.arange(120) % 3 == 0, p.argmax(axis=1), np.where(np.arange(120) % 3 == 1, q.argmax(axis=1), tokens))
    found, rows = model.compare(theirs, reference, ours, targets), np.arange(120)
    assert np.allclose(found.kl, (np.exp(p) * (p - q)).sum(axis=1), atol=1e-5)
    assert np.allclose(found.nll, -q[rows, targets], atol=1e-5)
    assert np.allclose(found.nll_reference, -p[rows, targets], atol=1e-5)
    assert np.allclose(found.confidence_reference, np.exp(p.max(axis=1)), atol=1e-5)
    assert np.array_equal(found.agree, p.argmax(axis=1) == q.argmax(axis=1))
    assert np.array_equal(found.right, q.argmax(axis=1) == targets) and found.right.any() and not found.right.all()
    assert np.array_equal(found.right_reference, p.argmax(axis=1) == targets)


def test_an_engine_beside_itself(engines: tuple[Engine, Engine]) -> None:
    engine, _ = engines
    tokens = np.array(tiny.tokens(40), np.int32)
    rows = engine.hidden(tokens)
    alone = engine.compare(rows, engine, rows, tokens)
    assert not alone.kl.any() and alone.agree.all()
    assert np.array_equal(alone.nll, alone.nll_reference) and np.array_equal(alone.right, alone.right_reference)
    moved = engine.compare(rows, engine, rows * np.float32(1.1), tokens)
    assert moved.kl.min() > 0 and np.array_equal(moved.nll_reference, alone.nll)
    assert np.array_equal(moved.confidence_reference, alone.confidence_reference)


def test_hidden_rows_of_several_sequences_are_those_of_each(engines: tuple[Engine, Engine]) -> None:
    for engine in engines:
        pieces = [tiny.tokens(30), tiny.tokens(9)[::-1]]
        together = engine.read_hidden([(engine.new_sequence(), piece) for piece in pieces])
        assert np.array_equal(together, np.concatenate([engine.hidden(piece) for piece in pieces]))
