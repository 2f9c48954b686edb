"""The eight types everybody passes around. Numbers are numpy arrays; nothing here imports torch.

scheme x observer x rounding x transform  ->  recipe  ->  quantized model
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from bitwright.errors import RecipeError, SchemeError
from bitwright.runtime import RuntimeSetting, complete, read_settings

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


@runtime_checkable
class Format(Protocol):
    """A number format: which reals a code can stand for, before scaling.

    `encode` takes float32 of any shape to codes of the same shape, to the nearest level, ties to even;
    `decode` takes codes back to float32. Both are pure. `encode` raises `NonFiniteError` on NaN or infinity.
    """

    @property
    def name(self) -> str: ...

    @property
    def bits(self) -> int: ...

    @property
    def summary(self) -> str: ...

    def encode(self, x: Floats) -> npt.NDArray[Any]: ...

    def decode(self, codes: npt.NDArray[Any]) -> Floats: ...


SCALE_BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "pow2": 8, "row5": 5, "e4m3": 8}  # a group
ROW_SCALE_BITS, TENSOR_SCALE_BITS = 16, 32  # what row5 stores beside for each row, e4m3 for the tensor
SCALING = frozenset({"smoothquant", "awq", "awq-clip", "equalize"})  # transforms that rotating columns would undo
_SPELLING = re.compile(
    r"(?P<format>[a-z]+[0-9]{1,2}(e[0-9]m[0-9])?)(-(?P<granularity>tensor|channel|g[0-9]{1,9}))?"
    r"(-n(?P<levels>[1-9][0-9]{0,2}))?(-(?P<affine>affine))?(-s(?P<scale>[a-z0-9]+))?"
)


@dataclass(frozen=True)
class Scheme:
    """How one tensor is stored: format + granularity + symmetric or affine + scale type.

    Spelling: `int4-g64`, `int4-g64-affine`, `int8-channel`, `fixed8-tensor`, `int4-g64-sbf16`, `int4-g32-srow5`, `fp16`,
    `kmeans4-tensor-n12`, and the names of formats.NAMED, such as `mxfp4`.
    `group` is a number of consecutive columns: 0 means a whole row (channel), -1 the whole tensor.
    `levels` is how many a table of `kmeans` has, where that is no power of two; 0 for as many as there are codes.
    """

    format: str
    group: int = 0
    affine: bool = False
    scale: str = "fp16"
    levels: int = 0

    def __post_init__(self) -> None:
        from bitwright.formats import FORMATS

        if self.format not in FORMATS:
            raise SchemeError(f"unknown format {self.format!r}; choose from {', '.join(FORMATS)}")
        if self.group < -1:
            raise SchemeError(f"group size must be positive, not {self.group}")
        format = FORMATS[self.format]
        if self.scale not in format.scales:
            raise SchemeError(f"{self.format} takes {', '.join(format.scales)} scales, not {self.scale}")
        if self.affine and not format.affine:
            raise SchemeError(f"{self.format} has no zero point: affine is for int2 to int8")
        if self.scale in ("row5", "e4m3") and (self.affine or self.group < 1):
            raise SchemeError(
                f"{self.scale} scales are for groups and without a zero point, such as {self.format}-g32-s{self.scale}"
            )
        if format.learned == "row" and self.group == -1:
            raise SchemeError(f"{self.format} has a table for each row: write {self.format}-channel, or {self.format}-g64, say")
        shared = format.learned == "tensor" and self.format.startswith("kmeans")
        if self.levels and not (shared and (1 << format.bits) // 2 < self.levels < 1 << format.bits):
            raise SchemeError(
                f"{self.format} cannot have {self.levels} levels: write kmeans2-tensor-n3, kmeans3-tensor-n5 to n7, or "
                "kmeans4-tensor-n9 to n15; a power of two takes no -n"
            )

    @classmethod
    def parse(cls, spelling: str) -> Self:
        """Read a one-line spelling. Raises `SchemeError` that names the fault and the known formats."""
        from bitwright.formats import FORMATS, NAMED

        lower = spelling.strip().lower()
        match = _SPELLING.fullmatch(NAMED.get(lower, lower))
        if match is None:
            raise SchemeError(f"cannot read scheme {spelling!r}; write it like int4-g64, int4-g32-affine, int8-channel or fp16")
        name, granularity = match["format"], match["granularity"]
        if name not in FORMATS:
            raise SchemeError(f"unknown format {name!r} in scheme {spelling!r}; choose from {', '.join(FORMATS)}")
        if not FORMATS[name].scaled:
            if granularity or match["affine"] or match["scale"] or match["levels"]:
                raise SchemeError(f"{name} is stored as it is: write just {name!r}, not {spelling!r}")
            return cls(name, 0)
        if granularity is None:
            raise SchemeError(f"scheme {spelling!r} lacks a granularity; write {name}-g64, {name}-channel or {name}-tensor")
        if granularity == "g0":
            raise SchemeError(f"group size must be positive in scheme {spelling!r}; write {name}-g64, say")
        group = {"tensor": -1, "channel": 0}.get(granularity) if granularity in ("tensor", "channel") else int(granularity[1:])
        scale, levels = match["scale"] or FORMATS[name].scales[0], int(match["levels"] or 0)
        return cls(name, group or 0, bool(match["affine"]), scale, levels)

    def __str__(self) -> str:
        from bitwright.formats import FORMATS, NAMED

        if not self.scaled:
            return self.format
        granularity = {-1: "tensor", 0: "channel"}.get(self.group, f"g{self.group}")
        suffix = (f"-n{self.levels}" if self.levels else "") + ("-affine" if self.affine else "")
        suffix += f"-s{self.scale}" if self.scale != FORMATS[self.format].scales[0] else ""
        full = f"{self.format}-{granularity}{suffix}"
        return next((name for name, meaning in NAMED.items() if meaning == full), full)

    @property
    def scaled(self) -> bool:
        """False for full precision, which has no QParams."""
        from bitwright.formats import FORMATS

        return FORMATS[self.format].scaled

    def group_size(self, shape: Sequence[int]) -> int:
        """Columns that share one scale in a tensor of this shape (rows, columns).

        Raises `SchemeError` where the group does not divide the row; the message lists groups that do.
        """
        columns = int(shape[-1])
        if self.group == -1:
            return int(np.prod(shape, dtype=np.int64))
        if self.group == 0:
            return columns
        if columns % self.group:
            fitting = [g for g in (16, 32, 48, 64, 96, 128, 192, 256) if columns % g == 0]
            cure = f"groups that do: {', '.join(map(str, fitting))}" if fitting else "use channel"
            raise SchemeError(f"group {self.group} does not divide a row of {columns} columns ({self}); {cure}")
        return self.group

    def groups(self, shape: Sequence[int]) -> int:
        """Number of groups, and so of scales, in a tensor of this shape."""
        count = int(np.prod(shape, dtype=np.int64))
        return count // self.group_size(shape) if self.scaled else 0

    def stored_bits(self, shape: Sequence[int]) -> int:
        """All bits that a tensor of this shape (rows, columns) takes, scales, zero points and row padding included."""
        from bitwright.formats import FORMATS

        format = FORMATS[self.format]
        rows, columns = (int(np.prod(shape[:-1], dtype=np.int64)), int(shape[-1]))
        bits = rows * 8 * ((columns * format.bits + 7) // 8) + self.tables(shape) * format.level_bits * (1 << format.bits)
        if self.scale == "row5":
            multiple_bytes = (SCALE_BITS["row5"] * (columns // self.group_size(shape)) + 7) // 8
            return bits + rows * (ROW_SCALE_BITS + 8 * multiple_bytes)
        shared_bits = TENSOR_SCALE_BITS if self.scale == "e4m3" else 0
        return bits + self.groups(shape) * (SCALE_BITS[self.scale] + (8 if self.affine else 0)) + shared_bits

    def tables(self, shape: Sequence[int]) -> int:
        """Number of tables of levels that a tensor of this shape brings along: none unless its format is learned."""
        from bitwright.formats import FORMATS

        rows = int(np.prod(shape[:-1], dtype=np.int64))
        return {"": 0, "tensor": 1, "row": rows, "group": self.groups(shape)}[FORMATS[self.format].learned]

    @property
    def whole(self) -> bool:
        """Whether rows share something, so that a tensor cannot be quantized row by row."""
        from bitwright.formats import FORMATS

        return self.group == -1 or self.scale == "e4m3" or FORMATS[self.format].learned == "tensor"

    @property
    def bits(self) -> float:
        """Bits per weight with the group's scale and zero point; a row's or tensor's own need a shape: see `stored_bits`."""
        from bitwright.formats import FORMATS

        per_group = SCALE_BITS[self.scale] + (8 if self.affine else 0)
        return FORMATS[self.format].bits + (per_group / self.group if self.group > 0 else 0.0)


