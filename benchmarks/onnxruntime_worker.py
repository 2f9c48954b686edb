"""ONNX Runtime GenAI behind the protocol of `worker.py`. Run by the interpreter that `onnxruntime_interpreter` makes.

    python benchmarks/onnxruntime_worker.py      answers requests from stdin

The model comes from its own builder: 4-bit weights in symmetric groups of 64, int8 activations (accuracy level 4), which
is its fastest on a CPU.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import onnxruntime_genai as api

from worker import Tokens, Verb, serve

EXTRA = ["int4_block_size=64", "int4_accuracy_level=4", "int4_is_symmetric=true"]


class OnnxRuntime:
    """One loaded model. All sizes are tokens."""

    def __init__(self, path: str, threads: int) -> None:
        config = api.Config(path)
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self.model = api.Model(config)

    def generator(self, length: int) -> Any:
        """One that writes up to `length` tokens in all, greedily, and does not stop before."""
        parameters = api.GeneratorParams(self.model)
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        return api.Generator(self.model, parameters)


def prefill(session: OnnxRuntime, tokens: Tokens) -> dict[str, Any]:
    generator = session.generator(len(tokens) + 1)
    begin = time.perf_counter()
    generator.append_tokens(np.array(tokens, np.int32))
    generator.generate_next_token()  # picks the first token: nothing is run
    return {"seconds": time.perf_counter() - begin}


def decode(session: OnnxRuntime, prompt: Tokens, steps: int) -> dict[str, Any]:
    generator = session.generator(len(prompt) + steps + 1)
    generator.append_tokens(np.array(prompt, np.int32))
    generator.generate_next_token()
    begin = time.perf_counter()
    for _ in range(steps):
        generator.generate_next_token()
    return {"seconds": time.perf_counter() - begin}


def quantize(source: str, target: str, kind: str) -> None:
    """`kind` is int4."""
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", source, "-o", target, "-p", kind]
        command += ["-e", "cpu", "-c", cache, "--extra_options", *EXTRA]
        subprocess.run(command, stdout=sys.stderr, check=True)


if __name__ == "__main__":
    own: dict[str, Verb] = {"prefill": prefill, "decode": decode}
    serve(lambda model, threads, *_: OnnxRuntime(model, threads), quantize, "onnxruntime", own)
