"""Quality of our methods beside peers' own code, at equal bits: KL divergence of one model, quantized by each.

    python benchmarks/methods.py [--windows 32] [--tokens 4096] [--only hqq,"nncf nf4-g64 awq scale"] [--budgets 4.25]

On the twin of SmolLM2, over windows of 512 tokens of WikiText-2 validation. All see the same calibration tokens, which the
model has written itself. Only the weights of the blocks are compared: each peer quantizes them by its own code and hands
back the dequantized model, which one piece of code scores; embedding and head are int8-channel, by us, in all, and
activations are fp32. Bits are of the blocks' weights as they are stored, scales and zero points counted.

A budget is won by the best of ours at no more bits against the best peer at no fewer. What each contender gave is kept in
~/.cache/bitwright-benchmarks/methods by its version, calibration and text, so that an interrupted run goes on. Rows that
`--only` leaves out stay in the results as an earlier run wrote them, where its calibration and text were the same; so do all
rows of a budget that this run did not try. What the model writes differs between kinds of machine, so budgets may differ in it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import bitwright
from bitwright.allocation.candidates import Offer
from bitwright.allocation.sensitivity import sensitivities
from bitwright.allocation.solver import choose
from bitwright.allocation.ways import Way
from bitwright.calibration.text import Source
from bitwright.core import Choice, Recipe, Scheme
from bitwright.models import load
from calibration import command
from export import CALIBRATION, body
from material import TEXT, home, twin
from method_contenders import CONTENDERS, OURS, PEERS, Contender, chosen, version
from results import RESULTS, circumstances, table, verdict, write
from worker import Worker

CONTEXT = 512
LOWER_BY = {4.25: 0.20, 3.25: 0.30, 2.25: 0.40}  # KL than the best peer's, at so many bits
DISTILLED = 2  # passes
PLAN_WINDOWS = 16  # of the calibration text, on which a mix of schemes is chosen
MIXED = {  # what its matrices may have
    4.25: ("kmeans3-g96", "kmeans4-g96", "kmeans4-g64", "int5-g64", "int6-g64"),
    3.25: ("kmeans2-g64", "kmeans3-g96", "kmeans3-g64", "kmeans4-g96", "int5-g64", "int6-g64"),
    2.25: ("kmeans2-g192", "kmeans2-g96", "kmeans2-g64", "kmeans3-g96", "kmeans4-g96", "int5-g64"),
}
PEER_BITS = 0.5  # that a peer may take beyond the budget and still be the one to beat
ENDS = tuple(Choice(name, Scheme.parse("int8-channel")) for name in ("model.embed_tokens.weight", "lm_head.weight"))
TABLE_BITS = 0.005  # a table of levels for each tensor, forgiven

Row = dict[str, Any]


def recipe(scheme: str, method: str, rotate: bool, distill: int = 0, own: Sequence[str] = ()) -> Recipe:
    """The blocks by `scheme`, but for those with their `own`; embedding and head at int8-channel, as in every contender."""
    schemes = [(f"*{kind}*", spelling) for kind, _, spelling in (one.partition("=") for one in own)]
    body = tuple(Choice(names, Scheme.parse(one), method, rotate=rotate) for names, one in (*schemes, ("*", scheme)))
    return Recipe((*ENDS, *body), distill=distill)


def mixed(method: str, bits: float, rotate: bool, distill: int, calibration: Path) -> Recipe:
    """Each matrix of the blocks by the scheme that the planner's integer program finds for it, `bits` a weight on average.

    What its error costs is looked for by plain GPTQ on the calibration text, and nothing else is seen.
    """
    model, windows = load(twin()), np.load(calibration)
    fixed = tuple((end.pattern, end.scheme) for end in ENDS)
    offer = Offer(tuple(Scheme.parse(scheme) for scheme in MIXED[bits]), (Way("gptq", rotate=rotate),), fixed)
    units = sensitivities(model, windows[:PLAN_WINDOWS], offer)
    of_body = set(body(model.names()))
    weights = sum(int(np.prod(unit.shape)) for unit in units if unit.name in of_body)
    costs = [unit for unit in units if unit.name in of_body]
    table = {
        "bits": [np.array([candidate.bits for candidate in unit.candidates], np.float64) for unit in costs],
        "divergence": [np.array([candidate.divergence for candidate in unit.candidates]) for unit in costs],
    }
    chosen = choose(table, {}, "divergence", {"bits": bits * weights})
    choices = [replace(unit.candidates[index].choice, method=method) for unit, index in zip(costs, chosen, strict=True)]
    return Recipe((*ENDS, *choices), distill=distill)


def made_by_us(kind: str, calibration: Path, out: Path) -> Row:
    method, scheme, *flags = kind.split()
    passes = DISTILLED if "distilled" in flags else 0
    own, rotate = [flag for flag in flags if "=" in flag], "unrotated" not in flags
    if scheme.startswith("mixed"):
        found = mixed(method, float(scheme.removeprefix("mixed")), rotate, passes, calibration)
    else:
        found = recipe(scheme, method, rotate, passes, own)
    found.save(out.with_suffix(".json"))
    tokens = ("--calibration", "self", "--calibration-tokens", len(np.load(calibration)) * CONTEXT)
    made = command("quantize", twin(), "-o", out, "--recipe", out.with_suffix(".json"), *tokens)
    return {"bits": body_bits(out), "seconds": made["seconds"], "peak_rss_bytes": made["peak_rss_bytes"]}


def made_by_peer(contender: Contender, calibration: Path, out: Path) -> Row:
    """Raises RuntimeError, with the last line that the peer printed, where it ends without an answer."""
    peer, floats, log = PEERS[contender.system], out.with_suffix(".floats"), out.with_suffix(".log")
    variables = {CALIBRATION: str(calibration), "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    interpreter = peer.interpreter()
    try:
        with open(log, "w", encoding="utf-8") as printed, Worker(interpreter, peer.script, variables, printed) as worker:
            answer = worker.ask("quantize", source=str(twin()), target=str(floats), kind=contender.kind)
    except RuntimeError as fault:
        print(log.read_text("utf-8"), file=sys.stderr)
        raise RuntimeError(log.read_text("utf-8").strip().splitlines()[-1]) from fault
    recipe("fp32", "nearest", False).save(out.with_suffix(".json"))
    command("quantize", floats, "-o", out, "--recipe", out.with_suffix(".json"))
    bits = {"bits": contender.stored} if contender.stored else {}
    return bits | {key: answer[key] for key in ("seconds", "peak_rss_bytes", "bits") if key in answer}


def body_bits(path: Path) -> float:
    """Bits a weight that the matrices of the blocks take in an artifact."""
    model = load(path)
    matrices = body(model.names())
    weights = sum(int(np.prod(model.shape(name))) for name in matrices)
    return sum(model.stored_bits(name) for name in matrices) / weights


def measure(contender: Contender, calibration: Path, tokens: int) -> Row:
    """One contender, or what an earlier run of the same found."""
    windows = np.load(calibration)
    where = setting(windows, tokens)
    row = {"system": contender.system, "kind": contender.kind, "budget": contender.bits, "version": version(contender.system)}
    key = json.dumps([row, asdict(contender), where, TEXT.stat().st_size])
    kept = home() / "methods" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if kept.exists():
        found: Row = json.loads(kept.read_text("utf-8"))
        return found
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        ours = contender.system == OURS
        cost = made_by_us(contender.kind, calibration, out) if ours else made_by_peer(contender, calibration, out)
        text = ("--text", TEXT, "--context", CONTEXT, "--tokens", tokens)
        figures = command("eval", out, "--reference", twin(), *text, "--activations", "fp32")
    row |= cost | {key: figures[key] for key in ("kl_mean", "kl_mean_interval", "perplexity", "top1_agreement")} | where
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(row) + "\n", "utf-8")
    return row


def setting(windows: Any, tokens: int) -> Row:
    """What must be the same for two rows to stand in one table."""
    return {"windows": len(windows), "calibration": hashlib.sha256(windows.tobytes()).hexdigest()[:16], "tokens": tokens}


def with_earlier(rows: list[Row], failed: dict[str, str], where: Row, earlier: Row) -> tuple[list[Row], dict[str, str]]:
    """`rows` and `failed` of this run, and those of `earlier` results that this run did not try.

    Of the budgets that it has rows of only what was got as these, of the others all.
    """
    budgets = {contender.name: contender.bits for contender in CONTENDERS}
    tried = {f"{row['system']} {row['kind']}" for row in rows} | set(failed)
    again = {row["budget"] for row in rows}
    kept = {f"{row['system']} {row['kind']}": row for row in earlier.get("rows", [])}
    cpu = {"cpu": earlier["circumstances"]["cpu"]} if kept else {}
    fits = {name for name, row in kept.items() if where.items() <= row.items() or budgets.get(name) not in again}
    rows = rows + [cpu | row for name, row in kept.items() if name in fits and name in budgets and name not in tried]
    also = {name: why for name, why in earlier.get("failed", {}).items() if name in budgets and name not in tried}
    return rows, failed | also


def written(windows: int) -> Path:
    """The calibration tokens that `bitwright quantize --calibration self` takes today, in a file for peers."""
    found = bitwright.quantize(load(twin()), recipe("int4-g64", "gptq", True), Source("self", windows)).text.windows
    path = home() / f"methods-calibration-{hashlib.sha256(found.tobytes()).hexdigest()[:16]}.npy"
    np.save(path, found)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Our methods beside peers' own code, on the twin of SmolLM2-135M.")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--only", default="", help="systems, or contenders by name, with commas between")
    parser.add_argument("--budgets", default="")
    options = parser.parse_args()
    contenders = chosen(options.only, options.budgets)
    if not TEXT.exists():
        raise SystemExit(f"{TEXT} is not here: this benchmark needs the WikiText-2 validation text")
    calibration, begun = written(options.windows), circumstances()
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for contender in contenders:
        try:
            rows.append({"cpu": begun["cpu"]} | measure(contender, calibration, options.tokens))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        except (RuntimeError, subprocess.CalledProcessError) as fault:  # a peer that ends is no reason to lose the others
            failed[contender.name] = f"{version(contender.system)}: {fault}"
            print(json.dumps(failed), file=sys.stderr, flush=True)
    results = RESULTS / "methods.json"
    earlier = json.loads(results.read_text("utf-8")) if results.exists() else {}
    where = setting(np.load(calibration), options.tokens)
    rows, failed = with_earlier(rows, failed, where, earlier)
    made = f"python benchmarks/methods.py --windows {options.windows} --tokens {options.tokens}"
    report({"circumstances": begun, "command": made, "failed": failed, "rows": rows} | where)


def report(data: Row) -> None:
    rows = sorted(data["rows"], key=lambda row: (-row["budget"], row["kl_mean"]))
    lines = [
        (
            *(row["system"], row["version"], row["kind"], row["bits"], row["kl_mean"]),
            "{:.4g} .. {:.4g}".format(*row["kl_mean_interval"]),
            *(row["perplexity"], row["top1_agreement"], row["seconds"]),
        )
        for row in rows
    ]
    bars = [bar for budget, share in LOWER_BY.items() for bar in judged(rows, budget, share)]
    header = ("system", "version", "kind", "bits per body weight", "KL", "interval", "perplexity", "top-1", "seconds")
    note = (
        f"{data['windows']} windows of {CONTEXT} tokens, written by the model, calibrate; {data['tokens']} tokens of WikiText-2 "
        "validation; weights alone. Seconds are of a machine that others used, too, and without the search for a mix of schemes."
    )
    note += "".join(f"\n\nAt {budget} bits, on {got}." for budget, got in _gotten(rows).items())
    for name, why in data["failed"].items():
        note += f"\n\nNo result from {name}, {why}"
    write("methods", "Methods beside peers' own, SmolLM2-135M's twin", data, [note + "\n", table(header, lines), *bars])


def _gotten(rows: list[Row]) -> dict[float, str]:
    """Of each budget the machine and the text, which its rows share."""
    return {row["budget"]: f"{row['cpu']}, calibration text {row['calibration']}" for row in rows}


def judged(rows: list[Row], budget: float, share: float) -> list[str]:
    """The verdict on one budget, where both sides have run."""
    ours = [row for row in rows if row["system"] == OURS and row["bits"] <= budget + TABLE_BITS and row["budget"] == budget]
    peers = [row for row in rows if row["system"] != OURS and budget <= row["bits"] <= budget + PEER_BITS]
    if not ours or not peers:
        return []
    best, other = (min(side, key=lambda row: row["kl_mean"]) for side in (ours, peers))
    name = f"KL at {budget} bits, {best['kind']}, beside {other['system']} {other['kind']}"
    return [verdict(name, best["kl_mean"], (1 - share) * other["kl_mean"])]


if __name__ == "__main__":
    main()
