"""Who runs against whom: each engine with each model it brings, how it is started, and which bits it is compared at.

A group is measured in turns. `best` is every engine at its best on this machine; where there is AMX, that is llama.cpp with
its AMX path mended, and llama.cpp as it builds without AMX stands beside it. `avx2` is this engine forced to AVX2 beside
llama.cpp built without AVX512. Of llama.cpp all types run that may be its fastest of four bits in that build: Q4_1 is only
with AMX, since no other build repacks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llama_cpp_build import best
from material import artifact_of_twin, gguf_of_twin, peer_of_twin
from worker import Worker, bitwright_worker, llama_cpp_worker, onnxruntime_worker, openvino_worker

OURS, LLAMA = "Bitwright", "llama.cpp"
WITHOUT_AMX = f"{LLAMA} without AMX"
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
            if self.engine in (LLAMA, WITHOUT_AMX):
                return gguf_of_twin(self.kind, worker)
            return peer_of_twin(self.engine.partition(" ")[0].lower(), self.kind, worker)


def _llama_cpp(kinds: dict[str, int], build: str, engine: str = LLAMA) -> tuple[Entry, ...]:
    """Types and their bits, in one build."""
    return tuple(Entry(engine, kind, bits, partial(llama_cpp_worker, build)) for kind, bits in kinds.items())


def _ours(kinds: dict[str, int], isa: str) -> tuple[Entry, ...]:
    return tuple(Entry(OURS, kind, bits, partial(bitwright_worker, isa)) for kind, bits in kinds.items())


REPACKED = {"Q4_0": 4, "IQ4_NL": 4}
FORCED = {"best": "", "avx2": "avx2"}  # group -> the instruction set that ours is forced to, and its ceilings with it
GROUPS: dict[str, tuple[Entry, ...]] = {
    "best": (
        *_ours({"int4-g32": 4, "int4-g64": 4, "int4-g32-srow5": 4, "kmeans4-g64": 4, "any4-g64": 4, "int8-channel": 8}, ""),
        *_llama_cpp(REPACKED | {"Q4_1": 4, "Q8_0": 8}, "best"),
        *(_llama_cpp(REPACKED, "native", WITHOUT_AMX) if best() == "amx" else ()),
        Entry("OpenVINO GenAI", "int4", 4, openvino_worker),
        Entry("OpenVINO GenAI", "int8", 8, openvino_worker),
        Entry("ONNX Runtime GenAI", "int4", 4, onnxruntime_worker),
    ),
    "avx2": (
        *_ours({"int4-g64": 4, "int4-g32-srow5": 4, "int8-channel": 8}, "avx2"),
        *_llama_cpp(REPACKED | {"Q8_0": 8}, "avx2"),
    ),
}
