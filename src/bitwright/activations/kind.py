"""Kinds of activations by their spelling, FORMAT-SCALES[-RANGE]: int8-token, int8-g128, fp8-tensor, int8-tensor-mse.

    FORMAT   int4, int8, int16; fp8 (e4m3)
    SCALES   token     one for each token, from its largest value      dynamic
             gN        one for each N channels of each token           dynamic
             tensor    one for a layer's input                         static: from calibration text
             channel   one for each channel of it                      static; no integer kernel can take these, a bound
    RANGE    of tensor: minmax (default), percentile, mse, entropy, average   which largest value is taken, the rest is clipped

Static against dynamic, and why per-tensor scales break language models: Xiao et al. 2022, arXiv:2211.10438, section 3;
ranges: Wu et al. 2020, arXiv:2004.09602; fp8: Micikevicius et al. 2022, arXiv:2209.05433.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bitwright.activations.ranges import NAMES
from bitwright.errors import EngineError

LARGEST = {"int4": 7.0, "int8": 127.0, "int16": 32767.0, "fp8": 448.0}  # levels; the lowest integer is left out
_SPELLING = re.compile(r"(?P<format>int4|int8|int16|fp8)-(?P<scales>token|tensor|channel|g[1-9][0-9]{0,5})(-(?P<range>[a-z]+))?")


@dataclass(frozen=True)
class Kind:
    """One kind. `scales` is token, gN, tensor or channel; `range` one of NAMES."""

    spelling: str
    format: str
    scales: str
    range: str = "minmax"

    @classmethod
    def parse(cls, spelling: str) -> Kind:
        """Raises `EngineError`, because the other choices are the engine's own."""
        match = _SPELLING.fullmatch(spelling)
        if match is None:
            raise EngineError(
                f"unknown activations {spelling!r}; choose from int8, int16, fp32, which the engine runs, or simulate "
                "int8-token, int8-g128, int8-tensor, int8-channel, fp8-token and their like"
            )
        kind = cls(spelling, match["format"], match["scales"], match["range"] or "minmax")
        if kind.range not in NAMES:
            raise EngineError(f"unknown range {kind.range!r} in activations {spelling!r}; choose from {', '.join(NAMES)}")
        if match["range"] and kind.scales != "tensor":
            raise EngineError(f"activations {spelling!r}: a range is chosen for int8-tensor and its like; leave it out")
        if kind.range == "entropy" and kind.format not in ("int4", "int8"):
            raise EngineError(f"activations {spelling!r}: entropy is for int4 and int8; choose minmax, percentile or mse")
        return kind

    @property
    def static(self) -> bool:
        """Whether scales come from calibration text."""
        return self.scales in ("tensor", "channel")

    @property
    def group(self) -> int:
        """Channels that share a dynamic scale; 0 for all of a token."""
        return int(self.scales[1:]) if self.scales[0] == "g" else 0
