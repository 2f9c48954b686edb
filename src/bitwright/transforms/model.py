"""A model with some of its tensors changed, which looks to everybody like any other `LanguageModel`.

Changes are made when a tensor is asked for, so that memory holds one tensor and not the model. Changed tensors are fp32,
because they are on their way to be quantized, and nothing should be lost before that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitwright.models.architecture import TensorSlice
from bitwright.models.base import Dense, LanguageModel, Packed
from bitwright.models.families import FAMILIES

if TYPE_CHECKING:
    from bitwright.models.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Edit:
    """What happens to the rows of a tensor that play one role: `change` takes and gives float32 of the same shape."""

    role: str
    layer: int
    change: Callable[[Floats], Floats]


class TransformedModel:
    """`source` with the edits that `find` gives, which is asked once, when the first tensor is read.

    `identity` stands for the edits in the fingerprint. With `untied`, a head that was the embedding is a tensor of its own.
    """

    def __init__(self, source: LanguageModel, identity: str, find: Callable[[], Sequence[Edit]], untied: bool = False) -> None:
        self.source, self.path, self._identity, self._find = source, source.path, identity, find
        self._head = FAMILIES[source.architecture.family].tensors["head"] if untied and source.architecture.tied_head else ""
        self.architecture = replace(source.architecture, tied_head=False) if self._head else source.architecture
        own = {("head", -1): TensorSlice(self._head)} if self._head else {}
        self._roles = dict(source.roles()) | own

    def prepare(self) -> None:
        """Find the edits now, those of the source first."""
        if isinstance(self.source, TransformedModel):
            self.source.prepare()
        assert self._edits is not None

    def names(self) -> Sequence[str]:
        return (*self.source.names(), self._head) if self._head else self.source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.source.shape(self._original(name))

    def stored(self, name: str) -> Packed | Dense:
        tensor, edits = self.source.stored(self._original(name)), self._edits.get(name)
        if edits is None:
            return tensor
        values = np.array(tensor.dequantize())
        for place, edit in edits:
            rows = slice(place.begin, place.end if place.end >= 0 else None)
            values[rows] = edit.change(values[rows])
        return Dense("fp32", values)

    def unedited(self, name: str) -> Packed | Dense:
        """The tensor before these and all earlier edits, which are not looked for."""
        name = self._original(name)
        return self.source.unedited(name) if isinstance(self.source, TransformedModel) else self.source.stored(name)

    def read(self, name: str) -> Floats:
        return self.stored(name).dequantize()

    def stored_bits(self, name: str) -> int:
        if name in self._edits:
            return 32 * int(np.prod(self.shape(name), dtype=np.int64))
        return self.source.stored_bits(self._original(name))

    def scheme_of(self, name: str) -> str:
        return "fp32" if name in self._edits else self.source.scheme_of(self._original(name))

    def roles(self) -> Mapping[tuple[str, int], TensorSlice]:
        return dict(self._roles)

    def tokenizer(self) -> Tokenizer:
        return self.source.tokenizer()

    def config(self) -> dict[str, Any]:
        return self.source.config() | ({"tie_word_embeddings": False} if self._head else {})

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.source.fingerprint()} {self._identity}".encode()).hexdigest()[:16]

    def _original(self, name: str) -> str:
        """The name in the source: an untied head begins as the embedding."""
        return self.source.roles()["head", -1].name if name and name == self._head else name

    @cached_property
    def _edits(self) -> dict[str, list[tuple[TensorSlice, Edit]]]:
        """By tensor."""
        found: dict[str, list[tuple[TensorSlice, Edit]]] = {}
        for edit in self._find():
            place = self._roles[edit.role, edit.layer]
            found.setdefault(place.name, []).append((place, edit))
        return found


def part(model: LanguageModel, role: str, layer: int) -> Floats:
    """The rows of a tensor that play a role, float32."""
    place = model.roles()[role, layer]
    return model.read(place.name)[place.begin : place.end if place.end >= 0 else None]
