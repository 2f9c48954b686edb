"""What looks wrong in a quantized model though nothing failed: each finding names its tensor.

    scale      a scale or a table is NaN or infinite
    skipped    a layer's matrix that no choice matches, or that stayed in full precision although its choice is lower; a mixture's
               router always does
    dead       rows, or a whole matrix, of nothing but zeros; of embedding and head only those that quantizing made so,
               because vocabularies are often padded
    error      |(W - Q) x| / |W x| of a layer's inputs x beyond JUMP times the median of its kind: the same matrix of other
               layers, stored alike; |W - Q| / |W| where not all of these were rounded by their inputs in this run
    dead expert
               too few calibration tokens came to an expert of a mixture (calibration/expert_walk.py says how few), so that its
               matrices were rounded to nearest; named is its gate
    saturated  of the groups, more than SATURATED_GROUPS have codes at the grid's two ends beyond `end_share`

Scales and dead rows are looked for everywhere, the last two in SAMPLES blocks of SAMPLE_ROWS rows: a guard that took as
long as the work would be left out. `Guard` is shown each tensor when it is written, so the model is not quantized twice.
The error of a layer's output is found when the layer is rounded, from the second moments that rounding has at hand; what
distillation does to it afterwards is not seen.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Recipe
from bitwright.formats import FORMATS
from bitwright.formats.scales import group_scales, load_scale
from bitwright.models.architecture import ROUTER
from bitwright.models.base import Dense, LanguageModel, Packed
from bitwright.models.row_blocks import matrix_of

Doubles = npt.NDArray[np.float64]

SAMPLES, SAMPLE_ROWS = 4, 8
JUMP = 3.0
LEAST_LAYERS = 3  # of a kind, before one can stand out
SATURATED_GROUPS = 0.05
SCREENED = 16  # columns that tell which rows may be dead, before those are read as a whole
SHOWN_ROWS = 4


@dataclass(frozen=True)
class Finding:
    """`kind` is scale, skipped, dead, error, saturated or dead expert."""

    tensor: str
    kind: str
    message: str


class Guard:
    """Shown the tensors of a quantized `model` one by one; holds a few numbers of each.

    `output_errors`: |(W - Q) x| / |W x| by tensor, of those that were rounded by their inputs. `dead_experts`: by the name of
    the gate, the calibration tokens of experts that too few came to.
    """

    def __init__(
        self,
        model: LanguageModel,
        recipe: Recipe,
        output_errors: Mapping[str, float],
        dead_experts: Mapping[str, int] | None = None,
    ) -> None:
        self.recipe, self._output_errors, self._dead_experts = recipe, output_errors, dead_experts or {}
        roles = model.roles()
        self._of_layers = {place.name for (role, layer), place in roles.items() if layer >= 0 and role != ROUTER}
        self._vocabulary = {roles[role, -1].name for role in ("embedding", "head")}
        self._found: list[Finding] = []
        self._errors: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)  # kind and scheme -> tensor -> error

    def look(self, name: str, source: Packed | Dense, tensor: Packed | Dense) -> None:
        """At a tensor as it is about to be written, which was `source` before."""
        if len(tensor.shape) != 2:
            return
        messages = {"skipped": self._skipped(name, tensor), "scale": bad_scales(tensor)}
        if not messages["scale"]:
            messages["dead"] = dead_rows(source, tensor, padded=matrix_of(name) in self._vocabulary)
            if isinstance(tensor, Packed):
                messages["saturated"] = saturated(tensor)
                self._errors[re.sub(r"\d+", "*", name), str(tensor.scheme)][name] = relative_error(source, tensor)
        if name in self._dead_experts:
            count = self._dead_experts[name]
            messages["dead expert"] = f"{count} calibration token(s) came to this expert, so it was rounded to nearest"
        self._found += [Finding(name, kind, message) for kind, message in messages.items() if message]

    def findings(self) -> tuple[Finding, ...]:
        """All so far, those of relative error last, because they need the other layers."""
        jumps = [jump for errors in self._errors.values() for jump in self._jumps(errors).items()]
        return (*self._found, *(Finding(name, "error", message) for name, message in jumps))

    def _jumps(self, errors: dict[str, float]) -> dict[str, str]:
        if errors.keys() <= self._output_errors.keys():
            return jumps_of({name: self._output_errors[name] for name in errors}, "output")
        return jumps_of(errors, "weight")

    def _skipped(self, name: str, tensor: Packed | Dense) -> str:
        if matrix_of(name) not in self._of_layers:
            return ""
        choice = self.recipe.choice_for(name)
        if choice is None:
            return "no choice of the recipe matches; it stays as it was"
        if choice.scheme.scaled and isinstance(tensor, Dense):
            return f"stayed in {tensor.dtype} although the recipe says {choice.scheme}"
        return ""


def bad_scales(tensor: Packed | Dense) -> str:
    if isinstance(tensor, Dense):
        return ""
    scales = load_scale(tensor.scale, tensor.scheme.scale)
    if tensor.multiple is not None and np.isfinite(scales).all():
        scales = group_scales(scales, tensor.multiple, tensor.scheme.scale, tensor.groups_a_row)
    bad = int((~np.isfinite(scales)).sum())
    if bad:
        return f"{bad} of {scales.size} scales are NaN or infinite"
    if tensor.table is not None and not np.isfinite(tensor.table).all():
        return "a table of levels holds NaN or infinity"
    return ""


def dead_rows(source: Packed | Dense, tensor: Packed | Dense, padded: bool) -> str:
    """Rows that hold zeros alone, now or before; with `padded` only those that held something before."""
    dead = []
    for row in candidates(tensor):
        before, now = (bool(part.rows(row, row + 1).dequantize().any()) for part in (source, tensor))
        if not now and (before or not padded):
            dead.append(row)
    if not dead:
        return ""
    if len(dead) == tensor.shape[0]:
        return "all weights are zero"
    shown = ", ".join(map(str, dead[:SHOWN_ROWS])) + (", ..." if len(dead) > SHOWN_ROWS else "")
    return f"{len(dead)} of {tensor.shape[0]} rows are all zero: {shown}"


def candidates(tensor: Packed | Dense) -> list[int]:
    """Rows that may be all zero, by their first columns: of zeros the packed codes repeat, or no scale is left."""
    if isinstance(tensor, Dense):
        may = ~tensor.values[:, :SCREENED].any(axis=1)
    else:
        period = FORMATS[tensor.scheme.format].bits  # eight codes take as many bytes as one has bits
        first, second = tensor.codes[:, :period], tensor.codes[:, period : 2 * period]
        may = (first[:, : second.shape[1]] == second).all(axis=1)
        if tensor.scale.size % tensor.shape[0] == 0:
            may |= (tensor.scale.reshape(tensor.shape[0], -1) == 0).all(axis=1) & (tensor.scheme.scale != "pow2")
    return [int(row) for row in np.flatnonzero(may)]


def sampled(rows: int) -> list[tuple[int, int]]:
    """[begin, end) of the blocks that stand for all rows."""
    if rows <= SAMPLES * SAMPLE_ROWS:
        return [(0, rows)]
    return [(int(begin), int(begin) + SAMPLE_ROWS) for begin in np.linspace(0, rows - SAMPLE_ROWS, SAMPLES)]


def relative_error(source: Packed | Dense, tensor: Packed | Dense, gram: Doubles | None = None) -> float:
    """|W - Q| / |W| of the sampled rows; with `gram`, the second moments of x, |(W - Q) x| / |W x|. 0 where they are all zero."""
    lost = whole = 0.0
    for begin, end in sampled(tensor.shape[0]):
        weights = source.rows(begin, end).dequantize()
        difference = weights - tensor.rows(begin, end).dequantize()
        lost, whole = lost + _energy(difference, gram), whole + _energy(weights, gram)
    return (max(lost, 0.0) / whole) ** 0.5 if whole > 0 else 0.0


def _energy(rows: npt.NDArray[np.float32], gram: Doubles | None) -> float:
    """The sum of squares of (rows, columns), or of their products with inputs of second moments `gram`."""
    return float(np.vdot(rows, rows if gram is None else rows @ gram))


def jumps_of(errors: dict[str, float], what: str) -> dict[str, str]:
    """Of matrices of one kind, by name: what to say of those whose error stands out. `what`: the error's name."""
    median = float(np.median(list(errors.values())))
    if len(errors) < LEAST_LAYERS:
        return {}
    said = "relative {} error {:.3g}, in the median of its kind {:.3g}"
    return {name: said.format(what, error, median) for name, error in errors.items() if error > JUMP * median}


