"""The tables and the verdicts of scaling.py, from its data alone."""

from __future__ import annotations

from typing import Any

from engines_report import BANDWIDTH_BAR, PEAK_BAR
from results import median_ratio, percent, table, verdict, write

Data = dict[str, Any]

DEEP, WIDE = 4096, 8  # tokens before and sequences at once that bars speak of
DEPTH_BAR, BATCH_BAR = 0.75, 5.0  # decoding speed after so many over the first depth, int8 cache; of so many over one
HEAD_BAR = 0.5  # of a token's time: a head that takes more dominates
HEAD_SHARES = {
    "fraction_of_time": "of a token's time",
    "fraction_of_bytes": "of its bytes",
    "whole_fraction_of_time": "of its time with all layers",
    "whole_fraction_of_bytes": "of its bytes with all layers",
}


def report(data: Data) -> None:
    """Write results/scaling.md and .json."""
    sizes = [
        (
            *(row["model"], row["scheme"], row["threads"]),
            *(row["prefill_tokens_per_s"], percent(row["prefill_fraction_of_peak"])),
            *(row["decode_tokens_per_s"], percent(row["decode_fraction_of_bandwidth"])),
            *(row["read_gb_per_s"], row["int8_operations_per_s"] / 1e12),
        )
        for row in data["sizes"]
    ]
    heads = [
        (*(row["model"], row["scheme"], row["rows"], row["threads"]), *(percent(row[name]) for name in HEAD_SHARES))
        for row in data["heads"]
    ]
    depths = [(_who(row), row["kv_cache"], *_speeds(row, data["depths"], "depth")) for row in data["depths"]]
    batches = [(_who(row), *_speeds(row, data["batches"], "batch")) for row in data["batches"]]
    speeds = ("threads", "prefill tokens/s", "of peak", "decode tokens/s", "of bandwidth", "ceilings: GB/s", "int8 TOPS")
    parts = [
        table(("model", "weights", *speeds), sizes),
        table(("model", "weights", "rows of the head", "threads", *HEAD_SHARES.values()), heads),
        table(("135M", "KV cache", "threads", "tokens before", "decode tokens/s", "over the first"), depths),
        table(("135M", "threads", "sequences at once", "decode tokens/s, all", "over the first"), batches),
        *verdicts(data),
    ]
    write("scaling", "Speed by model size, head, context, batch and threads", data, parts)


def over(row: Data, rows: list[Data], what: str) -> float:
    """Its speed over that of the smallest `what` among rows that are otherwise like it: the median of the rounds' ratios."""
    alike = [other for other in rows if all(other[key] == row[key] for key in ("scheme", "isa", "threads", "kv_cache"))]
    first = min(alike, key=lambda other: int(other[what]))
    return median_ratio(row["rounds"], first["rounds"])


def verdicts(data: Data) -> list[str]:
    """One line a bar."""
    lines = []
    for row in data["sizes"]:
        who = f"{row['model']}, {_on(row)}"
        lines.append(verdict(f"decode, share of read bandwidth, {who}", row["decode_fraction_of_bandwidth"], BANDWIDTH_BAR, True))
        if row["prefill_fraction_of_peak"] is not None:
            lines.append(verdict(f"prefill, share of the int8 peak, {who}", row["prefill_fraction_of_peak"], PEAK_BAR, True))
    for row in data["heads"]:
        what = f"head of {row['rows']} rows, share of a decoded token's time with all layers"
        lines.append(verdict(f"{what}, {row['model']}, {_on(row)}", row["whole_fraction_of_time"], HEAD_BAR))
    for row in (row for row in data["depths"] if row["depth"] == DEEP and row["kv_cache"] == "int8"):
        ratio = over(row, data["depths"], "depth")
        lines.append(verdict(f"decode at {DEEP} over 128, int8 cache, {_on(row)}", ratio, DEPTH_BAR, True))
    for row in (row for row in data["batches"] if row["batch"] == WIDE):
        ratio = over(row, data["batches"], "batch")
        lines.append(verdict(f"decode of {WIDE} sequences over one, {_on(row)}", ratio, BATCH_BAR, True))
    return lines


def _speeds(row: Data, rows: list[Data], what: str) -> tuple[int | float, ...]:
    return row["threads"], row[what], row["decode_tokens_per_s"], over(row, rows, what)


def _on(row: Data) -> str:
    return f"{_who(row)}, {row['threads']} thread(s)"


def _who(row: Data) -> str:
    isa = row.get("isa")
    return f"{row['scheme']} ({isa})" if isa else str(row["scheme"])
