"""What plans reach on the twin of SmolLM2, beside the best single scheme of the same size, and whether they keep their promises.

    python benchmarks/plans.py [--sizes 90,108,125,133] [--tokens 4096] [--uniform 2] [--time] [--keep]

For each size (of all files, those of llama.cpp's types among them) a plan is found and made. So are the `--uniform` recipes of
one scheme for all matrices, and one for the head, that are foretold best of all that fit the size: same method, same rotation,
same calibration text. All are run as the engine runs them on WikiText-2 validation in windows of 512, which no plan and no
calibration sees: both look at text that the model writes. Of one text for both, intervals of the ratio are paired. A plan may
choose 16 bits for activations, a recipe of one scheme has 8 as by default; where they differ, the ratio is given with the
plan's for both, too.

Each plan's loss and speed as foretold are held against what it measured, and what it said to have left against what it took.
Speeds are compared at one pace of the machine: a stand-in is timed beside the plan, as it was when costs were measured.
`--time` finds the first plan with nothing in the cache, and an estimate before it; give both an idle machine. `--keep` leaves
sizes that were measured before as they stand in results/plans.json, so that a run can be done in pieces.

A third of the loss of llama.cpp's best type at a size, without imatrix, is the bar: .255, .082 and .056 in the project's notes;
and half of what it loses with one, of the text that plans calibrate on, measured here: its weights with activations in fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import bitwright
import llama_cpp_build
from bitwright.allocation.budget import Budget
from bitwright.allocation.candidates import Candidate, Unit
from bitwright.allocation.ways import Way
from bitwright.analysis.evaluate import joined, measure
from bitwright.analysis.plan_forecast import phases
from bitwright.analysis.planning import Plan, Settings, find_plan
from bitwright.analysis.scored_text import read_text, windows_of
from bitwright.analysis.significance import percentile_interval, resample, units_of_windows
from bitwright.analysis.timeline import Timeline
from bitwright.cli.console import note
from bitwright.core import Recipe, Scheme
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.runtime import activations_of
from export import CALIBRATION
from material import TEXT, home, twin
from methods import written
from results import RESULTS, circumstances, table, verdict, write
from worker import Worker

BARS = {90: 0.25, 108: 0.255 / 3, 125: 0.082 / 3, 133: 0.056 / 3}
CLOSE, CLOSE_SPEED = 0.2, 0.1  # of what was measured, that what was foretold may be off
AGAINST_UNIFORM = 0.7  # of the loss of the best single scheme of the same size
WHOLE, ESTIMATED, REMAINING = 600.0, 60.0, 1.5  # seconds, seconds, factor
IMATRIX_WINDOWS = 32  # of 512 tokens
LAST_SECONDS = 10.0  # of a plan, in which what is left is too little to be judged by a factor
WITH_IMATRIX = {108: ("Q3_K_M", "IQ4_NL"), 125: ("Q4_K_M",), 133: ("Q5_K_M",)}  # llama.cpp's types of these sizes
BODIES = (
    "kmeans3-g64",
    "kmeans4-g96",
    "kmeans4-g64",
    "kmeans4-g32",
    "int3-g64",
    "int3-g32",
    "int4-g64",
    "int4-g32",
    "int4-g32-affine",
    "int5-g64",
    "int5-g32",
    "int6-g64",
    "int6-g32",
)
HEADS = ("kmeans4-g64", "int4-g64", "int4-g32", "int5-g64", "int6-g64", "int8-channel")
COLUMNS = ("what", "size MB", "foretold KL", "KL in planning", "WikiText-2 KL", "interval", "perplexity", "same token")
SPEEDS = (
    "plan",
    "activations",
    "foretold tokens/s",
    "at this pace",
    "true tokens/s",
    "foretold peak MB",
    "true peak MB",
    "swaps",
    "seconds to plan",
)


class Watched:
    """What a plan said to have left, against what it then took."""

    def __init__(self, model: LanguageModel, settings: Settings) -> None:
        self.told: list[tuple[float, float]] = []  # seconds since the beginning, seconds said to be left
        self.seconds: dict[str, float] = {}
        self.line = Timeline(phases(model, settings), self._report)
        self.begin = time.perf_counter()

    def _report(self, what: str, done: float, total: float) -> None:
        self.told.append((done, total - done))

    @contextmanager
    def watch(self, what: str) -> Iterator[Any]:
        begin = time.perf_counter()
        with self.line.watch(what) as progress:
            yield progress
        taken = time.perf_counter() - begin
        self.seconds[what] = self.seconds.get(what, 0.0) + taken
        note(f"{what}: {taken:.1f} s")

    def to_dict(self) -> dict[str, Any]:
        """`true_within`: the share of the time in which what was said to be left was within the factor of the truth."""
        whole = time.perf_counter() - self.begin
        judged = [(done, said / (whole - done)) for done, said in self.told if whole - done > LAST_SECONDS]
        times = np.diff([*(done for done, _ in judged), max(whole - LAST_SECONDS, judged[-1][0])])
        right = [1 / REMAINING <= ratio <= REMAINING for _, ratio in judged]
        return {
            "seconds": whole,
            "phases": self.seconds,
            "said_over_true": [min(ratio for _, ratio in judged), max(ratio for _, ratio in judged)],
            "true_within": float(times[np.array(right)].sum() / times.sum()),
        }


def measured(recipe: Recipe, model: LanguageModel, tokens: int, also: str = "") -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The recipe made and held against the twin; KL token by token as it runs by itself, and with `also` as activations."""
    with tempfile.TemporaryDirectory(prefix="bitwright-plans-") as directory:
        made = bitwright.quantize(model, recipe, Settings().calibration)
        saved = made.save(Path(directory) / "artifact")
        found = bitwright.evaluate(saved, model, TEXT, 512, tokens).to_dict()
        windows = windows_of(model.tokenizer(), read_text(TEXT, tokens), 512, tokens)
        own = activations_of(saved)
        kl = joined(measure(saved, model, windows, own, None)).kl
        other = kl if also in ("", own) else joined(measure(saved, model, windows, also, None)).kl
    names = ("size_bytes", "kl_mean", "kl_mean_interval", "perplexity", "top1_agreement", "noise_floor_kl")
    return {name: found[name] for name in names} | {"sizes": [len(window) - 1 for window in windows]}, kl, other