@dataclass(frozen=True)
class QParams:
    """What was fitted for one tensor. A weight is scale * (level - zero_point).

    `row_scale` belongs to scales that are multiples, `table` to formats whose levels are learned; else they are None.

    `scale`       (groups,) float32, already rounded to the scheme's scale type; may be negative
    `zero_point`  (groups,) float32 holding whole levels; None when symmetric
    `row_scale`   (rows,) float32, rounded to fp16, of which `scale` holds whole multiples, for row5; (1,) for e4m3
    `table`       (tensors, rows or groups, 2^bits) float32, rounded as stored, ascending; each serves an equal share of the codes
    """

    scale: Floats
    zero_point: Floats | None = None
    row_scale: Floats | None = None
    table: Floats | None = None


@dataclass(frozen=True)
class QTensor:
    """One quantized tensor. Never packed: packing to bytes belongs to the artifact and the targets.

    `codes`     (rows, columns), uint8 for scaled formats (level - lowest level), uint16 or float32 for full precision
    `rotation`  columns in a block of the Hadamard rotation that the codes are of (formats/hadamard.py); 0 for none
    """

    codes: npt.NDArray[Any]
    params: QParams | None
    scheme: Scheme
    rotation: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    @property
    def stored_bits(self) -> int:
        return self.scheme.stored_bits(self.shape)

    def dequantize(self) -> Floats:
        """float32 of the same shape, turned back to the columns it came with."""
        from bitwright.formats import FORMATS
        from bitwright.formats.hadamard import rotate
        from bitwright.formats.table import decode_with

        if self.params is None:
            return FORMATS[self.scheme.format].decode(self.codes)
        table = self.params.table
        levels = FORMATS[self.scheme.format].decode(self.codes) if table is None else decode_with(table, self.codes)
        grouped = levels.reshape(-1, self.scheme.group_size(self.shape))
        if self.params.zero_point is not None:
            grouped = grouped - self.params.zero_point[:, None]
        return rotate((grouped * self.params.scale[:, None]).reshape(self.shape), self.rotation)


