"""What each candidate would cost each tensor: bits, and the divergence that curvature.py foretells of its error.

A unit of choice is one stored tensor, so matrices that a model stores as one (Phi's q, k and v) share a scheme, and a block of
rows of an embedding or a head (models/row_blocks.py) has one of its own. Rounding is
done for real, by the method that the recipe will name, but on a sample of rows: rows are rounded apart from each other,
and what one costs is much like what the next one does.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bitwright.allocation.curvature import Curvature
from bitwright.allocation.ways import Way
from bitwright.core import Choice, Scheme
from bitwright.errors import NonFiniteError, SchemeError
from bitwright.models.architecture import TensorSlice
from bitwright.models.base import Dense, LanguageModel
from bitwright.models.row_blocks import Rows, block_name, matrix_of, named_rows
from bitwright.quantization.matrix import THREADS, quantize_matrix
from bitwright.rounding.moments import Moments
from bitwright.rounding.needs import is_guided

Floats = npt.NDArray[np.float32]

SAMPLE = 64  # rows of a matrix
SAMPLE_OF_VOCABULARY = 512  # rows of a head or an embedding, which are less alike
SAMPLE_OF_BLOCK = 128  # rows of a block of these
SCHEMES = (
    "int2-g32",
    "int3-g64",
    "kmeans3-g64",
    "int4-g64",
    "kmeans4-g64",
    "kmeans4-g32",
    "int5-g64",
    "int6-g64",
    "int8-channel",
)


@dataclass(frozen=True)
class Candidate:
    """`divergence` in nats a token, by curvature; `bits` in all."""

    choice: Choice
    bits: int
    divergence: float


@dataclass
class Unit:
    """One stored tensor and its candidates. `roles` are those that it plays, a tied head's two for one.

    `whole` is the shape of the matrix that it is a block of rows of, or its own.
    """

    name: str
    shape: tuple[int, int]
    roles: list[tuple[str, int]] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    whole: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.whole = self.whole if self.whole[0] else self.shape

    @property
    def kind(self) -> str:
        """Its roles without the layer, such as q or gate+up; a block's with its rows."""
        roles = "+".join(dict.fromkeys(role for role, _ in self.roles))
        block = named_rows(self.name)
        return roles if block is None else block_name(roles, block[1])

    @property
    def matrix(self) -> str:
        """The name of the matrix that it is, or is a block of rows of."""
        return matrix_of(self.name)

    @property
    def share(self) -> float:
        """Of the matrix's rows."""
        return self.shape[0] / self.whole[0]

    @property
    def rows(self) -> Rows:
        """Which rows of the matrix it has."""
        block = named_rows(self.name)
        return (0, self.shape[0]) if block is None else block[1]

    @property
    def layer(self) -> int:
        return self.roles[0][1]

    @property
    def looked_up(self) -> bool:
        """Whether nothing is multiplied by it."""
        return all(role == "embedding" for role, _ in self.roles)


@dataclass(frozen=True)
class Offer:
    """What tensors may have: each of the `schemes`, rounded in each of the `ways`.

    Tensors whose names match one of the `fixed` patterns have the scheme beside the first that they match.
    """

    schemes: tuple[Scheme, ...]
    ways: tuple[Way, ...] = (Way(),)
    fixed: tuple[tuple[str, Scheme], ...] = ()

    def all_schemes(self) -> list[Scheme]:
        """Each once."""
        return list(dict.fromkeys([*self.schemes, *(scheme for _, scheme in self.fixed)]))

    def plain(self) -> Offer:
        """The same by nearest rounding, which looks at no text."""
        return replace(self, ways=tuple(dict.fromkeys(Way(rotate=way.rotate) for way in self.ways)))

    def schemes_for(self, name: str) -> Sequence[Scheme]:
        for pattern, scheme in self.fixed:
            if fnmatch.fnmatchcase(name, pattern):
                return [scheme]
        return self.schemes


def stored_as(units: Sequence[Unit]) -> dict[bool, list[Scheme]]:
    """Whether columns are turned -> the schemes of what is multiplied by, each once; full precision, which never is, with all."""
    stored = dict.fromkeys(
        (each.choice.scheme, each.choice.rotate) for unit in units if not unit.looked_up for each in unit.candidates
    )
    kinds = {turned for scheme, turned in stored if scheme.scaled} or {False}
    return {
        turned: list(dict.fromkeys(scheme for scheme, rotate in stored if rotate == turned or not scheme.scaled))
        for turned in sorted(kinds, reverse=True)
    }


