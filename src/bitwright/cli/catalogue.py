"""`bitwright methods` and `bitwright formats`: what there is, one line each, read off the registries themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from bitwright.cli.console import Json, print_json, print_table


def methods(as_json: Json = False) -> None:
    """List the roundings, fittings and transforms."""
    from bitwright.fitting import CALIBRATED, FITTING
    from bitwright.rounding import ROUNDING
    from bitwright.transforms import TRANSFORMS

    rounding: dict[str, Callable[..., Any]] = {name: method.round for name, method in ROUNDING.items()}
    kinds: dict[str, dict[str, Callable[..., Any]]] = {"rounding": rounding, "fitting": {**FITTING, **CALIBRATED}}
    kinds["transform"] = {name: row.find for name, row in TRANSFORMS.items()}
    rows = [
        {"kind": kind, "name": name, "summary": first_sentence(function)}
        for kind, table in kinds.items()
        for name, function in table.items()
    ]
    if as_json:
        print_json({"methods": rows})
    else:
        cells = [(row["name"], row["kind"], row["summary"]) for row in rows]
        print_table("methods", ("method", "kind", "what it does"), cells, words=3)


def formats(as_json: Json = False) -> None:
    """List the number formats, and schemes with a name of their own."""
    from bitwright.core import Scheme
    from bitwright.formats import FORMATS, NAMED

    rows = [{"name": name, "bits": format.bits, "summary": format.summary} for name, format in FORMATS.items()]
    rows += [{"name": name, "bits": Scheme.parse(name).bits, "summary": f"is {meaning}"} for name, meaning in NAMED.items()]
    if as_json:
        print_json({"formats": rows})
    else:
        print_table(
            "formats; a scheme adds how many weights share a scale: int4-g64, int8-channel, fixed8-tensor",
            ("format", "bits", "what it holds"),
            [(str(row["name"]), str(row["bits"]), str(row["summary"])) for row in rows],
            words=3,
        )


def first_sentence(function: Callable[..., Any]) -> str:
    """What a method's file says of itself: the beginning of its docstring, which opens every file in this house."""
    line = (sys.modules[function.__module__].__doc__ or "").strip().partition("\n")[0]
    return line.partition(". ")[0].rstrip(".")
