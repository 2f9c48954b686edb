"""llama.cpp as a peer: built once from PyPI's source distribution into a cached virtual environment of its own.

    python benchmarks/llama_cpp_build.py [avx2]    builds it (about ten minutes of one core) and prints its interpreter

`native` is the stock build for this machine (GGML_NATIVE, OpenMP), with one exception: AMX is left out, because g++ 12
drops the stores to the tile configuration there and every quantized type crashes. `avx2` is the same without AVX512.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from peers import environment

VERSION = "0.3.36"
READERS = ["gguf==0.19.0", "safetensors==0.8.0"]  # for what methods.py asks of it
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
AVX2 = " ".join(f"-DGGML_{name}=ON" for name in ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2"))
BUILDS: dict[str, dict[str, str]] = {
    "native": {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF", "CFLAGS": NO_AMX, "CXXFLAGS": NO_AMX},
    "avx2": {"CMAKE_ARGS": f"-DGGML_NATIVE=OFF -DGGML_AVX512=OFF {AVX2} -DLLAVA_BUILD=OFF"},
}


def interpreter(build: str = "native") -> Path:
    """The Python that has llama_cpp; builds it on the first call."""
    name = f"llama-cpp-python-{VERSION}" + ("" if build == "native" else f"-{build}")
    source = os.environ.get("BITWRIGHT_LLAMA_CPP_SDIST", f"llama-cpp-python=={VERSION}")
    jobs = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
    return environment(name, [["--no-binary", "llama-cpp-python", source], READERS], jobs | BUILDS[build])


if __name__ == "__main__":
    print(interpreter(*sys.argv[1:]))
