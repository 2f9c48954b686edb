"""What plans reach: for the file sizes of llama.cpp's types, loss foretold, measured by the plan, and on text that it never saw.

    python benchmarks/plans.py [--sizes 90,108,125,133] [--tokens 4096]

On the twin of SmolLM2. Plans look at text that the model writes; the last column is WikiText-2 validation, in windows of 512,
with the engine as it runs. A third of the loss of llama.cpp's best type at that size, without imatrix, is the bar: .255, .082
and .056 in ../shared/notes/peers.md, of which the table of `quality.py` has those that were measured here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import bitwright
from bitwright.allocation.budget import Budget
from bitwright.analysis.planning import Settings, find_plan
from bitwright.cli.console import progress
from bitwright.models import load
from material import TEXT, twin
from results import circumstances, table, verdict, write

BARS = {90: 0.25, 108: 0.255 / 3, 125: 0.082 / 3, 133: 0.056 / 3}
CLOSE = 0.2  # of what was measured, that what was foretold may be off
COLUMNS = ("size MB", "foretold KL", "measured by the plan", "WikiText-2 KL", "interval", "perplexity", "seconds to plan")


def measured(megabytes: int, tokens: int) -> dict[str, Any]:
    """One plan, made and held against the twin."""
    model, settings = load(twin()), Settings()
    begin = time.perf_counter()
    found = find_plan(model, Budget(max_size=megabytes * 10**6), settings, progress)
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory(prefix="bitwright-plans-") as directory:
        saved = bitwright.quantize(model, found.recipe, settings.calibration).save(Path(directory) / "artifact")
        result = bitwright.evaluate(saved, model, TEXT, 512, tokens)
    return {"limit_mb": megabytes, "seconds": seconds, "plan": found.to_dict()} | result.to_dict()


def row(each: dict[str, Any]) -> tuple[str | float, ...]:
    low, high = each["kl_mean_interval"]
    said = each["plan"]
    size = f"{each['size_bytes'] / 1e6:.1f}"
    losses = said["foretold"]["divergence"], said["measured"]["divergence"], each["kl_mean"]
    return (size, *losses, f"{low:.4g} .. {high:.4g}", each["perplexity"], each["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="90,108,125,133", help="of all files, in MB")
    parser.add_argument("--tokens", type=int, default=4096)
    arguments = parser.parse_args()
    where = circumstances()
    found = [measured(int(size), arguments.tokens) for size in arguments.sizes.split(",")]
    verdicts = []
    for each in found:
        foretold, true = each["plan"]["foretold"]["divergence"], each["plan"]["measured"]["divergence"]
        verdicts.append(verdict(f"foretold loss off by, {each['limit_mb']} MB", abs(foretold / true - 1), CLOSE))
        if each["limit_mb"] in BARS:
            verdicts.append(verdict(f"KL on WikiText-2, {each['limit_mb']} MB", each["kl_mean"], BARS[each["limit_mb"]]))
        exact = each["size_bytes"] == each["plan"]["foretold"]["bytes"]
        verdicts.append(f"- size foretold to the byte, {each['limit_mb']} MB: {'met' if exact else '**not met**'}")
    data = {"command": "python benchmarks/plans.py", "circumstances": where, "plans": found}
    title = "Plans for a file size, on the twin of SmolLM2-135M"
    write("plans", title, data, [table(COLUMNS, [row(each) for each in found]), "\n".join(verdicts)])


if __name__ == "__main__":
    main()
