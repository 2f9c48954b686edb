"""What the benchmarks measure on: the twin of SmolLM2, and its quantized forms by each engine's own quantizer.

The twin and llama.cpp's files are made once, in ~/.cache/bitwright-benchmarks (or where BITWRIGHT_BENCHMARKS says).
Bitwright's own are made anew in every run, so that they are always today's code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from worker import Worker

HERE = Path(__file__).resolve().parent
TEXT = HERE.parent.parent / "shared/data/text/wikitext2_valid.txt"
TWIN_GGUF = "twin-f16.gguf"


def home() -> Path:
    place = Path(os.environ.get("BITWRIGHT_BENCHMARKS", Path.home() / ".cache" / "bitwright-benchmarks"))
    place.mkdir(parents=True, exist_ok=True)
    return place


def twin() -> Path:
    """The Hugging Face directory of the twin, its f16 GGUF beside it."""
    directory = home() / "twin"
    if not (home() / "twin-complete").exists():
        subprocess.run([sys.executable, HERE / "make_twin.py", directory, "--gguf", home() / TWIN_GGUF], check=True)
        (home() / "twin-complete").touch()
    return directory


def gguf_of_twin(kind: str, worker: Worker) -> Path:
    """The twin in a llama.cpp type, by its own quantizer."""
    twin()
    path = home() / f"twin-{kind}.gguf"
    if not path.exists():
        worker.ask("quantize", source=str(home() / TWIN_GGUF), target=str(path) + ".partial", kind=kind)
        Path(str(path) + ".partial").rename(path)
    return path


def peer_of_twin(name: str, kind: str, worker: Worker) -> Path:
    """The twin as the directory that a peer's own exporter makes of it: `name` is the peer's, `kind` int4 or int8."""
    path = home() / f"twin-{name}-{kind}"
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        worker.ask("quantize", source=str(twin()), target=str(partial), kind=kind)
        partial.rename(path)
    return path


def artifact_of_twin(scheme: str, directory: Path, worker: Worker) -> Path:
    """The twin in one of Bitwright's schemes, nearest rounding with the MSE fit, made under `directory`."""
    path = directory / scheme
    if not path.exists():
        worker.ask("quantize", source=str(twin()), target=str(path), kind=scheme)
    return path
