"""`bitwright plan`: say the budget, get the recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bitwright.cli.command_line import Argument, Option, UsageError
from bitwright.cli.console import Json, megabytes, note, print_json, print_table, timeline
from bitwright.cli.places import check_places

if TYPE_CHECKING:
    from bitwright.allocation.candidates import Offer
    from bitwright.analysis.planning import Plan
    from bitwright.models.base import LanguageModel

CHANGED = 0.05  # of a machine's pace, that is worth a word


def plan(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, Argument("MODEL", help="Hugging Face directory or hub id, .gguf file or artifact.")],
    output: Annotated[Path, Option("-o", "--output", help="Recipe to write, a .json file.")],
    max_size: Annotated[str | None, Option("--max-size", help="Of all files, such as 80MB.")] = None,
    max_kl: Annotated[str | None, Option("--max-kl", help="Mean KL to the model, in nats a token.")] = None,
    max_drop: Annotated[str | None, Option("--max-drop", help="Growth of perplexity, such as 0.5%.")] = None,
    max_task_drop: Annotated[str | None, Option("--max-task-drop", help="How much worse --task may do, such as 0.5%.")] = None,
    task: Annotated[Path | None, Option("--task", help="What to ask, one JSON object a line; see bitwright eval.")] = None,
    min_speed: Annotated[str | None, Option("--min-speed", help="Decoded tokens a second on this machine.")] = None,
    min_prefill: Annotated[str | None, Option("--min-prefill", help="Tokens a second of a prompt on this machine.")] = None,
    max_ram: Annotated[str | None, Option("--max-ram", help="Peak memory of a run, such as 300MB.")] = None,
    context: Annotated[int, Option("--context", least=2, help="Tokens of that run; its KV cache narrows where it must.")] = 1024,
    max_energy: Annotated[str | None, Option("--max-energy", help="Joules a token: counted, else estimated.")] = None,
    objective: Annotated[
        str, Option("--objective", help="What to make best within the limits: loss, size, speed, prefill, ram or energy.")
    ] = "",
    method: Annotated[
        str, Option("--method", help="How codes are chosen, with commas between where tensors may differ; see bitwright methods.")
    ] = "gptq",
    schemes: Annotated[str | None, Option("--schemes", help="Candidates, with commas between; or all. [2 to 8 bits]")] = None,
    fix: Annotated[
        str, Option("--fix", help="Tensors whose scheme is given, such as lm_head*=int8-channel,*.v_proj*=fp16.")
    ] = "",
    activations: Annotated[str, Option("--activations", help="Kinds that the plan may take.")] = "int8,int16",
    rotate: Annotated[bool, Option("--rotate/--no-rotate", help="Turn columns before rounding.")] = True,
    calibration: Annotated[str, Option("--calibration", help="self, a file, or org/name:config:split on the hub.")] = "self",
    text: Annotated[Path | None, Option("--text", help="Text to verify on. [more that the model writes]")] = None,
    threads: Annotated[int | None, Option("--threads", least=1, help="For speed. [the fastest number]")] = None,
    device: Annotated[Path | None, Option("--device", help="Plan for a machine: its device_costs.json. [this one]")] = None,
    swaps: Annotated[int, Option("--swaps", least=0, help="Steps of climbing after the first plan, each made and measured.")] = 1,
    estimate: Annotated[bool, Option("--estimate", help="Neither make nor measure the plan: under a minute for 135M.")] = False,
    report: Annotated[Path | None, Option("--report", help="Page to write, an .html file.")] = None,
    as_json: Json = False,
) -> None:
    """Find the recipe that meets a budget best.

    The plan is made and measured on text that it never saw. Then: bitwright quantize MODEL --recipe FILE -o OUT.
    """
    from bitwright.allocation.budget import Budget, parse_bytes, parse_number, parse_share

    budget = Budget(
        None if max_size is None else parse_bytes(max_size),
        None if max_ram is None else parse_bytes(max_ram),
        None if max_kl is None else parse_number(max_kl, "--max-kl"),
        None if max_drop is None else parse_share(max_drop),
        None if min_speed is None else parse_number(min_speed, "--min-speed"),
        None if min_prefill is None else parse_number(min_prefill, "--min-prefill"),
        None if max_energy is None else parse_number(max_energy, "--max-energy"),
        objective,
        None if max_task_drop is None else parse_share(max_task_drop),
    )
    page_data = None if report is None else report.parent / f"{report.stem}.json"
    check_places(
        {"MODEL": model, "--text": text, "--task": task, "--device": device, "--calibration": calibration},
        {"-o": output, "--report": report, "the data of --report": page_data},
        "bitwright plan",
    )
    from bitwright.allocation.candidates import SCHEMES, stored_as
    from bitwright.analysis.plan_forecast import phases
    from bitwright.analysis.planning import Settings, find_plan
    from bitwright.analysis.report import finite, write
    from bitwright.analysis.scored_text import read_text
    from bitwright.analysis.tasks import file_task
    from bitwright.analysis.timeline import Timeline
    from bitwright.artifact.staging import write_file
    from bitwright.calibration.text import Source
    from bitwright.models import load

    source = load(model)
    held_out = None if text is None else read_text(text, 2**20)
    settings = Settings(
        schemes=SCHEMES if schemes is None else tuple(schemes.split(",")),
        fixed=_fixed(fix),
        methods=tuple(method.split(",")),
        rotate=rotate,
        activations=tuple(activations.split(",")),
        calibration=Source(calibration),
        held_out=held_out,
        threads=threads,
        device=device,
        context=context,
        verify=not estimate,
        swaps=swaps,
        task=None if task is None else file_task(task, source),
    )
    offered = settings.offer(source)
    _note_decoded(offered, source)
    with timeline() as report_time:
        found = find_plan(source, budget, settings, Timeline(phases(source, settings, budget), report_time).watch)
    if settings.all_schemes:
        left = {scheme for schemes in stored_as(found.units).values() for scheme in schemes}
        note(f"{len(left)} of {len(offered.all_schemes())} schemes are best for some tensor; the others were left out")
    write_file(output, json.dumps(finite(found.recipe.to_dict() | {"plan": found.to_dict()}), indent=1) + "\n")
    if report is not None and page_data is not None:
        from bitwright.analysis.ceilings import Ceilings
        from bitwright.analysis.documents import Made, plan_document

        ceilings = Ceilings.of_this_machine() if device is None else None  # another machine's roof is not known
        document = plan_document(Made(source, f"bitwright plan {model}"), found, ceilings)
        write(document, report, page_data)
    if as_json:
        print_json({"path": str(output)} | found.to_dict() | _public(found))
        return
    _show(found, output, report)


def _note_decoded(offered: Offer, model: LanguageModel) -> None:
    """One line for the schemes that bring no speed here."""
    from bitwright.allocation.engine_schemes import decoded_schemes
    from bitwright.analysis.plan_types import widths_of

    found = decoded_schemes(offered.all_schemes(), widths_of(model))
    if found:
        note(f"{', '.join(map(str, found))}: no integer kernel, so the engine decodes them to fp32, 4 bytes a weight")


def _fixed(given: str) -> tuple[tuple[str, str], ...]:
    """PATTERN=SCHEME, with commas between. Raises `UsageError`."""
    pairs = [one.partition("=") for one in given.split(",") if one]
    if not all(pattern and scheme for pattern, _, scheme in pairs):
        raise UsageError(f"--fix takes PATTERN=SCHEME, with commas between, not {given!r}", "bitwright plan")
    return tuple((pattern, scheme) for pattern, _, scheme in pairs)


def _public(found: Plan) -> dict[str, Any]:
    """The figures by the names that all commands give them."""
    best = found.foretold | found.measured
    return {
        "size_bytes": best["bytes"],
        "kl_mean": found.measured.get("divergence"),
        "kl_mean_interval": list(found.intervals["divergence"]) if found.intervals else None,
        **{name: found.measured.get(name) for name in ("kl_p99", "kl_max", "top1_agreement", "flips")},
        "kl_mean_predicted": found.promised["divergence"],
        "decode_tokens_per_s": 1 / best["seconds"] if "seconds" in best else None,
        "task_drop": None if found.drop is None else found.drop.drop,
        "peak_rss_bytes": best.get("ram"),
        "joules_per_token": best["joules"],
        "perplexity": _perplexity(found, "loss_reference", "loss_added"),
        "perplexity_reference": _perplexity(found, "loss_reference"),
    }


def _perplexity(found: Plan, *losses: str) -> float | None:
    """From the losses that sum to its logarithm; None where nothing was measured."""
    return math.exp(sum(found.measured[loss] for loss in losses)) if found.measured else None


def _answers(measured: dict[str, float], between: tuple[float, float]) -> str:
    """How far the finished plan's answers are from the model's, in one line."""
    kl = f"KL {measured['divergence']:.3g} ({between[0]:.3g} to {between[1]:.3g}) in the mean"
    most = f"p99 {measured['kl_p99']:.3g}, max {measured['kl_max']:.3g} nats a token"
    same = f"top-1 agreement {100 * measured['top1_agreement']:.1f} %, {100 * measured['flips']:.1f} % flipped"
    return f"{kl}, {most}; {same}, on text that the plan never saw"


def _show(found: Plan, output: Path, report: Path | None) -> None:
    from bitwright.allocation.energy import Energy
    from bitwright.analysis.documents import verdict_of_plan

    kinds: dict[str, dict[str, int]] = {}
    lost: dict[str, float] = {}
    for (unit, candidate), loss in zip(found.candidates(), found.losses(), strict=True):
        counts, label = kinds.setdefault(unit.kind, {}), found.label(unit, candidate)
        counts[label] = counts.get(label, 0) + 1
        lost[unit.kind] = lost.get(unit.kind, 0.0) + loss
    rows = [
        (kind, ", ".join(f"{count} x {scheme}" for scheme, count in sorted(counts.items())), f"{lost[kind]:.3g}")
        for kind, counts in kinds.items()
    ]
    print_table(verdict_of_plan(found), ("tensors", "schemes", "KL"), rows, 2)
    for step in found.steps:
        said = "kept" if step.kept else "undone"
        note(f"{step.swapped} tensors swapped schemes: KL {step.before:.4g} -> {step.after:.4g} on text for comparing, {said}")
    if found.drop is not None:
        between = "" if found.drop.interval is None else f" ({found.drop.interval[0]:.3g} to {found.drop.interval[1]:.3g})"
        worse = f"{found.drop.measure} {'grows' if found.drop.lower_is_better else 'falls'}"
        note(f"the task's {worse} by {found.drop.drop:.3g}{between} from {found.drop.score_reference:.3g}")
    if found.measured:
        note(_answers(found.measured, found.intervals["divergence"]))
        before, after = _perplexity(found, "loss_reference"), _perplexity(found, "loss_reference", "loss_added")
        note(f"perplexity {before:.4g} -> {after:.4g} ({100 * math.expm1(found.measured['loss_added']):+.2g} %) on that text")
    if found.activations != "int8":
        note(f"activations are {found.activations}, as the recipe says: slower than int8, which --activations int8 keeps to")
    if "seconds" in found.measured:
        speed, memory = f"{1 / found.measured['seconds']:.0f} tokens/s", megabytes(int(found.measured["ram"]))
        note(f"measured {speed} and {memory} of memory at most")
    if "seconds" in found.promised:
        speed, memory = f"{1 / found.promised['seconds']:.0f} tokens/s", megabytes(int(found.promised["ram"]))
        now = f" ({1 / found.at_pace('seconds'):.0f} at the pace that the machine had while it was measured)"
        changed = abs(found.at_pace("seconds") / found.promised["seconds"] - 1) > CHANGED
        note(f"promised before it was made: {speed}{now if changed else ''}, {memory} of memory at most")
    if found.budget.max_energy is not None or found.budget.wanted == "joules":
        energy = Energy((found.foretold | found.measured)["joules"], found.energy_source)
        note(f"{'measured' if 'joules' in found.measured else 'foretold'} {energy} a token")
    note(f"wrote {output}" + (f" and {report}" if report else "") + f"; bitwright quantize MODEL --recipe {output} -o OUT")