def with_imatrix(kinds: tuple[str, ...], tokens: int) -> dict[str, Any]:
    """The llama.cpp file that loses least, of these types."""
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        path = home() / f"twin-{kind}-imatrix.gguf"
        if not path.exists():
            variables = {CALIBRATION: str(written(IMATRIX_WINDOWS))}
            with Worker(llama_cpp_build.interpreter(), "llama_cpp_methods_worker.py", variables) as worker:
                worker.ask("quantize", source=str(twin()), target=f"{path}.partial", kind=f"{kind} file")
            Path(f"{path}.partial").rename(path)
        found = bitwright.evaluate(path, twin(), TEXT, 512, tokens, activations="fp32")
        rows.append({"type": kind, "size_bytes": path.stat().st_size, "kl_mean": found.kl_mean})
        note(f"{kind} with imatrix: {rows[-1]['size_bytes'] / 1e6:.1f} MB, KL {found.kl_mean:.4g}")
    return min(rows, key=lambda row: float(row["kl_mean"]))


def uniform_recipes(found: Plan, model: LanguageModel, limit: float, count: int) -> list[tuple[str, Recipe]]:
    """The `count` recipes of one scheme and one for the head that fit and are foretold best."""
    ranked = []
    head = model.roles()["head", -1].name
    known = {unit.name: {c.choice.scheme: c.divergence for c in unit.candidates if _uniform(unit, c)} for unit in found.units}
    for body in BODIES:
        for top in dict.fromkeys((body, *HEADS)):
            recipe = Recipe.uniform(body, "gptq", head=top)
            if bitwright.quantize(model, recipe, Settings().calibration).size_bytes() > limit:
                continue
            schemes = {unit.name: Scheme.parse(top if unit.matrix == head else body) for unit in found.units}
            loss = sum(_loss(known[name], scheme) for name, scheme in schemes.items())
            ranked.append((loss, f"{body}, head {top}", recipe))
    return [(name, recipe) for _, name, recipe in sorted(ranked, key=lambda row: row[0])[:count]]


def _uniform(unit: Unit, candidate: Candidate) -> bool:
    """Whether a recipe of one scheme by gptq would round the tensor so."""
    return unit.looked_up or not candidate.choice.scheme.scaled or Way.of(candidate.choice) == Way("gptq")


