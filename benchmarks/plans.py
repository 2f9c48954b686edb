"""What plans reach on the twin of SmolLM2, beside the best single scheme of the same size, and whether they keep their promises.

    python benchmarks/plans.py [--sizes 90,108,125,133] [--tokens 4096] [--uniform 2] [--time] [--keep]

For each size (of all files, those of llama.cpp's types among them) `bitwright plan` finds a plan in a process of its own, and it
is made. So are the `--uniform` recipes of one scheme for all matrices, and one for the head, that are foretold best of all that
fit the size: same method, same rotation, same calibration text. All are run as the engine runs them on WikiText-2 validation in
windows of 512, which no plan and no calibration sees: both look at text that the model writes. Of one text for both, intervals of
the ratio are paired. A plan may choose 16 bits for activations, a recipe of one scheme has 8 as by default; the bar is for the
ratio with the plan's for both.

Promises are what was said of a plan before it was made, untouched by what was measured of any plan. Of the KL that is what costs
alone foretell; it is held against what planning measured on text for the proof, of the first plan that was made and of the one
that was chosen. Of speeds it is what a stand-in of the plan's mix of schemes took shortly before; beside it stands what costs
alone foretell. Each is judged raw, and at one pace of the machine: the stand-in is timed again in turn with the plan.

Times are those of whole commands, from the start of their process, and what was said to be left is judged in all of them:
watched.py. Plans share a cache of their own, so that all but the first find texts, sensitivities and device costs in it. `--time`
empties it before the first size, and before that runs the two estimates, of a plan and of an analysis, each with nothing in the
cache; give it an idle machine. Results are written after each size. `--keep` leaves sizes that are not asked for, or not
measured yet, as they stand in results/plans.json: a run can be done in pieces, and one that was interrupted can go on.

A third of the loss of llama.cpp's best type at a size, without imatrix, is the bar: .255, .082 and .056 in the project's notes;
and half of what it loses with one, of the text that plans calibrate on, measured here: its weights with activations in fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import bitwright
import llama_cpp_build
from bitwright.allocation.budget import PROMPT
from bitwright.allocation.candidates import Candidate, Unit
from bitwright.allocation.sensitivity import known_sensitivities
from bitwright.allocation.ways import Way
from bitwright.analysis.evaluate import joined, measure
from bitwright.analysis.plan_texts import known_calibration
from bitwright.analysis.plan_types import Settings
from bitwright.analysis.scored_text import read_text, windows_of
from bitwright.analysis.significance import percentile_interval, resample, units_of_windows
from bitwright.cli.console import note
from bitwright.core import Recipe, Scheme
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.runtime import activations_of
from export import CALIBRATION
from material import TEXT, home, twin
from methods import written
from results import RESULTS, circumstances, command_line, table, verdict, write
from watched import FACTOR, Watched
from worker import Worker

BARS = {90: 0.25, 108: 0.255 / 3, 125: 0.082 / 3, 133: 0.056 / 3}
CLOSE, CLOSE_SPEED = 0.2, 0.1  # of what was measured, that what was promised may be off
AGAINST_UNIFORM = 0.7  # of the loss of the best single scheme of the same size
WHOLE, ESTIMATED = 600.0, 60.0  # seconds
IMATRIX_WINDOWS = 32  # of 512 tokens
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
COLUMNS = ("what", "size MB", "promised KL", "KL in planning", "WikiText-2 KL", "interval", "perplexity", "same token")
SPEEDS = (
    "plan",
    "activations",
    "tokens/s by costs alone",
    "promised",
    "true",
    "true at the promise's pace",
    "prompt tokens/s by costs alone",
    "promised",
    "true",
    "true at the promise's pace",
)
REST = ("plan", "promised peak MB", "true peak MB", "swaps", "seconds to plan", "of these silent")


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


def candidates(model: LanguageModel) -> list[Unit]:
    """Those that plans chose from, which they left in the cache."""
    windows = known_calibration(model, Settings())
    units = None if windows is None else known_sensitivities(model, windows, Settings().offer(model))
    assert units is not None
    return units


def uniform_recipes(model: LanguageModel, limit: float, count: int) -> list[tuple[str, Recipe]]:
    """The `count` recipes of one scheme and one for the head that fit and are foretold best."""
    ranked, units = [], candidates(model)
    head = model.roles()["head", -1].name
    known = {unit.name: {c.choice.scheme: c.divergence for c in unit.candidates if _uniform(unit, c)} for unit in units}
    for body in BODIES:
        for top in dict.fromkeys((body, *HEADS)):
            recipe = Recipe.uniform(body, "gptq", head=top)
            if bitwright.quantize(model, recipe, Settings().calibration).size_bytes() > limit:
                continue
            schemes = {unit.name: Scheme.parse(top if unit.matrix == head else body) for unit in units}
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


def planned(megabytes: int, directory: Path) -> tuple[Recipe, dict[str, Any], dict[str, Any]]:
    """The recipe, what its file says of the plan, and how long the command took."""
    place = directory / "recipe.json"
    cold = not any(cache().glob("sensitivities-*"))
    watched = Watched.run("plan", str(twin()), "-o", str(place), "--max-size", f"{megabytes}MB")
    said = json.loads(place.read_text("utf-8"))["plan"]
    return Recipe.load(place), said, watched.to_dict() | {"cold": cold}


def contest(megabytes: int, tokens: int, rivals: int) -> dict[str, Any]:
    """One plan, and the best single schemes of its size."""
    model, where = load(twin()), circumstances()
    with tempfile.TemporaryDirectory(prefix="bitwright-plans-") as directory:
        recipe, said, took = planned(megabytes, Path(directory))
    figures, kl, _ = measured(recipe, model, tokens)
    result: dict[str, Any] = {"limit_mb": megabytes, "circumstances": where, "plan": said, "time": took}
    result |= {"measured": figures, "uniform": []}
    if megabytes in WITH_IMATRIX:
        result["with_imatrix"] = with_imatrix(WITH_IMATRIX[megabytes], tokens)
    draws, activations = resample(units_of_windows(figures["sizes"])), said["activations"]["kind"]
    for name, single in uniform_recipes(model, megabytes * 1e6, rivals):
        other, other_kl, alike = measured(single, model, tokens, activations)
        row: dict[str, Any] = {"recipe": name, "activations": activations}
        for key, beside in (("ratio", other_kl), ("ratio_alike", alike)):
            row |= {key: float(kl.mean() / beside.mean())}
            row |= {f"{key}_interval": percentile_interval(draws.means(kl) / draws.means(beside))}
        result["uniform"].append(row | other)
        note(f"{name}: {other['size_bytes'] / 1e6:.1f} MB, KL {other['kl_mean']:.4g}")
    return result


def estimates(megabytes: int) -> dict[str, Any]:
    """Of a plan and of an analysis, each with nothing in the cache."""
    found = {}
    before = os.environ["BITWRIGHT_CACHE"]
    with tempfile.TemporaryDirectory(prefix="bitwright-plans-") as directory:
        recipe, model = str(Path(directory) / "recipe.json"), str(twin())
        os.environ["BITWRIGHT_CACHE"] = str(Path(directory) / "of-a-plan")
        limit = f"{megabytes}MB"
        found["estimate"] = Watched.run("plan", model, "-o", recipe, "--max-size", limit, "--estimate").to_dict()
        os.environ["BITWRIGHT_CACHE"] = str(Path(directory) / "of-an-analysis")
        found["analysis"] = Watched.run("analyze", model, "--text", str(TEXT), "--estimate").to_dict()
    os.environ["BITWRIGHT_CACHE"] = before
    return found


def rows(each: dict[str, Any]) -> list[tuple[str | float, ...]]:
    said = each["plan"]
    promised, planned_kl = said["promised"]["divergence"], said["measured"]["divergence"]
    lines = [(f"plan for {each['limit_mb']} MB", promised, planned_kl, each["measured"])]
    lines += [(other["recipe"], "", "", other) for other in each["uniform"]]
    found: list[tuple[str | float, ...]] = []
    for name, foretold, in_planning, figures in lines:
        low, high = figures["kl_mean_interval"]
        size, between = f"{figures['size_bytes'] / 1e6:.1f}", f"{low:.4g} .. {high:.4g}"
        found.append(
            (name, size, foretold, in_planning, figures["kl_mean"], between, figures["perplexity"], figures["top1_agreement"])
        )
    return found


def at_pace(said: dict[str, Any], quantity: str) -> float:
    """Promised seconds, of a machine as slow as it was while the plan was measured."""
    true = said["measured"]
    if quantity == "seconds":  # both against when costs were measured
        return float(said["foretold"]["seconds"] * true["slowness"])
    return float(said["promised"][quantity] * true[f"{quantity}_slowness"])


def speeds(each: dict[str, Any]) -> tuple[str | float, ...]:
    said = each["plan"]
    figures: list[float] = []
    for quantity, tokens in (("seconds", 1), ("prefill", PROMPT)):
        promised, true = said["promised"][quantity], said["measured"][quantity]
        paced = true * promised / at_pace(said, quantity)
        figures += [tokens / seconds for seconds in (said["blind"][quantity], promised, true, paced)]
    return (f"{each['limit_mb']} MB", said["activations"]["kind"], *figures)


def rest(each: dict[str, Any]) -> tuple[str | float, ...]:
    said = each["plan"]
    steps = "; ".join(
        f"{s['swapped']}: {s['before']:.4g} to {s['after']:.4g}{'' if s['kept'] else ', undone'}" for s in said["swaps"]
    )
    memory = (f"{said['promised']['ram'] / 1e6:.0f}", f"{said['measured']['ram'] / 1e6:.0f}")
    return (f"{each['limit_mb']} MB", *memory, steps, each["time"]["seconds"], each["time"]["silent"])


def verdicts(found: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in found:
        name, kl = f"{each['limit_mb']} MB", each["measured"]["kl_mean"]
        if each["limit_mb"] in BARS:
            lines.append(verdict(f"KL on WikiText-2, {name}", kl, BARS[each["limit_mb"]]))
        if "with_imatrix" in each:
            theirs = each["with_imatrix"]
            said = f"KL over that of llama.cpp {theirs['type']} with imatrix, {theirs['size_bytes'] / 1e6:.1f} MB, {name}"
            lines.append(verdict(said, kl / theirs["kl_mean"], 0.5))
        lines += against_uniform(each, name) + promises(each, name)
    return lines


def against_uniform(each: dict[str, Any], name: str) -> list[str]:
    """The bar is for sizes of llama.cpp's files."""
    if not each["uniform"]:
        return []
    best = max(each["uniform"], key=lambda other: other["ratio_alike"])
    low, high = best["ratio_alike_interval"]
    said = f"KL over that of {best['recipe']}, {best['activations']} activations for both, {name} ({low:.3g} to {high:.3g})"
    alike = best["ratio_alike"]
    lines = [verdict(said, alike, AGAINST_UNIFORM) if each["limit_mb"] in WITH_IMATRIX else f"- {said}: {alike:.4g}"]
    if best["ratio_alike"] != best["ratio"]:
        low, high = best["ratio_interval"]
        lines.append(f"- the same with its activations as by default, {name} ({low:.3g} to {high:.3g}): {best['ratio']:.4g}")
    return lines


