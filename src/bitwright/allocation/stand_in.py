"""A model of a given shape whose matrices are random: what the engine is timed on. All are stored alike, or as a plan says.

Speed does not depend on the weights' values, so a few rows are quantized as a real matrix would be, and repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.core import Choice, Floats, Scheme
from bitwright.models.architecture import LAYER_MATRICES, MODEL_MATRICES, Architecture, TensorSlice
from bitwright.models.base import PARTS, Dense, LanguageModel, Packed
from bitwright.models.row_blocks import Stacked, block_names, rows_in
from bitwright.quantization.matrix import quantize_matrix

SAMPLE_ROWS = 16  # that are quantized: a panel of the engine's
LARGEST_WEIGHTS = 200_000_000  # of a stand-in with fewer layers than the model: far beyond every cache


def role_shapes(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of each matrix of a layer, and of the head."""
    a = architecture
    wide, narrow = a.heads * a.head_dim, a.kv_heads * a.head_dim
    return {
        "q": (wide, a.hidden_size),
        "k": (narrow, a.hidden_size),
        "v": (narrow, a.hidden_size),
        "o": (a.hidden_size, wide),
        "gate": (a.intermediate_size, a.hidden_size),
        "up": (a.intermediate_size, a.hidden_size),
        "down": (a.hidden_size, a.intermediate_size),
        "head": (a.vocab_size, a.hidden_size),
    }


def sample_of(scheme: Scheme, columns: int, rotated: bool) -> Packed | Dense:
    """SAMPLE_ROWS random rows as `scheme` stores them. Raises `SchemeError` where its group does not divide the row."""
    weights = np.random.default_rng(0).standard_normal((SAMPLE_ROWS, columns), np.float32) / np.float32(np.sqrt(columns))
    scheme.group_size((SAMPLE_ROWS, columns))
    return quantize_matrix("a sample", Dense("fp32", weights), Choice("*", scheme, "nearest", "minmax", rotate=rotated))


def repeated(sample: Packed | Dense, rows: int) -> Packed | Dense:
    """The sample's rows again and again, up to `rows` of them; what a tensor has one of stays one."""
    times = -(-rows // SAMPLE_ROWS)

    def tiled(array: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        if array is None or len(array) == 1:
            return array
        return np.tile(array, (times, *[1] * (array.ndim - 1)))[: len(array) // SAMPLE_ROWS * rows]

    if isinstance(sample, Dense):
        values = tiled(sample.values)
        assert values is not None
        return Dense(sample.dtype, values)
    fields: dict[str, Any] = {name: tiled(getattr(sample, name)) for name in ("codes", *PARTS)}
    return replace(sample, shape=(rows, sample.shape[1]), **fields)


class StandIn:
    """A `LanguageModel` as far as the engine looks at one: no file, no tokenizer, embedding and head tied."""

    def __init__(self, architecture: Architecture, scheme: Scheme, rotated: bool) -> None:
        """As many layers as `architecture` has, or fewer where that is enough to be read from memory, not from a cache."""
        shapes = role_shapes(architecture)
        head = shapes["head"][0] * shapes["head"][1]
        layer = sum(shapes[role][0] * shapes[role][1] for role in LAYER_MATRICES)
        layers = min(architecture.layers, max(2, (LARGEST_WEIGHTS - head) // layer))
        self.architecture = replace(
            architecture,
            layers=layers,
            rope_of_layer=architecture.rope_of_layer[:layers],
            window_of_layer=architecture.window_of_layer[:layers],
            tied_head=True,
        )
        self.path = Path(f"a stand-in of {scheme}")
        self.scheme, self.rotated = scheme, rotated

    def roles(self) -> dict[tuple[str, int], TensorSlice]:
        """Tensors are named by their roles; those of all layers are the same."""
        a = self.architecture
        vectors = ["attention_norm", "mlp_norm"] + (["q_norm", "k_norm"] if a.qk_norm else [])
        vectors += ["post_attention_norm", "post_mlp_norm"] if a.post_norms else []
        places = {(role, layer): TensorSlice(role) for layer in range(a.layers) for role in (*LAYER_MATRICES, *vectors)}
        top = {(role, -1): TensorSlice("head") for role in MODEL_MATRICES}
        return {**places, **top, ("final_norm", -1): TensorSlice("final_norm")}

    def stored(self, name: str) -> Packed | Dense:
        if name in self._matrices:
            return self._matrices[name]
        size = self.architecture.head_dim if name in ("q_norm", "k_norm") else self.architecture.hidden_size
        return Dense("fp32", np.ones(size, np.float32))

    def read(self, name: str) -> Floats:
        return self.stored(name).dequantize()

    def fingerprint(self) -> str:
        return str(self.path)

    @cached_property
    def _matrices(self) -> dict[str, Packed | Dense]:
        shapes = role_shapes(self.architecture)
        samples = {columns: sample_of(self.scheme, columns, self.rotated) for columns in {shape[1] for shape in shapes.values()}}
        return {role: repeated(samples[columns], rows) for role, (rows, columns) in shapes.items()}


class MixedStandIn:
    """The same for a whole plan: every matrix and block of rows that `choices` names is stored as its choice says, all else is
    the model's own.
    """

    def __init__(self, model: LanguageModel, choices: Mapping[str, Choice]) -> None:
        self.architecture, self.path = model.architecture, Path("a stand-in of a plan")
        self._model, self._choices, self._blocks = model, choices, block_names(choices)
        self._alike: dict[tuple[Scheme, bool, int, int], Packed | Dense] = {}

    def roles(self) -> Mapping[tuple[str, int], TensorSlice]:
        return self._model.roles()

    def stored(self, name: str) -> Packed | Dense:
        columns = self._model.shape(name)[-1]
        if name in self._blocks:
            return Stacked([self._rows(block, rows_in(block)[1] - rows_in(block)[0], columns) for block in self._blocks[name]])
        return self._rows(name, self._model.shape(name)[0], columns) if name in self._choices else self._model.stored(name)

    def read(self, name: str) -> Floats:
        return self.stored(name).dequantize()

    def fingerprint(self) -> str:
        return str(self.path)

    def _rows(self, name: str, rows: int, columns: int) -> Packed | Dense:
        """What is stored alike is held once: layers repeat each other."""
        choice = self._choices[name]
        key = choice.scheme, choice.rotate, rows, columns
        if key not in self._alike:
            self._alike[key] = repeated(sample_of(choice.scheme, columns, choice.rotate), rows)
        return self._alike[key]