def end_share(bits: int) -> float:
    """The share of a group's codes at the two ends of the grid beyond which it is saturated: twice what even use would give,
    and 3 in 8 at least. Of two bits that is all of them, so nothing is said of these."""
    return max(0.375, 4 / (1 << bits))


def saturated(tensor: Packed) -> str:
    shares = np.concatenate([ends(tensor.rows(*block).qtensor()) for block in sampled(tensor.shape[0])])
    share = float((shares > end_share(FORMATS[tensor.scheme.format].bits)).mean())
    if share <= SATURATED_GROUPS:
        return ""
    return f"{100 * share:.0f} % of the groups saturate: {100 * float(shares.mean()):.0f} % of codes at the ends of the grid"


def ends(tensor: QTensor) -> npt.NDArray[np.float64]:
    """(groups,): the share of codes at the lowest or the highest level."""
    grid = FORMATS[tensor.scheme.format]
    codes = np.arange(1 << grid.bits, dtype=np.uint8)
    learned = tensor.params is not None and tensor.params.table is not None
    used = tensor.scheme.levels or len(codes)
    levels = np.minimum(codes, used - 1).astype(np.float32) if learned else grid.decode(codes)  # learned tables ascend
    at_end = (levels == np.nanmin(levels)) | (levels == np.nanmax(levels))
    return np.asarray(at_end[tensor.codes].reshape(-1, tensor.scheme.group_size(tensor.shape)).mean(axis=1), np.float64)
