"""What a model whose tensors stand in lines of a manifest, or will, says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from bitwright.artifact.manifest import StoredTensor
from bitwright.core import Floats
from bitwright.models.base import Dense, Packed


class OfLines(ABC):
    """The part of a `LanguageModel` that follows from how its tensors are stored."""

    @abstractmethod
    def lines(self, name: str) -> list[StoredTensor]:
        """How the blocks of a matrix are stored, or the whole where it has none."""

    @abstractmethod
    def stored(self, name: str) -> Packed | Dense: ...

    def read(self, name: str) -> Floats:
        return self.stored(name).dequantize()

    def stored_bits(self, name: str) -> int:
        return sum(line.stored_bits for line in self.lines(name))

    def scheme_of(self, name: str) -> str:
        return " + ".join(dict.fromkeys(str(line.scheme) for line in self.lines(name)))

    def rotation_of(self, name: str) -> int:
        """Columns in a block of the Hadamard rotation that the codes are of; 0 for none, or not in all its rows."""
        return min(line.rotation for line in self.lines(name))