def _loss(known: dict[Scheme, float], scheme: Scheme) -> float:
    """As foretold; between the schemes that were tried, by the line through logarithms of loss over bits."""
    if scheme in known:
        return known[scheme]
    points = sorted((each.stored_bits((1024, 1536)) / (1024 * 1536), loss) for each, loss in known.items())
    bits = scheme.stored_bits((1024, 1536)) / (1024 * 1536)
    return float(np.exp(np.interp(bits, [b for b, _ in points], np.log([loss for _, loss in points]))))


def contest(megabytes: int, tokens: int, rivals: int) -> dict[str, Any]:
    """One plan, and the best single schemes of its size."""
    model, settings = load(twin()), Settings()
    watched = Watched(model, settings)
    found = find_plan(model, Budget(max_size=megabytes * 10**6), settings, watched.watch)
    took = watched.to_dict()
    figures, kl, _ = measured(found.recipe, model, tokens)
    result: dict[str, Any] = {"limit_mb": megabytes, "circumstances": circumstances(), "plan": found.to_dict(), "time": took}
    result |= {"measured": figures, "uniform": []}
    if megabytes in WITH_IMATRIX:
        result["with_imatrix"] = with_imatrix(WITH_IMATRIX[megabytes], tokens)
    for name, recipe in uniform_recipes(found, model, megabytes * 1e6, rivals):
        other, other_kl, alike = measured(recipe, model, tokens, found.activations)
        draws = resample(units_of_windows(other["sizes"]))
        row: dict[str, Any] = {"recipe": name, "ratio": float(kl.mean() / other_kl.mean())}
        row |= {"ratio_interval": percentile_interval(draws.means(kl) / draws.means(other_kl))}
        row |= {"ratio_alike": float(kl.mean() / alike.mean()), "activations": found.activations}
        result["uniform"].append(row | other)
        note(f"{name}: {other['size_bytes'] / 1e6:.1f} MB, KL {other['kl_mean']:.4g}")
    return result


def estimated(megabytes: int) -> dict[str, Any]:
    """An estimate with nothing in the cache."""
    before = os.environ.get("BITWRIGHT_CACHE")
    with tempfile.TemporaryDirectory(prefix="bitwright-plans-") as directory:
        os.environ["BITWRIGHT_CACHE"] = directory
        model, settings = load(twin()), Settings(verify=False)
        watched = Watched(model, settings)
        find_plan(model, Budget(max_size=megabytes * 10**6), settings, watched.watch)
        taken = watched.to_dict()
    os.environ.pop("BITWRIGHT_CACHE")
    os.environ |= {"BITWRIGHT_CACHE": before} if before else {}
    return taken


def rows(each: dict[str, Any]) -> list[tuple[str | float, ...]]:
    said = each["plan"]
    lines = [
        (f"plan for {each['limit_mb']} MB", said["foretold"]["divergence"], said["measured"]["divergence"], each["measured"])
    ]
    lines += [(other["recipe"], "", "", other) for other in each["uniform"]]
    found: list[tuple[str | float, ...]] = []
    for name, foretold, planned, figures in lines:
        low, high = figures["kl_mean_interval"]
        size, between = f"{figures['size_bytes'] / 1e6:.1f}", f"{low:.4g} .. {high:.4g}"
        found.append(
            (name, size, foretold, planned, figures["kl_mean"], between, figures["perplexity"], figures["top1_agreement"])
        )
    return found


def speeds(each: dict[str, Any]) -> tuple[str | float, ...]:
    foretold, true = each["plan"]["foretold"], each["plan"]["measured"]
    steps = "; ".join(
        f"{s['swapped']}: {s['before']:.4g} to {s['after']:.4g}{'' if s['kept'] else ', undone'}" for s in each["plan"]["swaps"]
    )
    memory = f"{foretold['ram'] / 1e6:.0f}", f"{true['ram'] / 1e6:.0f}"
    activations = each["plan"]["activations"]["kind"]
    speed = (1 / foretold["seconds"], 1 / at_pace(each), 1 / true["seconds"])
    return (f"{each['limit_mb']} MB", activations, *speed, *memory, steps, each["time"]["seconds"])