@runtime_checkable
class Observer(Protocol):
    """Streaming, mergeable statistics of a tensor in bounded memory: `update(x)`, `a + b`."""

    def update(self, x: Floats) -> None: ...

    def __add__(self, other: Any) -> Any: ...


@dataclass(frozen=True)
class Choice:
    """What happens to the tensors whose names match `pattern` (shell style, `*` and `?`).

    `rotate` turns the columns by a Hadamard matrix before they are quantized, the engine then turns the inputs alike. What
    is only looked up (an embedding of its own) and what stays in full precision is not turned. `prune` makes the smallest
    weights zero before that, as sparsity/pruning.py spells it; turned columns would not keep zeros, so one excludes the other.
    `guidance` weighs the tokens of what the method sees of a layer's inputs, as calibration/guidance.py says.
    """

    pattern: str
    scheme: Scheme
    method: str = "nearest"
    fitting: str = "mse"
    reason: str = ""
    rotate: bool = False
    prune: str = ""
    guidance: bool = False


@dataclass(frozen=True)
class Recipe:
    """Tensor name -> scheme, method and fitting. The first choice whose pattern matches holds.

    `head` is the scheme of the output head (and of the embedding where the two are tied); None leaves it to `choices`.
    `transforms` are done before, in this order. Tensors of one dimension (norms, biases) and those no choice matches keep
    their stored precision. `runtime` settings are the engine's: see runtime.py. Scales and norms are trained in `distill` passes
    over the calibration text, after rounding (calibration/distillation.py).
    """

    choices: tuple[Choice, ...]
    head: Scheme | None = None
    transforms: tuple[str, ...] = ()
    runtime: tuple[RuntimeSetting, ...] = ()
    distill: int = 0

    def __post_init__(self) -> None:
        complete(self.runtime)
        if isinstance(self.distill, bool) or not isinstance(self.distill, int) or self.distill < 0:
            raise RecipeError(f"'distill' is a number of passes over the calibration text, such as 1, not {self.distill!r}")

    @classmethod
    def uniform(  # noqa: PLR0913 - the public face: every option by its name
        cls,
        scheme: str | Scheme,
        method: str = "nearest",
        fitting: str = "mse",
        head: str | Scheme | None = None,
        rotate: bool | None = None,
        prune: str = "",
        transforms: Sequence[str] = (),
        distill: int = 0,
        guidance: bool = False,
    ) -> Self:
        """One scheme for all. Below 8 bits the head is kept at int8-channel unless `head` says otherwise.

        Columns are rotated unless weights are pruned or columns scaled; the head and what is only looked up are not pruned.
        """
        body = Scheme.parse(scheme) if isinstance(scheme, str) else scheme
        chosen_head = Scheme.parse(head) if isinstance(head, str) else head
        if chosen_head is None:
            from bitwright.formats import FORMATS

            chosen_head = Scheme("int8", 0) if FORMATS[body.format].bits < 8 else body
        turned = not prune and not set(transforms) & SCALING if rotate is None else rotate
        choice = Choice("*", body, method, fitting, rotate=turned, prune=prune, guidance=guidance)
        return cls((choice,), chosen_head, tuple(transforms), distill=distill)

    def choice_for(self, name: str, is_head: bool = False) -> Choice | None:
        """The choice that holds for this tensor, or None: keep its stored precision."""
        for choice in self.choices:
            if fnmatch.fnmatchcase(name, choice.pattern):
                if is_head and self.head is not None and choice.pattern == "*":
                    return replace(choice, pattern=name, scheme=self.head, reason="", prune="")
                return choice
        return Choice(name, self.head) if is_head and self.head is not None else None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` reads it back."""
        choices = [
            {"pattern": c.pattern, "scheme": str(c.scheme), "method": c.method, "fitting": c.fitting}
            | ({"reason": c.reason} if c.reason else {})
            | ({"rotate": True} if c.rotate else {})
            | ({"prune": c.prune} if c.prune else {})
            | ({"guidance": True} if c.guidance else {})
            for c in self.choices
        ]
        transforms = {"transforms": list(self.transforms)} if self.transforms else {}
        runtime = {"runtime": [setting.to_dict() for setting in self.runtime]} if self.runtime else {}
        distill = {"distill": self.distill} if self.distill else {}
        return {"head": str(self.head) if self.head else None, "choices": choices} | transforms | runtime | distill

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises `RecipeError` on anything but what `to_dict` writes."""
        if not isinstance(data, Mapping) or not isinstance(data.get("choices"), list) or not data["choices"]:
            raise RecipeError("a recipe needs a non-empty list 'choices' of {pattern, scheme}; see docs/recipe.md")
        known = {"pattern", "scheme", "method", "fitting", "reason", "rotate", "prune", "guidance"}
        choices = []
        for entry in data["choices"]:
            if not isinstance(entry, Mapping) or not {"pattern", "scheme"} <= set(entry) or not set(entry) <= known:
                raise RecipeError(
                    "a choice takes pattern, scheme and optionally method, fitting, reason, rotate, prune, guidance;"
                    f" got {entry!r}"
                )
            if not all(isinstance(value, bool if key in ("rotate", "guidance") else str) for key, value in entry.items()):
                raise RecipeError(f"rotate is true or false, so is guidance, all other values are strings; got {entry!r}")
            fields = dict(entry) | {"scheme": Scheme.parse(entry["scheme"])}
            choices.append(Choice(**fields))
        head = data.get("head")
        if head is not None and not isinstance(head, str):
            raise RecipeError(f"'head' is a scheme such as int8-channel, not {head!r}")
        transforms = data.get("transforms", [])
        if not isinstance(transforms, list) or not all(isinstance(name, str) for name in transforms):
            raise RecipeError(f"'transforms' is a list of names such as ['fold', 'awq'], not {transforms!r}")
        runtime = read_settings(data.get("runtime", []))
        return cls(tuple(choices), Scheme.parse(head) if head else None, tuple(transforms), runtime, data.get("distill", 0))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a .json or .toml recipe. Raises `RecipeError`."""
        try:
            text = Path(path).read_text("utf-8")
            data = tomllib.loads(text) if str(path).endswith(".toml") else json.loads(text)
        except (OSError, ValueError, RecursionError) as fault:  # ValueError: no UTF-8, no JSON or no TOML
            raise RecipeError(f"cannot read recipe {path} ({fault}); see docs/recipe.md for the format") from fault
        return cls.from_dict(data)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", "utf-8")


@runtime_checkable
class Model(Protocol):
    """Named tensors, loaded lazily. LLMs present this face; what runs one is the engine."""

    def names(self) -> Sequence[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str) -> Floats: ...

    def stored_bits(self, name: str) -> int: ...


@runtime_checkable
class Target(Protocol):
    """One runtime to export to. `problems` speaks before any work is done."""

    name: str

    def problems(self, recipe: Recipe) -> list[str]: ...

    def write(self, model: Model, path: Path) -> None: ...

    def run(self, path: Path, inputs: Mapping[str, Any]) -> Mapping[str, Any]: ...
