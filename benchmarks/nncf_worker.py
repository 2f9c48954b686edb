"""NNCF behind the protocol of `worker.py`. Run by the interpreter that `openvino_interpreter` makes.

    python benchmarks/nncf_worker.py      answers requests from stdin

A kind is a scheme and what NNCF is to do beside rounding, such as `int4-g64-affine awq scale` or `nf4-g64 gptq`: `scale`
is its scale estimation. It has no types of 3 or 2 bits. The model is optimum-intel's export to OpenVINO, where each matrix
is read back as OpenVINO itself dequantizes it; embedding and head stay as they are.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from export import body, calibration, load_tensors, save_model
from worker import serve

EXPORT = ["--weight-format", "fp32", "--task", "text-generation"]  # without a cache of keys and values


def quantize(source: str, target: str, kind: str) -> None:
    import nncf
    import openvino

    scheme, *ways = kind.split()
    name, group, *rest = scheme.split("-")
    with tempfile.TemporaryDirectory() as directory:
        command = [str(Path(sys.executable).parent / "optimum-cli"), "export", "openvino", "--model", source, *EXPORT, directory]
        subprocess.run(command, env=dict(os.environ) | {"HF_HUB_OFFLINE": "1"}, stdout=sys.stderr, check=True)
        model = openvino.Core().read_model(Path(directory) / "openvino_model.xml")
        windows = calibration()
        compressed = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode["NF4" if name == "nf4" else "INT4_ASYM" if rest == ["affine"] else "INT4_SYM"],
            group_size=int(group[1:]),
            ratio=1.0,
            backup_mode=nncf.BackupMode.NONE,
            dataset=nncf.Dataset([inputs(model, window) for window in windows]),
            subset_size=len(windows),
            awq="awq" in ways,
            scale_estimation="scale" in ways,
            gptq="gptq" in ways,
        )
        tensors = load_tensors(source)
        found = dict(matrices(compressed))
        assert set(found) == set(body(tensors)), "a matrix was not found in OpenVINO's graph"
        save_model(source, target, tensors | found)


def inputs(model: Any, window: Any) -> dict[str, Any]:
    """What the exported model asks for, of one window."""
    tokens = window[None]
    known = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "position_ids": np.arange(len(window))[None]}
    return {name: known[name] for name in (port.get_any_name() for port in model.inputs)}


def matrices(model: Any) -> Iterator[tuple[str, Any]]:
    """Hugging Face name and dequantized values of each matrix of the blocks."""
    import openvino

    for node in model.get_ops():
        place = re.search(r"model\.(layers\.\d+\.\w+\.\w+_proj)/", node.get_friendly_name())
        if place and node.get_type_name() == "MatMul":
            constant = openvino.Model([node.input_value(1)], [])
            folded = openvino.compile_model(constant, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            values = np.array(folded([])[0], np.float32)
            yield f"model.{place[1]}.weight", values if node.get_attributes()["transpose_b"] else values.T


def unsupported(*_: object) -> Any:
    raise NotImplementedError("this peer only quantizes here")


if __name__ == "__main__":
    serve(unsupported, quantize, "nncf")
