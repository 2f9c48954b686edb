"""Where peers live: each in a virtual environment of its own, made once by whoever needs it, every version pinned.

The environments lie in ~/.cache/bitwright-peers, or where BITWRIGHT_PEERS says; one that is complete holds a file of that
name. Versions that pip chose by itself are recorded in `versions.txt` there.

    python benchmarks/peers.py      makes those of OpenVINO and ONNX Runtime, and prints their interpreters
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TORCH = "torch==2.13.0"
TORCH_CPU = "torch==2.13.0+cpu"  # where a peer would bring CUDA's libraries by itself
AUTO_ROUND_VERSION, GPTQMODEL_VERSION, HQQ_VERSION = "0.16.1", "7.6.0", "0.2.8.post1"
LLM_COMPRESSOR_VERSION, NNCF_VERSION = "0.14.0.1", "3.4.0"
# By itself optimum-intel would bring a torchvision that may not fit the torch that is there.
OPENVINO = [
    [TORCH, "openvino==2026.4.1", "openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0", f"nncf=={NNCF_VERSION}"],
    ["transformers==5.5.4", "huggingface-hub<1.22", "requests", "setuptools"],
    ["--no-deps", "optimum==2.3.0", "optimum-intel==2.2.0"],
]
ONNXRUNTIME = [
    [TORCH, "onnxruntime-genai==0.18.0", "onnxruntime==1.32.0", "onnx==1.23.2", "onnx-ir==1.1.0", "transformers==5.23.0"]
]

# Setuptools are asked for because HQQ and GPTQModel build themselves from source.
HQQ = [[TORCH_CPU, "setuptools", "numpy"], [f"hqq=={HQQ_VERSION}", TORCH_CPU]]
LLM_COMPRESSOR = [[TORCH_CPU], [f"llmcompressor=={LLM_COMPRESSOR_VERSION}", TORCH_CPU]]
AUTO_ROUND = [[TORCH_CPU], [f"auto-round=={AUTO_ROUND_VERSION}", TORCH_CPU]]
GPTQMODEL = [[TORCH_CPU, "setuptools", "numpy"], [f"gptqmodel=={GPTQMODEL_VERSION}", TORCH_CPU]]


def hqq_interpreter() -> Path:
    return environment(f"hqq-{HQQ_VERSION}", HQQ)


def llm_compressor_interpreter() -> Path:
    return environment(f"llm-compressor-{LLM_COMPRESSOR_VERSION}", LLM_COMPRESSOR)


def auto_round_interpreter() -> Path:
    return environment(f"auto-round-{AUTO_ROUND_VERSION}", AUTO_ROUND)


def gptqmodel_interpreter() -> Path:
    return environment(f"gptqmodel-{GPTQMODEL_VERSION}", GPTQMODEL)


def openvino_interpreter() -> Path:
    return environment("openvino-genai-2026.4.1", OPENVINO)


def onnxruntime_interpreter() -> Path:
    return environment("onnxruntime-genai-0.18.0", ONNXRUNTIME)


Installs = Sequence[Sequence[str]]


def environment(name: str, installs: Installs | Callable[[], Installs], variables: Mapping[str, str] | None = None) -> Path:
    """The Python of peer `name`. `installs` are what `pip install` is called with, in order, the first time, or make it."""
    home = Path(os.environ.get("BITWRIGHT_PEERS", Path.home() / ".cache" / "bitwright-peers"))
    place = home / name
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        print(f"making {place}: this takes minutes, once", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        for arguments in installs() if callable(installs) else installs:
            install = [str(python), "-m", "pip", "install", "-q", *arguments]
            subprocess.run(install, env=dict(os.environ) | dict(variables or {}), check=True)
        frozen = subprocess.run([str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
        (place / "versions.txt").write_text(frozen, "utf-8")
        (place / "complete").touch()
    return python


if __name__ == "__main__":
    print(openvino_interpreter(), onnxruntime_interpreter(), sep="\n")
