"""A way to round a tensor, spelled as `bitwright compare` spells methods: parts joined by +, ways with commas between.

    gptq               a rounding; where none is named, nearest
    hqq                a fitting; where none is named, mse
    gptq+guidance      with tokens weighed, as calibration/guidance.py does
    gptq+no-rotate     and whether columns are turned; where it is not said, as the plan has it for all

A plan judges a way by a sample of each matrix's rows and the inputs of its layer. A method that needs more of the model is
judged as what it is without, and so is not weighed against others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from bitwright.core import Choice, Scheme
from bitwright.errors import RecipeError, SchemeError
from bitwright.fitting import CALIBRATED, FITTING
from bitwright.rounding import ROUNDING, needs_of
from bitwright.rounding.even_steps import require_even_steps
from bitwright.rounding.needs import has_drift

GUIDANCE = "guidance"
TURNED = {"rotate": True, "no-rotate": False}


@dataclass(frozen=True)
class Way:
    """A row of `ROUNDING`, a fitting, whether columns are turned and tokens weighed. `str` is the spelling, `parse` reads it."""

    method: str = "nearest"
    fitting: str = "mse"
    rotate: bool = True
    guidance: bool = False

    @classmethod
    def parse(cls, spelling: str, rotate: bool = True) -> Self:
        """`rotate` where the spelling does not say. Raises `RecipeError` for a part that is none or excludes another."""
        kinds = (ROUNDING, {**FITTING, **CALIBRATED}, TURNED, (GUIDANCE,))
        parts = [part.strip() for part in spelling.split("+")]
        for part in parts:
            if not any(part in names for names in kinds):
                known = ", ".join(name for names in kinds for name in names)
                raise RecipeError(f"a plan has no method {part!r} for a tensor; choose from {known}; + joins several into one")
        named = [[part for part in parts if part in names] for names in kinds]
        for several in named:
            if len(several) > 1:
                raise RecipeError(f"{spelling} is not one method: {' and '.join(several)} exclude each other; a comma makes two")
        method, fitting, turned, guidance = (names[0] if names else "" for names in named)
        found = cls(method or "nearest", fitting or "mse", TURNED.get(turned, rotate), bool(guidance))
        part = found.fitting if found.fitting in CALIBRATED else guidance
        if part and not found.needs:
            calibrating = ", ".join(f"{name}+{part}" for name, row in ROUNDING.items() if row.needs)
            raise RecipeError(f"{part!r} needs a method that calibrates; choose from {calibrating}")
        return found

    @classmethod
    def of(cls, choice: Choice) -> Self:
        return cls(choice.method, choice.fitting, choice.rotate, choice.guidance)

    def __str__(self) -> str:
        parts = [self.method] if self.method != "nearest" or self.fitting == "mse" else []
        parts += [self.fitting] if self.fitting != "mse" else []
        parts += [GUIDANCE] if self.guidance else []
        return "+".join(parts + ([] if self.rotate else ["no-rotate"]))

    @property
    def needs(self) -> str:
        """What the method must know of a layer's inputs, as rounding/needs.py names it."""
        return needs_of(self.method, self.guidance)

    @property
    def unguided(self) -> Way:
        """The same with all tokens alike."""
        return replace(self, method="refine" if self.method == "guided" else self.method, guidance=False)

    def takes(self, scheme: Scheme) -> bool:
        """Whether the method can round to the scheme's levels."""
        if ROUNDING[self.method].even_steps:
            try:
                require_even_steps(scheme)
            except SchemeError:
                return False
        return True

    def choice(self, name: str, scheme: Scheme) -> Choice:
        return Choice(name, scheme, self.method, self.fitting, rotate=self.rotate, guidance=self.guidance)


def parse_ways(spellings: Sequence[str], rotate: bool = True) -> tuple[Way, ...]:
    """Each once. Raises `RecipeError` as `Way.parse` does, and for one of several that no tensor alone can tell from others."""
    ways = tuple(dict.fromkeys(Way.parse(spelling, rotate) for spelling in spellings))
    for way in ways:
        if has_drift(way.needs) and len(ways) > 1:  # which the tensors before decide
            others = ", ".join(name for name in ROUNDING if not has_drift(needs_of(name)))
            raise RecipeError(
                f"{way.method} looks at how far a layer's inputs have drifted, by which no tensor can be told from others;"
                f" name it alone, or choose from {others}"
            )
    return ways