def choices_for(unit: Unit, offer: Offer) -> list[Choice]:
    """The candidates that fit the unit's shape. What is only looked up is rounded to nearest and not turned; full precision has
    one way.
    """
    found = []
    for scheme in offer.schemes_for(unit.name):
        try:
            scheme.group_size(unit.shape)
        except SchemeError:
            continue
        if unit.looked_up:
            found.append(Choice(unit.name, scheme))
        elif not scheme.scaled:
            found.append(Choice(unit.name, scheme, offer.ways[0].method))
        else:
            found += [way.choice(unit.name, scheme) for way in offer.ways if way.takes(scheme)]
    return found


def add_role(
    unit: Unit,
    model: LanguageModel,
    place: TensorSlice,
    choices: Sequence[Choice],
    curvature: Curvature,
    moments: Mapping[str, Moments],
) -> None:
    """Add to the unit's candidates what one role of its rows costs under each choice. Choices that cannot be are left out.

    `moments` of the inputs by what methods need of them; empty for what is only looked up.
    """
    weights = model.stored(place.name)
    begin, end = place.begin, place.end if place.end >= 0 else weights.shape[0]
    rows, share = sampled_rows(curvature, SAMPLE_OF_BLOCK if unit.shape != unit.whole else _sample(unit.shape))
    sample = np.concatenate([weights.rows(begin + row, begin + row + 1).dequantize() for row in rows])
    known = {candidate.choice: candidate for candidate in unit.candidates}
    allowed = [choice for choice in choices if not known or choice in known]
    errors = {choice: error for choice, error in _rounded(sample, allowed, moments) if error is not None}
    losses = dict(zip(errors, _losses(list(errors.values()), rows, share, curvature), strict=True))
    found = []
    for choice in allowed:
        if choice in losses:
            before = known.get(choice)
            bits = before.bits if before else choice.scheme.stored_bits(unit.shape)
            found.append(Candidate(choice, bits, losses[choice] + (before.divergence if before else 0.0)))
    unit.candidates = found
    assert end - begin == len(curvature.rows)


def _rounded(sample: Floats, choices: Sequence[Choice], moments: Mapping[str, Moments]) -> Iterator[tuple[Choice, Floats | None]]:
    """Each choice with the error of the sample rounded so; None where it cannot be. A core for each choice, after the first, with
    which what follows from the moments is found.
    """

    def error(choice: Choice) -> Floats | None:
        try:
            return quantize_matrix(choice.pattern, Dense("fp32", sample), choice, _seen(choice, moments)).dequantize() - sample
        except (SchemeError, NonFiniteError):  # a scale beyond its type
            return None

    first, rest = choices[:1], choices[1:]
    yield from zip(first, map(error, first), strict=True)
    with ThreadPoolExecutor(THREADS) as pool:
        yield from zip(rest, pool.map(error, rest), strict=True)


def _seen(choice: Choice, moments: Mapping[str, Moments]) -> Moments | None:
    """What the choice's method is shown of the inputs: the weighed gram or the gram; the gram, too, where it needs nothing."""
    return moments.get("guided" if is_guided(Way.of(choice).needs) else "gram", moments.get("gram"))


def _sample(shape: tuple[int, int]) -> int:
    return SAMPLE if shape[0] <= 8 * shape[1] else SAMPLE_OF_VOCABULARY


def sampled_rows(curvature: Curvature, wanted: int) -> tuple[npt.NDArray[np.intp], Floats]:
    """Rows that stand for all, and how many rows each stands for.

    Half are spaced evenly, half are those of most weight, which stand for themselves: of a vocabulary few words matter much.
    """
    total = len(curvature.rows)
    if total <= wanted:
        return np.arange(total), np.ones(total, np.float32)
    order = np.argsort(-curvature.rows, kind="stable")
    heavy, rest = order[: wanted // 2], np.sort(order[wanted // 2 :])
    light = rest[np.linspace(0, len(rest) - 1, wanted - len(heavy)).astype(np.intp)]
    share = len(rest) * curvature.rows[rest].mean() / max(float(curvature.rows[light].sum()), 1e-30)
    each = np.concatenate([np.ones(len(heavy)), np.full(len(light), share)]).astype(np.float32)
    return np.concatenate([heavy, light]), each


def _losses(errors: Sequence[Floats], rows: npt.NDArray[np.intp], share: Floats, curvature: Curvature) -> Iterator[float]:
    """Of each error of the same rows; all are multiplied at once."""
    if not errors:
        return
    halves = curvature.divergence(np.concatenate(errors), np.tile(rows, len(errors)))
    for costs in zip(*(np.split(half, len(errors)) for half in halves), strict=True):
        seen, unseen = (float((share * cost).sum(dtype=np.float64)) for cost in costs)
        yield math.sqrt(seen * unseen)  # what much more text would have let it cost lies between the two
