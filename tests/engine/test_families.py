"""The engine against transformers for every family, and against the numpy twin on quantized weights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
import tiny
from bitwright import _native
from bitwright.engine import Engine
from bitwright.engine.reference import forward
from engine.measures import mean_kl

LENGTH = 48  # beyond every window and every scaled rope's trained context
SCHEMES = (
    "int8-channel",
    "int4-g32",
    "int4-g64-affine",
    "int3-g64",
    "int2-g32",
    "int6-channel",
    "int5-g32-affine",
    "fixed8-tensor",
)
ODD_SCHEMES = ("int4-g16", "int4-g32-sbf16", "int3-channel-sfp32", "bf16", "fp16")  # float kernels, other scale types

# What rounding activations to 8 bits in blocks of 32 may add, on these small models.
INT8_BOUND = 2e-3
MIXTURE_BOUND = 1e-2  # where it turns a router's choice, another expert answers


@pytest.mark.parametrize("case", tiny.FAMILY_CASES)
def test_logits_are_those_of_transformers(case: str, tiny_directory: Callable[[str], Path]) -> None:
    directory, ids = tiny_directory(case), tiny.tokens(LENGTH)
    model = bw.load(directory)
    if model.architecture.context_length < LENGTH:
        ids = ids[: model.architecture.context_length]
    engine = Engine.load(model, activations="fp32", kv_cache="fp32", context=len(ids))
    expected = tiny.reference_logits(directory, ids)
    assert np.abs(engine.logits(ids) - expected).max() < 1e-4
    engine.prefill(ids[:-5])
    for token in ids[-5:]:
        last = engine.decode(token)
    assert np.abs(last - expected[-1]).max() < 1e-4


@pytest.mark.parametrize("scheme", SCHEMES + ODD_SCHEMES)
@pytest.mark.parametrize("case", ["llama", "phi3", "gemma3", "qwen3-moe"])
def test_quantized_logits_are_those_of_the_dequantized_weights(
    case: str, scheme: str, tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    recipe = bw.Recipe.uniform(scheme, head=scheme)
    artifact = bw.quantize(bw.load(tiny_directory(case)), recipe).save(tmp_path / "out")
    ids = tiny.tokens(LENGTH)
    expected = forward(artifact, ids)
    int8_bound = MIXTURE_BOUND if artifact.architecture.experts else INT8_BOUND
    for activations, bound in (("fp32", 1e-9), ("int16", 1e-7), ("int8", int8_bound)):
        engine = Engine.load(artifact, activations=activations, kv_cache="fp32")
        assert mean_kl(expected, engine.logits(ids)) < bound, activations


@pytest.mark.parametrize("isa", _native.supported_isas())
def test_every_instruction_set_gives_the_same_answer(isa: str, tiny_directory: Callable[[str], Path], tmp_path: Path) -> None:
    artifact = bw.quantize(bw.load(tiny_directory("gemma2")), bw.Recipe.uniform("int4-g32")).save(tmp_path / "out")
    code = (
        "import sys, numpy as np; from bitwright.engine import Engine;"
        "engine = Engine.load(sys.argv[1], activations='int16', kv_cache='fp32'); assert engine.isa == sys.argv[3];"
        f"np.save(sys.argv[2], engine.logits({tiny.tokens(LENGTH)}))"
    )
    output = tmp_path / "logits.npy"
    command = [sys.executable, "-c", code, str(artifact.path), str(output), isa]
    subprocess.run(command, env=os.environ | {"BITWRIGHT_ISA": isa}, check=True)
    assert mean_kl(forward(artifact, tiny.tokens(LENGTH)), np.load(output)) < 1e-7


@pytest.mark.parametrize("cache", ["fp16", "int8"])
def test_a_small_cache_changes_little(cache: str, tiny_directory: Callable[[str], Path]) -> None:
    model, ids = bw.load(tiny_directory("qwen3")), tiny.tokens(LENGTH)
    engine = Engine.load(model, activations="fp32", kv_cache=cache)
    exact = Engine.load(model, activations="fp32", kv_cache="fp32")
    assert engine.cache_bytes < exact.cache_bytes
    assert mean_kl(exact.logits(ids), engine.logits(ids)) < {"fp16": 1e-6, "int8": 1e-3}[cache]
