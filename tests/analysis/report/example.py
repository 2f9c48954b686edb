"""A document as `analyze` would write it for a model of 30 blocks, drawn from a seed: realistic, and measured nowhere."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

SHAPES = {
    "q": (576, 576),
    "k": (192, 576),
    "v": (192, 576),
    "o": (576, 576),
    "gate": (1536, 576),
    "up": (1536, 576),
    "down": (576, 1536),
}
NAMES = {
    "q": "self_attn.q",
    "k": "self_attn.k",
    "v": "self_attn.v",
    "o": "self_attn.o",
    "gate": "mlp.gate",
    "up": "mlp.up",
    "down": "mlp.down",
}
WEIGHT = {"q": 0.6, "k": 0.8, "v": 1.6, "o": 1.0, "gate": 0.9, "up": 1.1, "down": 2.2}
SCHEMES = {3.25: "int3-g64", 4.25: "int4-g64", 4.5: "int4-g32", 8.03: "int8-channel"}
Json = dict[str, Any]


def example(blocks: int = 30, seed: int = 0) -> Json:
    draw = np.random.default_rng(seed)
    tensors = [_tensor(draw, layer, kind, blocks) for layer in range(blocks) for kind in SHAPES]
    tensors.append(_head(draw))
    total = sum(tensor["kl_alone"] for tensor in tensors)
    worst = sorted(tensors, key=lambda tensor: -tensor["kl_alone"])[:6]
    size = sum(tensor["bytes"] for tensor in tensors)
    return {
        "kind": "analysis",
        "verdict": f"At {size / 1e6:.1f} MB, a third of the original, the model answers almost the same: KL is 0.0412 nats.",
        "model": {"name": "example-135m", "parameters": 134515008, "blocks": blocks},
        "machine": "Example CPU, 2 cores, AVX-512 VNNI",
        "made_by": "bitwright analyze example-135m --recipe recipe.json -o report.html",
        "bitwright": "0.1.0",
        "activations": "int16",
        "kv_cache": "fp16",
        "warnings": ["The text has 8 windows only: intervals are wide."],
        "text": {
            "name": "example.txt",
            "tokens": 4096,
            "context": 512,
            "held_out": "no run of 24 tokens is in the calibration text",
        },
        "whole": {
            "size_bytes": size,
            "bits_per_weight": 4.83,
            "kl_mean": 0.0412,
            "kl_mean_interval": [0.0388, 0.0437],
            "kl_p99": 0.391,
            "kl_p99_interval": [0.342, 0.447],
            "kl_max": 2.84,
            "top1_agreement": 0.913,
            "top1_agreement_interval": [0.904, 0.922],
            "flips": 0.087,
            "perplexity": 17.62,
            "perplexity_interval": [16.31, 19.04],
            "perplexity_reference": 17.08,
            "loss_reference": 2.838,
            "loss_added": 0.0311,
            "loss_added_interval": [0.0254, 0.0371],
            "noise_floor_kl": 0.00021,
        },
        "shares": "measured",
        "tensors": tensors,
        "kinds": _kinds(tensors),
        "swaps": [
            {"swapped": 23, "before": 0.0437, "after": 0.0412, "kept": True},
            {"swapped": 5, "before": 0.0412, "after": 0.0418, "kept": False},
        ],
        "fixes": [_fix(draw, tensor) for tensor in worst],
        "additivity": {"sum_of_parts": total, "together": 0.0412},
        "estimate": {"rank_correlation": 0.93, "tensors": len(tensors)},
        "cumulative": _cumulative(draw, blocks),
        "token_kinds": _token_kinds(),
        "histograms": [_histogram(draw, tensor) for tensor in tensors],
        "frontier": _frontier(draw, size),
        "predicted": [
            {"quantity": "size", "predicted": 83.8e6, "true": size, "unit": "bytes"},
            {"quantity": "KL", "predicted": 0.0391, "true": 0.0412, "unit": "nats"},
            {"quantity": "decode speed", "predicted": 131.0, "true": 118.4, "unit": "tokens/s"},
            {"quantity": "peak memory", "predicted": 142e6, "true": 139e6, "unit": "bytes"},
        ],
        "budget": [
            {"quantity": "size, at most", "limit": 85e6, "reached": size, "unit": "bytes", "met": True},
            {"quantity": "KL, at most", "limit": 0.04, "reached": 0.0412, "unit": "nats", "met": False},
        ],
        "roofline": _roofline(),
        "energy": {"joules_per_token": 0.214, "how": "estimate"},
    }


ATTACKS = (
    "</script><script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 1'>",
    "<!--<script>",
    "\"'><svg onload=window.attacked=1>",
    "<a href='javascript:window.attacked=1'>name</a>",
    "${window.attacked=1} {{ 7*7 }} {% raw %} %{x} $x^2$",
    "\u202egnp.\u2028\x00\ud800" + "w" * 300,
)


PLAIN = ("kind", "name", "shares")


def hostile() -> Json:
    """A small document in which every text is an attack, each at some place."""
    attacks = itertools.cycle(ATTACKS)

    def attacked(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: part if key in PLAIN and isinstance(part, str) else attacked(part) for key, part in value.items()}
        if isinstance(value, list):
            return [attacked(part) for part in value]
        return next(attacks) if isinstance(value, str) else value

    document = attacked(example(2))
    renamed = {tensor["name"]: next(attacks) + str(n) for n, tensor in enumerate(document["tensors"])}
    kinds = {tensor["kind"]: next(attacks) for tensor in document["tensors"]}
    for part in document["tensors"] + document["histograms"]:
        part |= {"name": renamed[part["name"]], "kind": kinds[part["kind"]]}
    for fix, name in zip(document["fixes"], renamed.values(), strict=False):
        fix["tensor"] = name
    for point in document["roofline"]["points"] + [document["model"], document["text"]]:
        point["name"] = next(attacks)
    for kind in document["token_kinds"]:
        kind["kind"] = next(attacks)
    return document


def _tensor(draw: np.random.Generator, layer: int, kind: str, blocks: int) -> Json:
    rows, columns = SHAPES[kind]
    depth = 1.0 + 1.6 * np.exp(-layer / 1.5) + 2.0 * np.exp(-(blocks - 1 - layer) / 2.5)
    cost = 1.2e-4 * WEIGHT[kind] * depth * draw.lognormal(0, 0.35)
    bits = 8.03 if cost > 9e-4 else 4.5 if cost > 3e-4 else 4.25 if cost > 9e-5 else 3.25
    return {
        "name": f"model.layers.{layer}.{NAMES[kind]}_proj.weight",
        "layer": layer,
        "kind": kind,
        "shape": [rows, columns],
        "scheme": SCHEMES[bits],
        "method": "refine",
        "bits": bits,
        "bytes": int(rows * columns * bits / 8),
        "kl_alone": float(cost),
        "kl_alone_interval": [float(cost * 0.9), float(cost * 1.12)],
        "kl_regained": float(cost * draw.uniform(0.7, 1.2)),
        "kl_estimated": float(cost * draw.lognormal(0.05, 0.25)),
        "sqnr_db": float(6.02 * bits - 5 + draw.normal(0, 0.7)),
        "cosine": float(1 - 0.003 * draw.lognormal(0, 0.3)),
        "largest_error": float(0.02 * draw.lognormal(0, 0.3)),
        "clipped_share": float(0.0004 * draw.lognormal(0, 1)),
        "unused_share": 0.0,
        "output_error": float(0.01 * draw.lognormal(0, 0.5)),
        "reason": "cheapest way left to win back KL" if bits > 4.25 else "its loss is too small to be worth more bits",
    }


def _head(draw: np.random.Generator) -> Json:
    head = _tensor(draw, 0, "q", 30) | {"name": "model.embed_tokens.weight", "layer": -1, "kind": "head", "shape": [49152, 576]}
    return head | {
        "scheme": "int8-channel",
        "bits": 8.03,
        "bytes": 28_410_000,
        "kl_alone": 0.00061,
        "kl_estimated": 0.00055,
        "kl_alone_interval": [0.00055, 0.0007],
        "reason": "the head keeps 8 bits",
    }


def _fix(draw: np.random.Generator, tensor: Json) -> Json:
    won = tensor["kl_alone"] * draw.uniform(0.6, 0.95)
    extra = int(tensor["bytes"] * 0.9)
    better = {"from_scheme": tensor["scheme"], "to_scheme": "fp16" if tensor["bits"] > 8 else "int8-channel", "measured": True}
    return {"tensor": tensor["name"], "kl_before": 0.0412, "kl_after": 0.0412 - won, "extra_bytes": extra} | better


def _cumulative(draw: np.random.Generator, blocks: int) -> list[Json]:
    rises = 0.0008 + 0.0004 * draw.random(blocks) + 0.004 * np.exp(-(blocks - 1 - np.arange(blocks)) / 2.0)
    heights = np.cumsum(rises) * 0.0412 / rises.sum()
    return [{"block": block, "kl": float(kl)} for block, kl in enumerate(heights)]


def _token_kinds() -> list[Json]:
    rows = [
        ("words", 0.52, 0.035, 2.9, 0.021),
        ("parts of words", 0.21, 0.058, 2.2, 0.040),
        ("punctuation", 0.17, 0.027, 1.7, 0.012),
    ]
    rows += [("numbers", 0.06, 0.081, 3.4, 0.066), ("line breaks", 0.04, 0.022, 1.1, 0.009)]
    names = ("kind", "share", "kl", "nll_reference", "nll_added")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _histogram(draw: np.random.Generator, tensor: Json) -> Json:
    weights = draw.normal(0, 0.05, 1500) * draw.lognormal(0, 0.25, 1500)
    levels = 2 ** int(tensor["bits"])
    step = 0.34 / levels
    counts, edges = np.histogram(weights, bins=48)
    inputs, input_edges = np.histogram(draw.standard_t(4, 1500), bins=48)
    lattice = [(code - levels // 2) * step for code in range(levels)]
    return {
        "name": tensor["name"],
        "kind": tensor["kind"],
        "layer": tensor["layer"],
        "weights": {"edges": edges.tolist(), "counts": counts.tolist(), "levels": lattice},
        "activations": {"edges": input_edges.tolist(), "counts": inputs.tolist(), "levels": None},
    }


def _frontier(draw: np.random.Generator, size: int) -> list[Json]:
    points = []
    for bits, name in ((2.25, "int2-g64"), (3.25, "int3-g64"), (4.25, "int4-g64"), (5.25, "int5-g64"), (8.03, "int8-channel")):
        kl = 0.055 * 2 ** (-2 * (bits - 4.25)) + 0.0006
        points.append(
            {
                "label": name,
                "size_bytes": int(28.4e6 + 106e6 * bits / 8),
                "kl": kl,
                "uniform": True,
                "measured": True,
                "chosen": False,
            }
        )
    for bits in np.arange(2.5, 8.0, 0.25):
        kl = 0.034 * 2 ** (-1.9 * (bits - 4.25)) + 0.0004
        predicted = {
            "label": f"{bits:g} bits",
            "size_bytes": int(28.4e6 + 106e6 * bits / 8),
            "kl": float(kl * draw.lognormal(0, 0.03)),
        }
        points.append(predicted | {"uniform": False, "measured": False, "chosen": False})
    points.append({"label": "recipe.json", "size_bytes": size, "kl": 0.0412, "uniform": False, "measured": True, "chosen": True})
    return points


def _roofline() -> Json:
    rows = [
        ("MLP", 3.4, 3.6e10, 0.58, 47e6),
        ("attention matrices", 3.4, 3.3e10, 0.17, 14e6),
        ("head", 2.0, 2.6e10, 0.19, 28.4e6),
    ]
    rows += [("attention over the cache", 1.0, 0.9e10, 0.04, 4e6), ("prompt, all matrices", 420.0, 6.1e11, 0.02, 0.8e6)]
    names = ("name", "operations_per_byte", "operations_per_s", "seconds_share", "bytes")
    points = [dict(zip(names, row, strict=True)) for row in rows]
    for point in points:
        point["bytes"] = int(point["bytes"])
    return {"bandwidth_bytes_per_s": 1.42e10, "peak_operations_per_s": 9.1e11, "points": points}


def _kinds(tensors: list[Json]) -> list[Json]:
    weights, loss = (sum(map(of, tensors)) for of in (_weights, lambda tensor: tensor["kl_alone"]))
    rows = []
    for kind in dict.fromkeys(tensor["kind"] for tensor in tensors):
        mine = [tensor for tensor in tensors if tensor["kind"] == kind]
        lost = sum(tensor["kl_alone"] for tensor in mine)
        rows.append({"kind": kind, "weights_share": sum(map(_weights, mine)) / weights, "kl": lost, "kl_share": lost / loss})
    return sorted(rows, key=lambda row: -row["kl_share"] / row["weights_share"])


def _weights(tensor: Json) -> int:
    return int(np.prod(tensor["shape"]))
