"""The table and the verdicts of engines.py, from its data alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from contenders import LLAMA, OURS, WITHOUT_AMX
from results import percent, table, verdict, write

Data = dict[str, Any]

BANDWIDTH_BAR, PEAK_BAR = 0.65, 0.2
# Over the fastest llama.cpp of as many bits: with its AMX path mended, and as it builds without AMX.
MENDED_BARS, WITHOUT_AMX_BARS = {4: 1.7, 8: 1.35}, {4: 3.0, 8: 1.35}
PREFILL_BARS = {"best": {LLAMA: 5.0, "OpenVINO GenAI": 2.0}, "avx2": {LLAMA: 1.3}}
TABLES, EVEN, TABLE_BAR = ("kmeans4-g64", "any4-g64"), "int4-g64", 0.8  # levels looked up, over even ones of as many bits


def report(data: Data) -> None:
    """Write results/engines.md and .json; of a machine without AMX results/engines_ISA, which leaves those as they are."""
    parts = [
        table(
            (
                "engine",
                "weights",
                "threads",
                "prefill tokens/s",
                "of peak",
                "decode tokens/s",
                "of bandwidth",
                "file MB",
                "peak RSS MB",
            ),
            [_speed_row(run) for run in data["runs"]],
        ),
        table(
            ("Bitwright", "peer", "threads", "prefill ratio", "decode ratio"),
            [
                (_ours(r), f"{r['engine']} {r['theirs']}{_suffix(r)}", r["threads"], r["prefill"], r["decode"])
                for r in data["ratios"]
            ],
        ),
        _ceilings(data),
        *verdicts(data),
    ]
    isa = data["circumstances"]["isa"]
    write("engines" if isa == "amx" else f"engines_{isa}", "Speed on the twin of SmolLM2-135M, beside its peers", data, parts)


def verdicts(data: Data) -> list[str]:
    """One line a bar."""
    lines = []
    for run in (run for run in data["runs"] if run["weight_bytes"]):
        who = f"{run['kind']}{_suffix(run)}, {run['threads']} thread(s)"
        lines.append(verdict(f"decode, share of read bandwidth, {who}", run["decode_fraction_of_bandwidth"], BANDWIDTH_BAR, True))
        if run["prefill_fraction_of_peak"] is not None:
            peak = f"the peak of {run['matrix_instruction']}"
            lines.append(verdict(f"prefill, share of {peak}, {who}", run["prefill_fraction_of_peak"], PEAK_BAR, True))
    lines += [
        verdict(f"{what}, {kind} over {EVEN}, {threads} thread(s)", ratio, TABLE_BAR, at_least=True)
        for kind, threads, what, ratio in _tables(data["runs"])
    ]
    for ratio in fastest(data["ratios"], "decode"):
        if ratio["engine"] in (LLAMA, WITHOUT_AMX):
            mended = (data["llama_cpp_build"], ratio["group"], ratio["engine"]) == ("amx", "best", LLAMA)
            lines.append(_over("decode", ratio, (MENDED_BARS if mended else WITHOUT_AMX_BARS)[ratio["bits"]]))
    for ratio in fastest(data["ratios"], "prefill"):
        bar = PREFILL_BARS[ratio["group"]].get(ratio["engine"])
        if bar is not None:
            lines.append(_over("prefill", ratio, bar))
    return lines


def fastest(ratios: list[Data], what: str) -> list[Data]:
    """Of each engine's kinds at as many bits as ours, the one that leaves us the lowest ratio."""
    found: dict[tuple[Any, ...], Data] = {}
    for ratio in ratios:
        key = tuple(ratio[field] for field in ("group", "threads", "ours", "engine"))
        if key not in found or ratio[what] < found[key][what]:
            found[key] = ratio
    return list(found.values())


def _tables(runs: list[Data]) -> Iterator[tuple[str, int, str, float]]:
    """(table, threads, what, its speed over that of even levels)."""
    found = {(run["kind"], run["threads"]): run for run in runs if run["engine"] == OURS and run["group"] == "best"}
    for (kind, threads), run in found.items():
        even = found.get((EVEN, threads))
        if kind in TABLES and even is not None:
            for what in ("decode", "prefill"):
                yield kind, threads, what, run[f"{what}_tokens_per_s"] / even[f"{what}_tokens_per_s"]


def _over(what: str, ratio: Data, bar: float) -> str:
    peer = f"{ratio['engine']} {ratio['theirs']}"
    return verdict(f"{what}, {_ours(ratio)} over {peer}, {ratio['threads']} thread(s)", ratio[what], bar, at_least=True)


def _ours(ratio: Data) -> str:
    return str(ratio["ours"]) + _suffix(ratio)


def _suffix(line: Data) -> str:
    return "" if line["group"] == "best" else f" ({line['group']})"


def _speed_row(run: Data) -> tuple[str | float | int, ...]:
    return (
        run["engine"] + _suffix(run),
        run["kind"],
        run["threads"],
        run["prefill_tokens_per_s"],
        percent(run.get("prefill_fraction_of_peak")),
        run["decode_tokens_per_s"],
        percent(run.get("decode_fraction_of_bandwidth")),
        run["file_bytes"] / 1e6,
        run["peak_rss_bytes"] / 1e6,
    )


def _ceilings(data: Data) -> str:
    ours = [run for run in data["runs"] if run["weight_bytes"]]
    read = "; ".join(
        f"{run['read_gb_per_s']:.1f} GB/s beside {run['kind']}{_suffix(run)} ({run['threads']} thread(s))" for run in ours
    )
    loads = ", ".join(map(str, data["load_averages"]))
    build = f"llama.cpp's build: {data['llama_cpp_build']}. "
    peaks = {(run["matrix_instruction"], run["threads"]): run["int8_operations_per_s"] for run in ours}
    peak = "; ".join(f"{value:.3g} of {unit} by {threads} thread(s)" for (unit, threads), value in peaks.items())
    return f"{build}Ceilings, medians: {read}; int8 operations/s {peak}. Load averages before and after each contest: {loads}.\n"