def at_pace(each: dict[str, Any]) -> float:
    """Foretold seconds a token, of a machine as slow as it was while the plan was measured."""
    seconds: float = each["plan"]["foretold"]["seconds"] * each["plan"]["measured"]["slowness"]
    return seconds


def verdicts(found: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in found:
        name, foretold, true = f"{each['limit_mb']} MB", each["plan"]["foretold"], each["plan"]["measured"]
        kl = each["measured"]["kl_mean"]
        if each["limit_mb"] in BARS:
            lines.append(verdict(f"KL on WikiText-2, {name}", kl, BARS[each["limit_mb"]]))
        if "with_imatrix" in each:
            theirs = each["with_imatrix"]
            said = f"KL over that of llama.cpp {theirs['type']} with imatrix, {theirs['size_bytes'] / 1e6:.1f} MB, {name}"
            lines.append(verdict(said, kl / theirs["kl_mean"], 0.5))
        if each["uniform"]:
            best = max(each["uniform"], key=lambda other: other["ratio"])
            low, high = best["ratio_interval"]
            said = f"KL over that of {best['recipe']}, {name} ({low:.3g} to {high:.3g})"
            sized = each["limit_mb"] in WITH_IMATRIX  # the bar is for sizes of llama.cpp's files
            lines.append(verdict(said, best["ratio"], AGAINST_UNIFORM) if sized else f"- {said}: {best['ratio']:.4g}")
            if best["ratio_alike"] != best["ratio"]:
                lines.append(f"- the same with {best['activations']} activations for both, {name}: {best['ratio_alike']:.3g}")
        lines.append(verdict(f"foretold loss off by, {name}", abs(foretold["divergence"] / true["divergence"] - 1), CLOSE))
        lines.append(verdict(f"foretold decode speed off by, {name}", abs(true["seconds"] / at_pace(each) - 1), CLOSE_SPEED))
        exact = each["measured"]["size_bytes"] == foretold["bytes"]
        lines.append(f"- size foretold to the byte, {name}: {'met' if exact else '**not met**'}")
    return lines


def time_verdicts(taken: dict[str, Any]) -> list[str]:
    told = [
        verdict(
            f"share of {name} in which the time left was told within a factor {REMAINING:g} (told over true "
            "{:.2f} to {:.2f})".format(*taken[key]["said_over_true"]),
            taken[key]["true_within"],
            1.0,
            at_least=True,
        )
        for key, name in (("whole", "a whole plan"), ("estimate", "an estimate"))
    ]
    return [
        verdict("seconds of a whole plan, nothing cached", taken["whole"]["seconds"], WHOLE),
        verdict("seconds of an estimate, nothing cached", taken["estimate"]["seconds"], ESTIMATED),
        *told,
    ]


def emptied(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="90,108,125,133", help="of all files, in MB")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--uniform", type=int, default=2, help="single schemes for each size")
    parser.add_argument("--time", action="store_true", help="plan the first size with nothing in the cache")
    parser.add_argument("--keep", action="store_true", help="what was measured before")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",") if size]
    before = json.loads((RESULTS / "plans.json").read_text("utf-8")) if arguments.keep else {"plans": [], "time": None}
    where = circumstances()
    kept = [each for each in before["plans"] if each["limit_mb"] not in sizes]
    taken = before["time"]
    if arguments.time:
        estimate = estimated(sizes[0])
        os.environ["BITWRIGHT_CACHE"] = str(emptied(home() / "plans-cache"))
    new = [contest(size, arguments.tokens, arguments.uniform) for size in sizes]
    if arguments.time:
        taken = {"limit_mb": sizes[0], "circumstances": where, "estimate": estimate, "whole": new[0]["time"]}
    found = sorted(kept + new, key=lambda each: each["limit_mb"])
    data = {
        "command": shlex.join(["python", "benchmarks/plans.py", *sys.argv[1:]]),
        "circumstances": where,
        "plans": found,
        "time": taken,
    }
    parts = [table(COLUMNS, [row for each in found for row in rows(each)]), table(SPEEDS, [speeds(each) for each in found])]
    lines = verdicts(found) + (time_verdicts(taken) if taken else [])
    write("plans", "Plans for a file size, on the twin of SmolLM2-135M", data, [*parts, "\n".join(lines)])


if __name__ == "__main__":
    main()
