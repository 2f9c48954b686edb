"""Memory that running a model takes, known before it is made.

    process   the interpreter, its libraries, the tokenizer: measured in a process of its own
    file      the artifact, mapped while its weights are repacked: the system counts what was read of it
    weights   every matrix in the engine's own layout: exact, since a panel of 16 rows is repacked and the rest are its like
    kv_cache  spans of 256 positions: exact
    buffers   rows of a prompt, and what threads own: as the engine says

The peak of a run is about their sum; what the allocator and huge pages round up comes on top.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from bitwright import _native
from bitwright.allocation.stand_in import SAMPLE_ROWS, role_shapes, sample_of
from bitwright.core import Scheme
from bitwright.engine.weights import empty_model, only_embedding
from bitwright.models.architecture import Architecture
from bitwright.models.base import Dense, LanguageModel, Packed
from bitwright.models.rope import inverse_frequencies

_PROCESS = """
import sys
from pathlib import Path
from bitwright.engine import Engine
from bitwright.errors import TokenizerError
from bitwright.models import load
try:
    tokenizer = load(sys.argv[1]).tokenizer()
except TokenizerError:
    tokenizer = None
pages = int(Path("/proc/self/statm").read_text().split()[1])
import resource
print(pages * resource.getpagesize())
"""

_WHOLE_CONTEXT = """
import sys
from bitwright.analysis.memory import peak_rss_bytes
from bitwright.engine import Engine
from bitwright.errors import TokenizerError
from bitwright.models import load
model, threads, context = load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
try:
    tokenizer = model.tokenizer()
except TokenizerError:
    tokenizer = None
Engine.load(model, threads=threads, context=context).prefill([0] * context)
print(peak_rss_bytes())
"""


@dataclass(frozen=True)
class Running:
    """How a model is to be run."""

    context: int
    threads: int
    kv_cache: str = "fp16"
    activations: str = "int8"


@dataclass(frozen=True)
class Memory:
    """Bytes; see the module."""

    process: int
    file: int
    weights: int
    kv_cache: int
    buffers: int

    @property
    def peak(self) -> int:
        return self.process + self.file + self.weights + self.kv_cache + self.buffers


def matrix_bytes(scheme: Scheme, shape: Sequence[int], rotated: bool = True) -> int:
    """Of one matrix (outputs, inputs) in the engine's layout, exactly. Raises `SchemeError` where the group does not fit."""
    return _panel_bytes(scheme, int(shape[-1]), rotated) * -(-int(shape[0]) // SAMPLE_ROWS)


def running_memory(model: LanguageModel, running: Running, file_bytes: int) -> Memory:
    """Of a model that is stored; `file_bytes` of tensors are mapped while it is loaded."""
    return Memory(
        process_bytes(model.path),
        file_bytes,
        weight_bytes(model),
        cache_bytes(model.architecture, running),
        buffer_bytes(model.architecture, running),
    )


def weight_bytes(model: LanguageModel) -> int:
    """Of all matrices of a stored model in the engine's layout; a head that is the embedding too counts once."""
    shapes, roles = role_shapes(model.architecture), model.roles()
    total = 0
    for (role, _), part in roles.items():
        if (role in shapes and part != roles["embedding", -1]) or role == "embedding":
            stored = model.stored(part.name)
            rotated = isinstance(stored, Packed) and stored.rotation > 0
            scheme = stored.scheme if isinstance(stored, Packed) else Scheme(stored.dtype)
            total += matrix_bytes(scheme, shapes["head" if role == "embedding" else role], rotated)
    return total


def cache_bytes(architecture: Architecture, running: Running) -> int:
    """Of the keys and values of a full context."""
    native = empty_model(architecture)
    for layer in range(architecture.layers):
        native.add_layer(0, architecture.window_of_layer[layer])
    return int(_native.Sequence(native, running.context, running.kv_cache).cache_bytes(running.context))


def buffer_bytes(architecture: Architecture, running: Running) -> int:
    """Of the engine's rows and threads, which depend on the model's widths alone: those of a model without layers."""
    native = empty_model(architecture)
    native.vocabulary = SAMPLE_ROWS
    for rope in architecture.ropes:
        frequencies, factor = inverse_frequencies(rope, running.context)
        native.add_rope(frequencies.tolist(), factor)
    only_embedding(native, Dense("fp16", np.zeros((SAMPLE_ROWS, architecture.hidden_size), np.float16)))
    native.set_vector("final_norm", -1, np.ones(architecture.hidden_size, np.float32))
    logits = 4 * architecture.vocab_size
    return int(_native.Session(native, running.threads, running.activations).buffer_bytes) + logits


def process_bytes(model: Path) -> int:
    """Resident bytes of a process that has loaded the engine and the model's tokenizer, but no weights."""
    done = subprocess.run([sys.executable, "-c", _PROCESS, str(model)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def true_peak(model: Path, running: Running) -> int:
    """Peak resident bytes of a process that fills the whole context of a stored model, with its own runtime settings."""
    command = [sys.executable, "-c", _WHOLE_CONTEXT, str(model), str(running.threads), str(running.context)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@lru_cache(maxsize=256)
def _panel_bytes(scheme: Scheme, columns: int, rotated: bool) -> int:
    """Of one panel of 16 rows: a model that is nothing but such an embedding reads it for a token."""
    native = _native.Model()
    native.hidden, native.vocabulary = columns, SAMPLE_ROWS
    only_embedding(native, sample_of(scheme, columns, rotated))
    return int(native.bytes_per_token)