def promises(each: dict[str, Any], name: str) -> list[str]:
    said = each["plan"]
    promised, true, first = said["promised"], said["measured"], said["tried"][0]
    lines = [verdict(f"promised KL off by, first plan, {name}", _off(first["promised"], first["measured"], "divergence"), CLOSE)]
    if true != first["measured"]:
        lines.append(verdict(f"promised KL off by, chosen plan, {name}", _off(promised, true, "divergence"), CLOSE))
        taught = _off(said["foretold"], true, "divergence")
        lines.append(f"- by what the first plan had taught, the chosen one's KL was foretold off by, {name}: {taught:.4g}")
    for quantity, speed in (("seconds", "decode"), ("prefill", "prompt")):
        paced = abs(at_pace(said, quantity) / true[quantity] - 1)
        lines.append(verdict(f"promised {speed} speed off by, raw, {name}", _off(promised, true, quantity), CLOSE_SPEED))
        lines.append(verdict(f"promised {speed} speed off by, at one pace, {name}", paced, CLOSE_SPEED))
    exact = each["measured"]["size_bytes"] == promised["bytes"]
    return [*lines, f"- size promised to the byte, {name}: {'met' if exact else '**not met**'}"]


def _off(promised: dict[str, float], true: dict[str, float], quantity: str) -> float:
    return abs(promised[quantity] / true[quantity] - 1)


