"""The candidates of all tensors of a model with their losses, computed once and kept: they hold for every device and budget."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.allocation.candidates import Candidate, Offer, Unit, add_role, choices_for
from bitwright.allocation.curvature import Curvature, curvatures
from bitwright.allocation.ways import Way
from bitwright.cache import cache_directory, keep
from bitwright.core import Choice, Scheme
from bitwright.errors import BitwrightError
from bitwright.models.architecture import MODEL_MATRICES, TensorSlice
from bitwright.models.base import LanguageModel
from bitwright.models.row_blocks import block_name
from bitwright.rounding.moments import Moments
from bitwright.rounding.needs import is_guided

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Progress = Callable[[int, int], None]

_LAYOUT = 4  # raise it when the same inputs would give other figures
LARGE = 8192  # rows of an embedding or a head that is worth being stored in blocks
ENDS = (1 / 12, 1 / 3, 1)  # of the blocks, as shares of the rows: most tokenizers number common words first


def units_of(model: LanguageModel, in_blocks: bool = False) -> list[Unit]:
    """The matrices that a plan chooses for, without candidates; a large embedding and head in blocks of rows if asked."""
    units: dict[str, Unit] = {}
    for (role, layer), place in model.roles().items():
        shape = model.shape(place.name)
        if len(shape) == 2:
            whole = Unit(place.name, (shape[0], shape[1]))
            for unit in _blocks(whole) if in_blocks and role in MODEL_MATRICES else [whole]:
                units.setdefault(unit.name, unit).roles.append((role, layer))
    return list(units.values())


def _blocks(whole: Unit) -> list[Unit]:
    rows, columns = whole.shape
    if rows < LARGE:
        return [whole]
    edges = sorted({0, *(int(share * rows) // 64 * 64 for share in ENDS[:-1]), rows})
    return [
        Unit(block_name(whole.name, (begin, end)), (end - begin, columns), whole=whole.shape)
        for begin, end in itertools.pairwise(edges)
    ]


def sensitivities(model: LanguageModel, windows: Tokens, offer: Offer, progress: Progress | None = None) -> list[Unit]:
    """All matrices with their candidates. `windows` (windows, tokens) is text like that which the model will read.

    What was computed before for the same model, text and candidates is read from the cache. `progress` is told (done, in all).
    """
    known = known_sensitivities(model, windows, offer)
    if known is not None:
        return known
    units = units_of(model, in_blocks=True)
    for _ in sensed(model, windows, offer, units, progress):
        pass
    return units


def sensed(
    model: LanguageModel, windows: Tokens, offer: Offer, units: Sequence[Unit], progress: Progress | None = None
) -> Iterator[tuple[TensorSlice, Curvature]]:
    """Gives `units` their candidates, whatever the cache has, and keeps these there. Meanwhile it tells what each is judged by:
    the part of a matrix that plays one role, with its curvature.
    """
    roles = model.roles()
    guided = any(is_guided(way.needs) for way in offer.ways)
    inputs: Floats | None = None
    gram: Moments | None = None
    for role, layer, curvature in curvatures(model, windows, progress=progress):
        place = roles[role, layer]
        if curvature.inputs is not inputs:  # those that read one input share what follows from it
            inputs = curvature.inputs
            gram = None if inputs is None else Moments(inputs.astype(np.float64))
        moments = {} if gram is None else {"gram": gram} | ({"guided": _weighted(curvature)} if guided and layer >= 0 else {})
        for unit in units:
            if (role, layer) in unit.roles:
                block, part = place, curvature
                if unit.shape != unit.whole:  # roles that are blocks of rows are of matrices that play no other
                    block, part = TensorSlice(place.name, *unit.rows), curvature.of_rows(*unit.rows)
                seen = {} if ("embedding", -1) in unit.roles else moments  # by a head that is the embedding, too, none is rounded
                add_role(unit, model, block, choices_for(unit, offer), part, seen)
        yield place, curvature
    _keep(_path(model, windows, offer), units)


def known_sensitivities(model: LanguageModel, windows: Tokens, offer: Offer) -> list[Unit] | None:
    """The same from the cache; None where they are not in it."""
    return _read(_path(model, windows, offer))


def _path(model: LanguageModel, windows: Tokens, offer: Offer) -> Path:
    schemes, ways = (list(map(str, each)) for each in (offer.schemes, offer.ways))
    fixed = [(pattern, str(scheme)) for pattern, scheme in offer.fixed]
    facts = (_LAYOUT, model.fingerprint(), windows.tobytes(), schemes, ways, fixed)
    return cache_directory() / f"sensitivities-{hashlib.sha256(repr(facts).encode()).hexdigest()[:24]}.json"


def _weighted(curvature: Curvature) -> Moments:
    """With tokens weighed as calibration/guidance.py does, but for this matrix alone and not for all that read its input."""
    return Moments(curvature.weighted[0].astype(np.float64))


def _read(path: Path) -> list[Unit] | None:
    """None where there is no sound file."""
    try:
        return [_unit(entry) for entry in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError, BitwrightError):
        return None


def _keep(path: Path, units: Sequence[Unit]) -> None:
    data = []
    for unit in units:
        facts = {"name": unit.name, "shape": unit.shape, "whole": unit.whole, "roles": unit.roles}
        data.append(facts | {"candidates": list(map(_line, unit.candidates))})
    keep(path, lambda file: file.write(json.dumps(data).encode()))


def _line(candidate: Candidate) -> dict[str, Any]:
    choice = candidate.choice
    return {
        "scheme": str(choice.scheme),
        "method": choice.method,
        "fitting": choice.fitting,
        "rotate": choice.rotate,
        "guidance": choice.guidance,
        "bits": candidate.bits,
        "divergence": candidate.divergence,
    }


def _choice(name: str, line: dict[str, Any]) -> Choice:
    way = Way(line["method"], line["fitting"], bool(line["rotate"]), bool(line.get("guidance")))  # which older files lack
    return way.choice(name, Scheme.parse(line["scheme"]))


def _unit(entry: dict[str, Any]) -> Unit:
    roles = [(str(role), int(layer)) for role, layer in entry["roles"]]
    candidates = [
        Candidate(
            _choice(entry["name"], line),
            int(line["bits"]),
            float(line["divergence"]),
        )
        for line in entry["candidates"]
    ]
    rows, columns = entry["shape"]
    return Unit(entry["name"], (int(rows), int(columns)), roles, candidates, (int(entry["whole"][0]), int(entry["whole"][1])))
