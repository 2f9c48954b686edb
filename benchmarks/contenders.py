"""Who runs against whom: each engine with each model it brings, how it is started, and which bits it is compared at.

A group is measured in turns. `best` is every engine at its best on this machine (llama.cpp's AMX mended, where there is
AMX); `avx2` is this engine forced to AVX2 beside llama.cpp built without AVX512.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bitwright import _native
from material import artifact_of_twin, gguf_of_twin, peer_of_twin
from worker import Worker, bitwright_worker, llama_cpp_worker, onnxruntime_worker, openvino_worker

PROMPT, AFTER, STEPS = 512, 16, 128  # tokens
CEILING_SECONDS = 0.1  # of measuring what the machine allows, for each
OURS = "Bitwright"
Start = Callable[[], Worker]


@dataclass(frozen=True)
class Entry:
    """One engine with one kind of model, of `bits` a weight; scales come on top."""

    engine: str
    kind: str
    bits: int
    start: Start

    @property
    def name(self) -> str:
        return f"{self.engine} {self.kind}"

    def model(self, directory: Path) -> Path:
        """The twin as this engine's own quantizer makes it; ours goes under `directory`."""
        with self.start() as worker:
            if self.engine == OURS:
                return artifact_of_twin(self.kind, directory, worker)
            if self.engine == "llama.cpp":
                return gguf_of_twin(self.kind, worker)
            return peer_of_twin(self.engine.partition(" ")[0].lower(), self.kind, worker)


GROUPS: dict[str, tuple[Entry, ...]] = {
    "best": (
        Entry(OURS, "int4-g32", 4, bitwright_worker),
        Entry(OURS, "int4-g64", 4, bitwright_worker),
        Entry(OURS, "int4-g32-srow5", 4, bitwright_worker),
        Entry(OURS, "kmeans4-g64", 4, bitwright_worker),
        Entry(OURS, "any4-g64", 4, bitwright_worker),
        Entry(OURS, "int8-channel", 8, bitwright_worker),
        Entry("llama.cpp", "Q4_0", 4, partial(llama_cpp_worker, "best")),
        Entry("llama.cpp", "Q4_1", 4, partial(llama_cpp_worker, "best")),
        Entry("llama.cpp", "IQ4_NL", 4, partial(llama_cpp_worker, "best")),
        Entry("llama.cpp", "Q8_0", 8, partial(llama_cpp_worker, "best")),
        Entry("OpenVINO GenAI", "int4", 4, openvino_worker),
        Entry("OpenVINO GenAI", "int8", 8, openvino_worker),
        Entry("ONNX Runtime GenAI", "int4", 4, onnxruntime_worker),
    ),
    "avx2": (
        Entry(OURS, "int4-g64", 4, partial(bitwright_worker, "avx2")),
        Entry(OURS, "int8-channel", 8, partial(bitwright_worker, "avx2")),
        Entry("llama.cpp", "Q4_0", 4, partial(llama_cpp_worker, "avx2")),
        Entry("llama.cpp", "Q8_0", 8, partial(llama_cpp_worker, "avx2")),
    ),
}


@dataclass
class Contender:
    """An entry that is loaded. Speeds are tokens per second, one a round; `weight_bytes` is what a token of ours reads."""

    entry: Entry
    path: Path
    worker: Worker
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    weight_bytes: int | None = None
    peak_rss_bytes: int = 0
    bandwidth: list[float] = field(default_factory=list)  # bytes/s that the machine reads from as many bytes, beside each round
    peak: list[float] = field(default_factory=list)  # int8 operations/s

    def load(self, threads: int) -> None:
        answer = self.worker.ask("load", model=str(self.path), threads=threads, context=PROMPT, activations="int8")
        self.weight_bytes = answer["weight_bytes"]

    def measure(self, tokens: Sequence[int]) -> None:
        self.prefill.append(PROMPT / self.worker.ask("prefill", tokens=tokens)["seconds"])
        answer = self.worker.ask("decode", prompt=tokens[:AFTER], steps=STEPS)
        self.decode.append(STEPS / answer["seconds"])
        self.peak_rss_bytes = answer["peak_rss_bytes"]

    def measure_ceilings(self, threads: int) -> None:
        """Of this very moment; for a contender of ours alone."""
        if self.weight_bytes is None:
            return
        self.bandwidth.append(_native.read_bandwidth(self.weight_bytes, threads, CEILING_SECONDS))
        self.peak.append(_native.matrix_peak("int8", threads, CEILING_SECONDS))


def file_bytes(model: Path) -> int:
    """Of the files that hold weights."""
    if model.is_file():
        return model.stat().st_size
    kinds = ("*.safetensors", "openvino_model.bin", "*.onnx", "*.onnx.data")
    return sum(path.stat().st_size for kind in kinds for path in model.glob(kind))
