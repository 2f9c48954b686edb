"""llama.cpp as a peer: built once from PyPI's source distribution into a cached virtual environment of its own.

    python benchmarks/llama_cpp_build.py          builds it (about ten minutes of one core) and prints its interpreter

The build is the stock one for this machine (GGML_NATIVE, OpenMP), with one exception: AMX is left out, because g++ 12
drops the stores to the tile configuration there and every quantized type crashes. The environment lives in
~/.cache/bitwright-peers, or where BITWRIGHT_PEERS says.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

VERSION = "0.3.36"
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF", "CFLAGS": NO_AMX, "CXXFLAGS": NO_AMX}


def interpreter() -> Path:
    """The Python that has llama_cpp; builds it on the first call."""
    home = Path(os.environ.get("BITWRIGHT_PEERS", Path.home() / ".cache" / "bitwright-peers"))
    place = home / f"llama-cpp-python-{VERSION}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        _build(place, python)
    return python


def _build(place: Path, python: Path) -> None:
    print(f"building llama-cpp-python {VERSION} into {place}: this takes about ten minutes, once", file=sys.stderr)
    venv.create(place, with_pip=True, clear=True)
    source = os.environ.get("BITWRIGHT_LLAMA_CPP_SDIST", f"llama-cpp-python=={VERSION}")
    jobs = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
    install = [str(python), "-m", "pip", "install", "-q", "--no-binary", "llama-cpp-python", source]
    subprocess.run(install, env=jobs | dict(os.environ) | BUILD, check=True)
    (place / "complete").touch()


if __name__ == "__main__":
    print(interpreter())
