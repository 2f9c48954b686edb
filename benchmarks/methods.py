"""Quality of our methods beside peers' own code, at equal bits: KL divergence of one model, quantized by each.

    python benchmarks/methods.py [--windows 32] [--tokens 4096] [--only llm-compressor,bitwright] [--budgets 4.25]

On the twin of SmolLM2, over windows of 512 tokens of WikiText-2 validation. All see the same calibration tokens, which the
model has written itself. Only the weights of the blocks are compared: each peer quantizes them by its own code and hands
back the dequantized model, which one piece of code scores; embedding and head are int8-channel, by us, in all, and
activations are fp32. Bits are of the blocks' weights as they are stored, scales and zero points counted.

A budget is won by the best of ours at no more bits against the best peer at no fewer. What each contender gave is kept
in ~/.cache/bitwright-benchmarks/methods by calibration and text, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bitwright
from bitwright.calibration.text import Source
from bitwright.core import Choice, Recipe, Scheme
from bitwright.models import load
from calibration import command
from export import CALIBRATION, body
from material import TEXT, home, twin
from peers import hqq_interpreter, llm_compressor_interpreter
from results import circumstances, table, verdict, write
from worker import Worker

CONTEXT = 512
LOWER_BY = {4.25: 0.20, 3.25: 0.30, 2.25: 0.40}  # KL than the best peer's, at so many bits
DISTILLED = 2  # passes
PEER_BITS = 0.5  # that a peer may take beyond the budget and still be the one to beat
TABLE_BITS = 0.005  # a table of levels for each tensor, forgiven


@dataclass(frozen=True)
class Contender:
    """`kind` is what the worker is asked for; of ours it is a method, a scheme, and `unrotated` and `distilled` where it is that.
    `v_proj=int6-g64` and its like give matrices of one kind a scheme of their own.

    `bits` is the budget, `stored` the bits a weight that the peer's own file takes, computed from its layout; 0 for ours.
    """

    system: str
    kind: str
    bits: float
    stored: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.system} {self.kind}"


def with_zero_points(bits: int, group: int, zero_bits: int) -> float:
    """Bits a weight with an fp16 scale and a zero point a group."""
    return bits + (16 + zero_bits) / group


CONTENDERS = (
    Contender("llm-compressor", "gptq int4-g64", 4.25, 4.25),
    Contender("bitwright", "refine int4-g64 unrotated", 4.25),
    Contender("llm-compressor", "gptq int3-g64", 3.25, 3.25),
    Contender("bitwright", "refine kmeans3-g64 unrotated", 3.25),
    Contender("hqq", "int4-g64", 4.25, with_zero_points(4, 64, 16)),
    Contender("hqq", "int3-g64", 3.25, with_zero_points(3, 64, 16)),
    Contender("llm-compressor", "gptq int4-g64-affine", 4.25, with_zero_points(4, 64, 4)),
    Contender("llm-compressor", "gptq int3-g64-affine", 3.25, with_zero_points(3, 64, 3)),
    Contender("llm-compressor", "gptq int2-g64-affine", 2.25, with_zero_points(2, 64, 2)),
    Contender("bitwright", "guided int4-g64 unrotated", 4.25),
    Contender("bitwright", "refine int4-g96-affine unrotated", 4.25),
    Contender("bitwright", "guided kmeans3-g64 unrotated", 3.25),
    Contender("bitwright", "refine int3-g96-affine unrotated", 3.25),
    Contender("bitwright", "refine kmeans2-g64 unrotated", 2.25),
    Contender("bitwright", "guided kmeans2-g64 unrotated", 2.25),
    Contender("bitwright", "guided kmeans4-g64 unrotated", 4.25),
    Contender("bitwright", "guided int4-g32-srow5 unrotated v_proj=int6-g64", 4.25),
    Contender("bitwright", "guided kmeans4-g96 unrotated v_proj=int6-g64", 4.25),
    Contender("bitwright", "guided kmeans4-g96 unrotated v_proj=int6-g64 distilled", 4.25),
    Contender("bitwright", "guided kmeans4-g64 unrotated distilled", 4.25),
    Contender("bitwright", "refine int4-g96-affine unrotated distilled", 4.25),
    Contender("bitwright", "refine int3-g96-affine unrotated distilled", 3.25),
    Contender("bitwright", "refine kmeans2-g64 unrotated distilled", 2.25),
    Contender("llm-compressor", "awq int4-g64-affine", 4.25, with_zero_points(4, 64, 4)),
    Contender("hqq", "int2-g64", 2.25, with_zero_points(2, 64, 16)),
)
WORKERS: dict[str, tuple[Callable[[], Path], str]] = {
    "llm-compressor": (llm_compressor_interpreter, "llm_compressor_worker.py"),
    "hqq": (hqq_interpreter, "hqq_worker.py"),
}

EVERYBODY = ",".join([*WORKERS, "bitwright"])


def recipe(scheme: str, method: str, rotate: bool, distill: int = 0, own: Sequence[str] = ()) -> Recipe:
    """The blocks by `scheme`, but for those with their `own`; embedding and head at int8-channel, as in every contender."""
    ends = tuple(Choice(name, Scheme.parse("int8-channel")) for name in ("model.embed_tokens.weight", "lm_head.weight"))
    schemes = [(f"*{kind}*", spelling) for kind, _, spelling in (one.partition("=") for one in own)]
    body = tuple(Choice(names, Scheme.parse(one), method, rotate=rotate) for names, one in (*schemes, ("*", scheme)))
    return Recipe((*ends, *body), distill=distill)


def made_by_us(kind: str, windows: int, out: Path) -> dict[str, Any]:
    method, scheme, *flags = kind.split()
    passes = DISTILLED if "distilled" in flags else 0
    own = [flag for flag in flags if "=" in flag]
    recipe(scheme, method, "unrotated" not in flags, passes, own).save(out.with_suffix(".json"))
    tokens = ("--calibration", "self", "--calibration-tokens", windows * CONTEXT)
    made = command("quantize", twin(), "-o", out, "--recipe", out.with_suffix(".json"), *tokens)
    return {"seconds": made["seconds"], "peak_rss_bytes": made["peak_rss_bytes"]}


def made_by_peer(contender: Contender, calibration: Path, out: Path) -> dict[str, Any]:
    interpreter, script = WORKERS[contender.system]
    floats = out.with_suffix(".floats")
    with Worker(interpreter(), script, {CALIBRATION: str(calibration), "OMP_NUM_THREADS": "2"}) as worker:
        answer = worker.ask("quantize", source=str(twin()), target=str(floats), kind=contender.kind)
    recipe("fp32", "nearest", False).save(out.with_suffix(".json"))
    command("quantize", floats, "-o", out, "--recipe", out.with_suffix(".json"))
    return {"seconds": answer["seconds"], "peak_rss_bytes": answer["peak_rss_bytes"]}


def body_bits(path: Path) -> float:
    """Bits a weight that the matrices of the blocks take in an artifact."""
    model = load(path)
    matrices = body(model.names())
    weights = sum(int(np.prod(model.shape(name))) for name in matrices)
    return sum(model.stored_bits(name) for name in matrices) / weights


def measure(contender: Contender, calibration: Path, tokens: int) -> dict[str, Any]:
    """One contender, or what an earlier run of the same found."""
    windows = np.load(calibration)
    key = json.dumps([asdict(contender), hashlib.sha256(windows.tobytes()).hexdigest(), tokens, TEXT.stat().st_size])
    kept = home() / "methods" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return found
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        ours = contender.system == "bitwright"
        cost = made_by_us(contender.kind, len(windows), out) if ours else made_by_peer(contender, calibration, out)
        text = ("--text", TEXT, "--context", CONTEXT, "--tokens", tokens)
        figures = command("eval", out, "--reference", twin(), *text, "--activations", "fp32")
        bits = body_bits(out) if ours else contender.stored
    row = {"system": contender.system, "kind": contender.kind, "budget": contender.bits, "bits": bits} | cost
    row |= {key: figures[key] for key in ("kl_mean", "kl_mean_interval", "perplexity", "top1_agreement")}
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(row) + "\n", "utf-8")
    return row


def written(windows: int) -> Path:
    """The calibration tokens that `bitwright quantize --calibration self` takes, in a file for peers."""
    path = home() / f"methods-calibration-{windows}.npy"
    if not path.exists():
        np.save(path, bitwright.quantize(load(twin()), recipe("int4-g64", "gptq", True), Source("self", windows)).text.windows)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Our methods beside peers' own code, on the twin of SmolLM2-135M.")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--only", default=EVERYBODY)
    parser.add_argument("--budgets", default=",".join(map(str, LOWER_BY)))
    options = parser.parse_args()
    if not TEXT.exists():
        raise SystemExit(f"{TEXT} is not here: this benchmark needs the WikiText-2 validation text")
    calibration, rows, failed = written(options.windows), [], {}
    budgets = set(map(float, options.budgets.split(",")))
    for contender in CONTENDERS:
        if contender.system not in options.only.split(",") or contender.bits not in budgets:
            continue
        try:
            rows.append(measure(contender, calibration, options.tokens))
        except (RuntimeError, subprocess.CalledProcessError) as fault:  # a peer that ends is no reason to lose the others
            failed[contender.name] = str(fault)
        print(json.dumps(rows[-1] if contender.name not in failed else failed), file=sys.stderr, flush=True)
    report(rows, failed, options)


def report(rows: list[dict[str, Any]], failed: dict[str, str], options: argparse.Namespace) -> None:
    made = f"python benchmarks/methods.py --windows {options.windows} --tokens {options.tokens}"
    made += "" if options.only == EVERYBODY else f" --only {options.only}"
    versions = {system: interpreter().parents[1].name for system, (interpreter, _) in WORKERS.items()}
    data = {"circumstances": circumstances(), "command": made, "failed": failed, "rows": rows, "versions": versions}
    rows = sorted(rows, key=lambda row: (-row["budget"], row["kl_mean"]))
    lines = [
        (
            *(row["system"], row["kind"], row["bits"], row["kl_mean"], "{:.4g} .. {:.4g}".format(*row["kl_mean_interval"])),
            *(row["perplexity"], row["top1_agreement"], row["seconds"]),
        )
        for row in rows
    ]
    bars = [bar for budget, share in LOWER_BY.items() for bar in judged(rows, budget, share)]
    header = ("system", "kind", "bits per body weight", "KL", "interval", "perplexity", "top-1", "seconds")
    note = (
        f"{options.windows} windows of {CONTEXT} tokens, written by the model, calibrate; {options.tokens} tokens of WikiText-2 "
        f"validation; weights alone; {', '.join(versions.values())}. Seconds are of a machine that others used, too.\n"
    )
    write("methods", "Methods beside peers' own, SmolLM2-135M's twin", data, [note, table(header, lines), *bars])


def judged(rows: list[dict[str, Any]], budget: float, share: float) -> list[str]:
    """The verdict on one budget, where both sides have run."""
    ours = [
        row for row in rows if row["system"] == "bitwright" and row["bits"] <= budget + TABLE_BITS and row["budget"] == budget
    ]
    peers = [row for row in rows if row["system"] != "bitwright" and budget <= row["bits"] <= budget + PEER_BITS]
    if not ours or not peers:
        return []
    best, other = (min(side, key=lambda row: row["kl_mean"]) for side in (ours, peers))
    name = f"KL at {budget} bits, {best['kind']}, beside {other['system']} {other['kind']}"
    return [verdict(name, best["kl_mean"], (1 - share) * other["kl_mean"])]


if __name__ == "__main__":
    main()
