"""`bitwright methods` and `bitwright formats`: what there is, one line each, read off the registries themselves.

What a method's line says is how the docstring that opens its file begins. No file is imported for that: some need torch.
What is spelled by a pattern, and has no file of its own, has its line here.
"""

from __future__ import annotations

import ast
import re
from importlib.resources import files

from bitwright.cli.console import Json, print_json, print_table

KINDS = {  # of methods -> what asks for one, and what it decides
    "rounding": "--method: which level each weight takes",
    "fitting": "--fitting: how the scale of a group is chosen",
    "transform": "--transform: the same function in numbers that are easier to round",
    "guidance": "--guidance: which tokens count for more in what a method sees",
    "rotation": "--rotate: the default, unless weights are pruned or columns scaled",
    "distillation": "--distill 1: training after rounding",
    "pruning": "--prune: which weights become zero",
    "schedule": "from Python, in training: how much of them, and when",
    "clustering": "from Python: where k-means starts; as schemes, kmeans4-tensor, kmeans4-tensor-n12 and any4-channel",
    "activations": "eval --activations, or a recipe's runtime: how the engine rounds what a layer reads",
    "simulated activations": "eval --activations: what other roundings would cost; int4 and int16 likewise",
    "KV cache": "run --kv-cache: how keys and values are kept",
    "observer": "from Python: statistics of what streams by",
}

MODULES = {
    "guidance": {"guidance": "calibration.guidance"},
    "rotation": {"rotate": "formats.hadamard"},
    "distillation": {"distill": "calibration.distillation"},
    "observer": {
        "MinMax": "observers.minmax",
        "MovingAverage": "observers.moving_average",
        "ColumnMoments": "observers.moments",
        "Histogram": "observers.histogram",
        "Gram": "observers.gram",
    },
}

SPELLED = {
    "pruning": {
        "0.5": "The half of a tensor's weights that is smallest",
        "row:0.5": "The half of each row that is smallest",
        "block4x4:0.5": "The half of a tensor's blocks of 4 x 4 that is smallest",
        "2:4": "2 of every 4 weights in a row; n:m keeps n of m",
    },
    "schedule": {
        "Constant": "All from one step on",
        "Polynomial": "A share that grows along a cubic, fast at first",
    },
    "clustering": {
        "linear": "Even steps from the smallest to the largest weight",
        "density": "Quantiles: as many weights between any two",
        "kmeans++": "Weights drawn by chance, those far from all drawn before being likelier",
    },
    "activations": {
        "int8": "One scale a token where columns are rotated, one for 32 channels elsewhere; the default",
        "int16": "15 bits, as two products of int8",
        "fp32": "Not rounded: the reference",
    },
    "simulated activations": {
        "int8-token": "One scale for each token, from the token itself",
        "fp8-token": "The same in floats of 8 bits, e4m3",
        "int8-g128": "One scale for every 128 channels of a token, from these themselves",
        "int8-channel": "One static scale for each channel, from calibration text",
        "int8-tensor-minmax": "One static scale: nothing of the calibration text is clipped",
        "int8-tensor-percentile": "One static scale: one value in 10000 is clipped",
        "int8-tensor-mse": "One static scale: clipping and rounding together give the least squared error",
        "int8-tensor-entropy": "One static scale: the quantized histogram tells least apart from the histogram (KL divergence)",
        "int8-tensor-average": "One static scale: a moving average of the windows' largest values, beyond which is clipped",
    },
    "KV cache": {
        "fp16": "Rounded to half precision; the default",
        "fp32": "Not rounded: the reference",
        "int8": "Whole numbers, one scale for each vector of a head",
        "int4": "The same in 4 bits, after a Hadamard transform of keys, queries and values",
    },
}


def methods(as_json: Json = False) -> None:
    """List the methods of every kind, and what asks for them."""
    rows = method_rows()
    if as_json:
        print_json({"methods": rows})
        return
    for kind, meaning in KINDS.items():
        cells = [(row["name"], row["summary"]) for row in rows if row["kind"] == kind]
        print_table(f"{kind}, {meaning}", ("name", "what it does"), cells, words=2)


def method_rows() -> list[dict[str, str]]:
    """Each with its `kind`, `name` and `summary`, kinds in the order of KINDS."""
    from bitwright.fitting import CALIBRATED, FITTING
    from bitwright.rounding import ROUNDING
    from bitwright.transforms import TRANSFORMS

    modules = MODULES | {
        "rounding": {name: method.round.__module__ for name, method in ROUNDING.items()},
        "fitting": {name: fit.__module__ for name, fit in {**FITTING, **CALIBRATED}.items()},
        "transform": {name: row.find.__module__ for name, row in TRANSFORMS.items()},
    }
    found = SPELLED | {
        kind: {name: first_sentence(module.removeprefix("bitwright.")) for name, module in table.items()}
        for kind, table in modules.items()
    }
    return [{"kind": kind, "name": name, "summary": summary} for kind in KINDS for name, summary in found[kind].items()]


def formats(as_json: Json = False) -> None:
    """List the number formats, and schemes with a name of their own."""
    from bitwright.core import Scheme
    from bitwright.engine.layout import BLOCK, held_as
    from bitwright.formats import FORMATS, NAMED

    rows = []
    for name, format in FORMATS.items():
        engine = held_as(Scheme(name, BLOCK, scale=format.scales[0]), 2 * BLOCK)
        rows.append({"name": name, "bits": format.bits, "engine": engine, "summary": format.summary})
    for name, meaning in NAMED.items():
        scheme = Scheme.parse(name)
        rows.append({"name": name, "bits": scheme.bits, "engine": held_as(scheme, BLOCK), "summary": f"is {meaning}"})
    if as_json:
        print_json({"formats": rows})
    else:
        print_table(
            "formats; a scheme adds how many weights share a scale: int4-g64, int8-channel, fixed8-tensor",
            ("format", "bits", "in the engine", "what it holds"),
            [tuple(map(str, row.values())) for row in rows],
            words=4,
        )


def first_sentence(module: str) -> str:
    """Of the docstring that opens a module of bitwright, such as "rounding.gptq": of its first line, without the source."""
    *rooms, name = module.split(".")
    source = files("bitwright").joinpath(*rooms, f"{name}.py").read_text("utf-8")
    line = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return re.split(r"\. (?=[A-Z])| \([A-Z]\w+ et al", line)[0].rstrip(".")
