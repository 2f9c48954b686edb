"""How speed scales: with the model's size, its head, the context, the batch and the threads.

    python benchmarks/scaling.py [--rounds 5] [--threads 1,2]

Sizes: the twin of SmolLM2-135M, and random weights (shapes.py) in the shape of a 1B model (four layers of Llama 3.2 1B) and
of a 7B model (two layers of Llama 2 7B), each with a vocabulary of 8192, in turns and beside the machine's ceilings
(contest.py): a share of the read bandwidth (decode) and of the int8 peak (prefill) is comparable between sizes where a
speed is not. Head: the share of a decoded token's time that the engine spends in it, beside its share of the weights'
bytes; of the twin, and of two layers of Llama 3.2 1B with all its 128256 rows. Context and batch: of the twin, all ways of
decoding in turns, each ratio the median of the rounds' ratios; once more with the engine forced to AVX2, as far as there
are bars.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.analysis.work import prompt_operations, weights_multiplied
from bitwright.models import load
from contenders import OURS, Entry
from contest import AFTER, PROMPT, contest
from material import twin
from results import circumstances, command_line
from scaling_report import report
from shapes import Shape, artifact, random_model
from worker import bitwright_worker

SCHEMES = ("int4-g64", "int8-channel")
BITS = {"int4-g64": 4, "int8-channel": 8}
TWIN = "135M"
SIZES = {
    "1B-shaped, 4 layers": Shape(2048, 8192, 32, 8, layers=4, whole=16),
    "7B-shaped, 2 layers": Shape(4096, 11008, 32, 32, layers=2, whole=32),
}
WIDE = "1B-shaped, 2 layers", Shape(2048, 8192, 32, 8, layers=2, whole=16, vocabulary=128256, tied=True)
STEPS = 64  # tokens decoded in each sequence


@dataclass(frozen=True)
class Way:
    """Of decoding: `batch` sequences at once, after `depth` tokens each."""

    kv_cache: str = "fp16"
    depth: int = AFTER
    batch: int = 1


DEPTHS = [Way(cache, depth) for cache in ("fp16", "int8") for depth in (128, 1024, 4096)]
BATCHES = [Way(batch=batch) for batch in (1, 2, 4, 8, 16)]
BARRED = [Way("int8", 128), Way("int8", 4096)], [Way(batch=1), Way(batch=8)]  # depths and batches that bars speak of
WAYS = {"": (DEPTHS, BATCHES), "avx2": BARRED}  # by the instruction set that the engine is forced to

Row = dict[str, Any]


def sizes(models: dict[str, Path], scheme: str, threads: int, rounds: int) -> list[Row]:
    """Prefill and decode of each, as shares of what the machine allows."""
    entry = Entry(OURS, scheme, BITS[scheme], bitwright_worker)
    tokens = [int(token) for token in np.random.default_rng(0).integers(100, 8000, PROMPT)]
    contenders = contest([(entry, path) for path in models.values()], tokens, threads, rounds)
    rows = []
    for (model, path), contender in zip(models.items(), contenders, strict=True):
        shares = contender.shares(prompt_operations(load(path).architecture, PROMPT) / PROMPT)
        rows.append({"model": model, "scheme": scheme} | contender.figures(threads) | shares)
    return rows


def paces(path: Path, isa: str, threads: int, ways: list[Way], rounds: int) -> list[Row]:
    """Tokens per second of all sequences together, and the head's share of the time. A first round warms up."""
    answers: dict[Way, list[Row]] = {way: [] for way in ways}
    with bitwright_worker(isa) as worker:
        context = max(way.depth for way in ways) + STEPS
        worker.ask("load", model=str(path), threads=threads, context=context, activations="int8")
        for _ in range(rounds + 1):
            for way in ways:
                answers[way].append(worker.ask("steps", **asdict(way), steps=STEPS))
    rows = []
    for way, found in answers.items():
        speeds = [way.batch * STEPS / answer["seconds"] for answer in found[1:]]
        head = statistics.median(answer["stages"]["head"] / answer["seconds"] for answer in found[1:])
        row = asdict(way) | {"isa": isa, "threads": threads, "head_fraction_of_time": head}
        rows.append(row | {"decode_tokens_per_s": statistics.median(speeds), "rounds": speeds})
    return rows


def head(path: Path, pace: Row, more: float) -> Row:
    """Its share of a decoded token's time and of the bytes read; and of a model with `more` times the layers."""
    architecture = load(path).architecture
    of_bytes = architecture.hidden_size * architecture.vocab_size / weights_multiplied(architecture)
    row: Row = {"rows": architecture.vocab_size, "threads": pace["threads"]}
    for what, share in (("time", pace["head_fraction_of_time"]), ("bytes", of_bytes)):
        row |= {f"fraction_of_{what}": share, f"whole_fraction_of_{what}": share / (share + (1 - share) * more)}
    return row


def measure(scheme: str, counts: list[int], rounds: int, directory: Path) -> dict[str, list[Row]]:
    """All rows of one scheme, by the table they stand in."""
    small = artifact(twin(), scheme, directory / f"{TWIN} {scheme}")
    models = {TWIN: small} | {name: artifact(directory / name, scheme, directory / f"{name} {scheme}") for name in SIZES}
    found: dict[str, list[Row]] = {"sizes": [], "heads": [], "depths": [], "batches": []}
    for threads in counts:
        found["sizes"] += sizes(models, scheme, threads, rounds)
        for isa, (depths, batches) in WAYS.items():
            rows = [{"scheme": scheme} | row for row in paces(small, isa, threads, [*depths, *batches], rounds)]
            found["depths"] += rows[: len(depths)]
            found["batches"] += rows[len(depths) :]
            if not isa:
                found["heads"].append({"model": TWIN, "scheme": scheme} | head(small, rows[len(depths)], 1))
    return found


def wide(counts: list[int], rounds: int, directory: Path) -> list[Row]:
    """Rows of the head table for a large vocabulary."""
    name, shape = WIDE
    path = artifact(random_model(shape, directory / name), SCHEMES[0], directory / f"{name} {SCHEMES[0]}")
    found = [head(path, paces(path, "", threads, [Way()], rounds)[0], shape.whole / shape.layers) for threads in counts]
    return [{"model": name, "scheme": SCHEMES[0]} | row for row in found]


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed by model size, head, context, batch and threads.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2", help="thread counts, separated by commas")
    options = parser.parse_args()
    counts = [int(count) for count in options.threads.split(",")]

    data: Row = {"circumstances": circumstances(), "command": command_line()}
    with tempfile.TemporaryDirectory() as directory:
        for name, shape in SIZES.items():
            random_model(shape, Path(directory) / name)
        for scheme in SCHEMES:
            for table, rows in measure(scheme, counts, options.rounds, Path(directory)).items():
                data[table] = data.get(table, []) + rows
        data["heads"] += wide(counts, options.rounds, Path(directory))
    report(data)


if __name__ == "__main__":
    main()
