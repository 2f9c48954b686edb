"""OpenVINO GenAI behind the protocol of `worker.py`. Run by the interpreter that `openvino_interpreter` makes.

    python benchmarks/openvino_worker.py      answers requests from stdin

The model is OpenVINO's own export (optimum-intel) with NNCF's weight compression, and runs in its own pipeline: a prefill
is a generation of one token, decoding is timed by the pipeline's own clock, between the first token and the last.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from worker import Tokens, serve

EXPORT = {"int4": ["--weight-format", "int4", "--group-size", "64", "--ratio", "1.0"], "int8": ["--weight-format", "int8"]}


class OpenVINO:
    """One loaded pipeline. All sizes are tokens."""

    def __init__(self, path: str, threads: int) -> None:
        from openvino_genai import LLMPipeline

        self.pipeline = LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)

    def generate(self, tokens: Tokens, count: int) -> Any:
        """Exactly `count` tokens after these, greedily."""
        from openvino import Tensor
        from openvino_genai import GenerationConfig

        settings = GenerationConfig(max_new_tokens=count, min_new_tokens=count, ignore_eos=True, do_sample=False)
        return self.pipeline.generate(Tensor(np.array([tokens], np.int64)), settings)


def prefill(session: OpenVINO, tokens: Tokens) -> dict[str, Any]:
    begin = time.perf_counter()
    session.generate(tokens, 1)
    return {"seconds": time.perf_counter() - begin}


def decode(session: OpenVINO, prompt: Tokens, steps: int) -> dict[str, Any]:
    milliseconds_a_token = session.generate(prompt, steps + 1).perf_metrics.get_tpot().mean
    return {"seconds": milliseconds_a_token * steps / 1000}


def quantize(source: str, target: str, kind: str) -> None:
    """Symmetric weights: int4 in groups of 64 (embedding and head in 8 bits), or int8 by channel."""
    command = [str(Path(sys.executable).parent / "optimum-cli"), "export", "openvino", "--model", source, "--sym"]
    command += ["--task", "text-generation-with-past", *EXPORT[kind], target]
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(command, env=dict(os.environ) | {"HF_HUB_OFFLINE": "1"}, stdout=sys.stderr, check=True)


if __name__ == "__main__":
    serve(lambda model, threads, *_: OpenVINO(model, threads), quantize, "openvino", {"prefill": prefill, "decode": decode})
