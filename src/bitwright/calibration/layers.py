"""Rounding each layer by the inputs that the walk shows: what stands between the walk and the methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bitwright.calibration.store import Store
from bitwright.models.base import Dense, Packed
from bitwright.observers.gram import Gram
from bitwright.rounding.moments import Moments

Floats = npt.NDArray[np.float32]
Round = Callable[[str, Moments | None], Packed | Dense]  # a matrix's name and its moments -> how it is stored


@dataclass
class Layers:
    """A `Rounder` for sequential.walk. `needs_of` names the matrices whose method looks at inputs, and what it needs; `blocks`
    the blocks of rows of a matrix that is stored in some, which stand there in its place.

    What has been rounded by its inputs goes to `store`; what is there already is not rounded again.
    """

    needs_of: Mapping[str, str]
    round: Round
    store: Store
    blocks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._last: tuple[Gram, Moments] | None = None

    def needs(self, name: str) -> str:
        found = {"" if one in self.store else self.needs_of.get(one, "") for one in self.blocks.get(name, [name])}
        return next((need for need in ("guided cross", "cross", "guided", "gram") if need in found), "")

    def rounded(self, name: str, moments: Gram | None) -> Floats:
        if name in self.blocks:
            return np.concatenate([self.rounded(block, moments) for block in self.blocks[name]])
        if name not in self.needs_of:
            return self.round(name, None).dequantize()
        kept = self.store.get(name)
        if kept is None:
            kept = self.round(name, None if moments is None else self._moments(moments))
            self.store.put(name, kept)
        return kept.dequantize()

    def _moments(self, gram: Gram) -> Moments:
        """The same for all that read one input, so that its matrix is factored once."""
        if self._last is None or self._last[0] is not gram:
            self._last = gram, Moments(gram.gram, gram.cross)
        return self._last[1]
