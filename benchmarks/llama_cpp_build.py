"""llama.cpp as a peer: built once from PyPI's source distribution into a cached virtual environment of its own.

    python benchmarks/llama_cpp_build.py [amx|avx2]    builds it (about ten minutes of one core) and prints its interpreter

`native` is the stock build for this machine (GGML_NATIVE, OpenMP), with one exception: AMX is left out, because g++ 12
drops the stores to the tile configuration there and every quantized type crashes. `amx` has it, mended by one line that
keeps those stores. `avx2` is the same without AVX512: the stock build, where the machine has none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from peers import environment

VERSION = "0.3.36"
READERS = ["gguf==0.19.0", "safetensors==0.8.0"]  # for what methods.py asks of it
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
AVX2 = " ".join(f"-DGGML_{name}=ON" for name in ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2"))
BUILDS: dict[str, dict[str, str]] = {
    "native": {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF", "CFLAGS": NO_AMX, "CXXFLAGS": NO_AMX},
    "amx": {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"},
    "avx2": {"CMAKE_ARGS": f"-DGGML_NATIVE=OFF -DGGML_AVX512=OFF {AVX2} -DLLAVA_BUILD=OFF"},
}


TILES = "vendor/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp"
LOAD = "    _tile_loadconfig(&tc);\n"
KEEP = '    asm volatile("" : : "r"(&tc) : "memory");\n'  # the configuration is in memory before it is loaded


def interpreter(build: str = "native") -> Path:
    """The Python that has llama_cpp; builds it on the first call."""
    if build == "avx2" and "avx512f" not in flags():
        build = "native"
    name = f"llama-cpp-python-{VERSION}" + ("" if build == "native" else f"-{build}")
    source = os.environ.get("BITWRIGHT_LLAMA_CPP_SDIST", f"llama-cpp-python=={VERSION}")
    variables = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)} | BUILDS[build]
    if build != "amx":
        return environment(name, [["--no-binary", "llama-cpp-python", source], READERS], variables)
    with tempfile.TemporaryDirectory() as directory:
        return environment(name, lambda: [[str(mended(source, Path(directory)))], READERS], variables)


def best() -> str:
    """The build that is fastest on this machine."""
    return "amx" if {"amx_int8", "amx_bf16"} <= flags() else "native"


def flags() -> set[str]:
    """What this machine's processor can do, as Linux names it."""
    cpus = Path("/proc/cpuinfo")
    return set(cpus.read_text("utf-8").split()) if cpus.exists() else set()


def mended(source: str, directory: Path) -> Path:
    """The source distribution unpacked under `directory`, its tile configuration safe from the compiler."""
    archive = Path(source)
    if not archive.is_file():
        options = ["-q", "--no-deps", "--no-binary", ":all:", "-d", str(directory)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, source], check=True)
        archive = next(directory.glob("*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(directory, filter="data")
    tree = next(path for path in directory.iterdir() if path.is_dir())
    text = (tree / TILES).read_text("utf-8")
    if text.count(LOAD) != 1:
        raise SystemExit(f"{TILES} of {source} is not the one that this mends")
    (tree / TILES).write_text(text.replace(LOAD, KEEP + LOAD), "utf-8")
    return tree


if __name__ == "__main__":
    print(interpreter(*sys.argv[1:]))
