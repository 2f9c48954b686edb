"""manifest.json: what an artifact holds. It says which tensors there are and how each is stored, never where a file lies.

    {"format": "bitwright", "version": 1, "bitwright": ..., "config": {...}, "recipe": {...} or null,
     "source": {"name": ..., "fingerprint": ...},
     "tensors": {NAME: {"scheme": "int4-g64", "shape": [rows, columns], "rotation": 64}, ...}}

A quantized tensor lies in model.safetensors as NAME.codes, NAME.scale and, where its scheme has them, NAME.multiple,
NAME.zero_point and NAME.table; one in full precision as NAME. docs/artifact.md has the rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.artifact import strict_json
from bitwright.artifact.safetensors_file import LARGEST_SIZE, METADATA
from bitwright.core import SCALE_BITS, Scheme
from bitwright.errors import ManifestError, NonFiniteError, SchemeError
from bitwright.formats import FORMATS
from bitwright.formats.full_precision import FullPrecision
from bitwright.formats.hadamard import LARGEST_BLOCK, is_rotation
from bitwright.formats.packing import row_bytes
from bitwright.formats.scales import E4M3, LARGEST_MULTIPLE, SHARED, STORED_DTYPE, load_multiples, load_scale
from bitwright.formats.table import WHOLE
from bitwright.models.base import Dense, Packed
from bitwright.models.row_blocks import block_names, rows_in

MANIFEST_FILE = "manifest.json"
TENSOR_FILE = "model.safetensors"
FORMAT = "bitwright"
VERSION = 1
SIZE_LIMIT = 64 * 2**20  # bytes of manifest.json
LONGEST_NAME = 512  # characters
MOST_DIMENSIONS = 8

DENSE_DTYPE = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
SCALE_DTYPE = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "pow2": "I8", "row5": "F16", "e4m3": "F32"}
Parts = dict[str, tuple[str, tuple[int, ...]]]  # name in the tensor file -> (dtype, shape)


@dataclass(frozen=True)
class StoredTensor:
    """How one tensor is stored. Raises `SchemeError` where the scheme or the rotation does not fit the shape."""

    scheme: Scheme
    shape: tuple[int, ...]
    rotation: int = 0

    def __post_init__(self) -> None:
        if self.rotation and not (self.scheme.scaled and is_rotation(self.rotation, self.shape[-1])):
            raise SchemeError(f"{self.scheme} of shape {list(self.shape)} cannot be rotated by {self.rotation}")
        if self.scheme.scaled:
            if len(self.shape) != 2:
                raise SchemeError(f"{self.scheme} is for matrices, not for shape {list(self.shape)}; choose fp32, fp16 or bf16")
            self.scheme.group_size(self.shape)

    @classmethod
    def of(cls, tensor: Packed | Dense) -> StoredTensor:
        if isinstance(tensor, Packed):
            return cls(tensor.scheme, tuple(tensor.shape), tensor.rotation)
        return cls(Scheme(tensor.dtype), tuple(tensor.shape))

    @property
    def stored_bits(self) -> int:
        return self.scheme.stored_bits(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Its line in the manifest."""
        rotation = {"rotation": self.rotation} if self.rotation else {}
        return {"scheme": str(self.scheme), "shape": list(self.shape)} | rotation

    def parts(self, name: str) -> Parts:
        """What the tensor file holds for this tensor, in order."""
        if not self.scheme.scaled:
            return {name: (DENSE_DTYPE[self.scheme.format], self.shape)}
        rows, columns = self.shape
        scheme, groups, bits = self.scheme, self.scheme.groups(self.shape), FORMATS[self.scheme.format].bits
        scales = {"row5": rows, "e4m3": 1}.get(scheme.scale, groups)
        parts: Parts = {
            f"{name}.codes": ("U8", (rows, row_bytes(columns, bits))),
            f"{name}.scale": (SCALE_DTYPE[scheme.scale], (scales,)),
        }
        if scheme.scale in SHARED:
            parts[f"{name}.multiple"] = ("U8", (rows, row_bytes(groups // rows, SCALE_BITS[scheme.scale])))
        if scheme.affine:
            parts[f"{name}.zero_point"] = ("U8", (groups,))
        if scheme.tables(self.shape):
            dtype = "I8" if FORMATS[scheme.format].level_bits == 8 else "F16"
            parts[f"{name}.table"] = (dtype, (scheme.tables(self.shape), 1 << bits))
        return parts

    def arrays(self, name: str, tensor: Packed | Dense) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays for `parts`; raises `SchemeError` if `tensor` is not what this line promises."""
        if StoredTensor.of(tensor) != self:
            raise SchemeError(f"{name} came as {StoredTensor.of(tensor)}, {self} was announced")
        if isinstance(tensor, Dense):
            return {name: tensor.values}
        check_params(name, tensor)
        scale = tensor.scale.astype(STORED_DTYPE[self.scheme.scale], copy=False)
        arrays = {f"{name}.codes": tensor.codes, f"{name}.scale": scale}
        for part in ("multiple", "zero_point", "table"):
            if getattr(tensor, part) is not None:
                arrays[f"{name}.{part}"] = getattr(tensor, part)
        return arrays


@dataclass(frozen=True)
class Manifest:
    """A manifest that has passed every check that needs no tensor file. Raises `ManifestError`."""

    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    bitwright: str
    recipe: Mapping[str, Any] | None = None
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tensors:
            raise ManifestError("an artifact needs at least one tensor")
        parts = [part for name, tensor in self.tensors.items() for part in tensor.parts(name)]
        if len(set(parts)) != len(parts):
            twice = next(part for part in parts if parts.count(part) > 1)
            raise ManifestError(f"two tensors would both be stored as {twice!r}; rename one of them")
        try:
            matrices = self.blocks()
        except ValueError as fault:
            raise ManifestError(str(fault)) from fault
        for matrix, blocks in matrices.items():
            shapes = [self.tensors[block].shape for block in blocks]
            rows = [end - begin for begin, end in map(rows_in, blocks)]
            if [shape[0] for shape in shapes] != rows or len({shape[1:] for shape in shapes}) > 1 or matrix in self.tensors:
                raise ManifestError(f"the blocks of rows of {matrix!a} do not make one matrix; quantize the model again")
        for name in self.tensors:
            if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable() or name == METADATA:
                raise ManifestError(f"no tensor can be called {name[:80]!a}; use 1 to {LONGEST_NAME} printable characters")

    def blocks(self) -> dict[str, list[str]]:
        """The blocks of rows of each matrix that is stored in some: models/row_blocks.py."""
        return block_names(self.tensors)

    def parts(self) -> Parts:
        """Everything the tensor file must hold, in order."""
        return {part: what for name, tensor in self.tensors.items() for part, what in tensor.parts(name).items()}

    def encode(self) -> bytes:
        """The bytes of manifest.json: equal manifests give equal bytes. Raises `ManifestError` where JSON cannot hold it."""
        fields = {
            "format": FORMAT,
            "version": VERSION,
            "bitwright": self.bitwright,
            "config": dict(self.config),
            "recipe": None if self.recipe is None else dict(self.recipe),
            "source": dict(self.source),
            "tensors": {name: tensor.to_dict() for name, tensor in self.tensors.items()},
        }
        try:
            data = (json.dumps(fields, indent=1, allow_nan=False) + "\n").encode("ascii")
        except (ValueError, TypeError) as fault:
            raise ManifestError(f"the model's config cannot be written as JSON ({fault}); mend its config.json") from fault
        if len(data) > SIZE_LIMIT:
            raise ManifestError(f"a manifest of {len(data)} bytes is over the limit of {SIZE_LIMIT}; shorten the recipe")
        return data

    @classmethod
    def load(cls, directory: Path) -> Manifest:
        """Read DIRECTORY/manifest.json. Raises `ManifestError` that names the fault and the cure."""
        path = directory / MANIFEST_FILE
        try:
            if not path.is_file():
                raise ManifestError(f"{directory} has no {MANIFEST_FILE}, so it is no Bitwright artifact; check the path")
            with path.open("rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        except OSError as fault:
            raise ManifestError(f"cannot read {path}: {fault.strerror}; check its permissions") from fault
        if len(data) > SIZE_LIMIT:
            raise ManifestError(f"{path} is over the limit of {SIZE_LIMIT} bytes; it is damaged, quantize the model again")
        return _decode(data, path)


def check_params(name: str, packed: Packed) -> None:
    """Scales are finite, and small enough that every weight is; zero points are codes of the format, multiples and tables
    what a writer can have written.

    Raises `NonFiniteError` or `ManifestError`.
    """
    cure, kind, format = "quantize the original model again", packed.scheme.scale, FORMATS[packed.scheme.format]
    assert not isinstance(format, FullPrecision)
    multiple = {"row5": LARGEST_MULTIPLE, "e4m3": E4M3.largest}.get(kind, 1)
    largest = np.finfo(np.float32).max / max(2**format.bits, format.largest, WHOLE) / multiple
    if not (np.abs(load_scale(packed.scale, kind)) <= largest).all():  # NaN compares false
        raise NonFiniteError(f"{name} has a scale that is NaN, infinite or too large; {cure}")
    if packed.zero_point is not None and packed.zero_point.max() >= 2**format.bits:
        raise ManifestError(f"{name} has a zero point outside {packed.scheme.format}; {cure}")
    if packed.multiple is not None and kind == "row5":
        if load_multiples(packed.multiple, packed.groups_a_row).min() < -LARGEST_MULTIPLE:
            raise ManifestError(f"{name} has a scale outside -15 to 15 times its row's; {cure}")
    elif packed.multiple is not None and not np.isfinite(E4M3.decode(packed.multiple)).all():
        raise NonFiniteError(f"{name} has a scale that is NaN; {cure}")
    if packed.table is not None and not (np.abs(packed.table.astype(np.float32)) <= WHOLE).all():
        raise NonFiniteError(f"{name} has a level that is NaN or beyond {WHOLE}; {cure}")


def _decode(data: bytes, path: Path) -> Manifest:
    try:
        fields = strict_json.parse(data)
    except ValueError as fault:
        raise ManifestError(f"{path} is not valid JSON ({str(fault)[:200]}); quantize the model again") from fault
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ManifestError(f"{path} does not say format {FORMAT!r}, so this is no Bitwright artifact; check the path")
    if type(fields.get("version")) is not int or fields["version"] != VERSION:
        version = str(fields.get("version"))[:40]
        raise ManifestError(f"{path} has version {version}, this Bitwright reads {VERSION}; upgrade it or quantize again")
    expected = {"format", "version", "bitwright", "config", "recipe", "source", "tensors"}
    if set(fields) != expected:
        odd = ", ".join(sorted(ascii(key)[:40] for key in set(fields) ^ expected)[:5])
        raise ManifestError(f"{path} must have exactly the keys {', '.join(sorted(expected))}; missing or unknown: {odd}")
    _check_types(fields, path)
    tensors = {name: _read_tensor(name, line, path) for name, line in fields["tensors"].items()}
    try:
        return Manifest(fields["config"], tensors, fields["bitwright"], fields["recipe"], fields["source"])
    except ManifestError as fault:
        raise ManifestError(f"{path}: {fault}") from fault


def _check_types(fields: Mapping[str, Any], path: Path) -> None:
    kinds: dict[str, tuple[type, ...]] = {"bitwright": (str,), "config": (dict,), "recipe": (dict, type(None)), "source": (dict,)}
    for key, kind in (kinds | {"tensors": (dict,)}).items():
        if not isinstance(fields[key], kind):
            raise ManifestError(f"{path}: {key!r} has the wrong type; quantize the model again")
    if not all(isinstance(value, str) for value in fields["source"].values()):
        raise ManifestError(f"{path}: 'source' must map strings to strings; quantize the model again")


def _read_tensor(name: str, line: Any, path: Path) -> StoredTensor:
    where = f"{path}: tensor {name[:LONGEST_NAME]!a}"
    if not isinstance(line, dict) or set(line) - {"rotation"} != {"scheme", "shape"} or not isinstance(line["scheme"], str):
        raise ManifestError(f"{where} must have exactly a scheme and a shape, and may have a rotation; quantize the model again")
    shape, rotation = line["shape"], line.get("rotation", 0)
    if type(rotation) is not int or ("rotation" in line and not 2 <= rotation <= LARGEST_BLOCK):
        raise ManifestError(f"{where} has an impossible rotation {str(rotation)[:40]!a}; quantize the model again")
    if not isinstance(shape, list) or not 1 <= len(shape) <= MOST_DIMENSIONS:
        raise ManifestError(f"{where} must have a shape of 1 to {MOST_DIMENSIONS} sizes; quantize the model again")
    size = 1
    for length in shape:
        if type(length) is not int or length < 1 or (size := size * length) > LARGEST_SIZE:
            raise ManifestError(f"{where} has an impossible shape {str(shape)[:80]}; quantize the model again")
    spelling = line["scheme"]
    try:
        scheme = Scheme.parse(spelling)
        if str(scheme) != spelling:
            raise SchemeError(f"write {scheme}")
        return StoredTensor(scheme, tuple(shape), rotation)
    except ValueError as fault:  # SchemeError, or a group of thousands of digits
        raise ManifestError(f"{where} cannot be {spelling[:40]!a} ({str(fault)[:200]}); quantize the model again") from fault