def time_verdicts(found: list[dict[str, Any]], taken: dict[str, Any] | None) -> list[str]:
    told = {f"the plan for {each['limit_mb']} MB, {_cached(each)}": each["time"] for each in found}
    lines = [verdict(f"seconds of {name}", time["seconds"], WHOLE) for name, time in told.items()]
    if taken:
        lines.append(verdict("seconds of an estimate, nothing cached", taken["estimate"]["seconds"], ESTIMATED))
        lines.append(verdict("seconds of an analysis by estimate, nothing cached", taken["analysis"]["seconds"], ESTIMATED))
        told["an estimate, nothing cached"] = taken["estimate"]
    for name, time in told.items():
        between = "{:.2f} to {:.2f}".format(*time["said_over_true"])
        said = f"share of the time of {name}, but for its last 10 s, in which the time left was told within a factor {FACTOR:g}"
        lines.append(verdict(f"{said} (told over true {between})", time["true_within"], 1.0, at_least=True))
    return lines


def _cached(each: dict[str, Any]) -> str:
    return "nothing cached" if each["time"]["cold"] else "what the one before measured cached"


def cache() -> Path:
    """Of all plans here."""
    return home() / "plans-cache"


def report(found: list[dict[str, Any]], taken: dict[str, Any] | None, where: dict[str, Any]) -> None:
    found = sorted(found, key=lambda each: int(each["limit_mb"]))
    data = {"command": command_line(), "circumstances": where, "plans": found, "time": taken}
    parts = [table(COLUMNS, [row for each in found for row in rows(each)])]
    parts += [table(SPEEDS, [speeds(each) for each in found]), table(REST, [rest(each) for each in found])]
    lines = verdicts(found) + time_verdicts(found, taken)
    write("plans", "Plans for a file size, on the twin of SmolLM2-135M", data, [*parts, "\n".join(lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="90,108,125,133", help="of all files, in MB")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--uniform", type=int, default=2, help="single schemes for each size")
    parser.add_argument("--time", action="store_true", help="plan the first size with nothing in the cache")
    parser.add_argument("--keep", action="store_true", help="what was measured before")
    arguments = parser.parse_args()
    sizes, where = [int(size) for size in arguments.sizes.split(",") if size], circumstances()
    before = json.loads((RESULTS / "plans.json").read_text("utf-8")) if arguments.keep else {"plans": [], "time": None}
    found = {each["limit_mb"]: each for each in before["plans"] if "promised" in each["plan"]}  # those of today's layout
    os.environ["BITWRIGHT_CACHE"], taken = str(cache()), before["time"]
    if arguments.time:
        taken = {"circumstances": where} | estimates(sizes[0])
        shutil.rmtree(cache(), ignore_errors=True)
    for size in sizes:
        found[size] = contest(size, arguments.tokens, arguments.uniform)
        report(list(found.values()), taken, where)


if __name__ == "__main__":
    main()
