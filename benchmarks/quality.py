"""What quantization costs: KL divergence, perplexity and top-1 agreement of Bitwright's schemes and of llama.cpp's types.

    python benchmarks/quality.py [--tokens 16384]

On the twin of SmolLM2 over WikiText-2 validation, in windows of 512 tokens. The reference is the twin itself with
32-bit activations; every contender sees the same windows, and one piece of code scores them all, from their logits.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.analysis.evaluate import SCORED, figures
from bitwright.analysis.scores import Scores
from bitwright.inspection import summary
from bitwright.models import load
from material import TEXT, artifact_of_twin, gguf_of_twin, twin
from results import circumstances, table, verdict, write
from worker import Worker, bitwright_worker, llama_cpp_worker

CONTEXT = 512
OURS = (
    ("int8-channel", "fp32"),
    ("int8-channel", "int16"),
    ("int8-channel", "int8"),
    ("int4-g32", "fp32"),
    ("int4-g32", "int8"),
    ("int4-g32 unrotated", "int8"),
    ("int4-g32-srow5", "int8"),
    ("int4-g64", "int8"),
    ("int4-g64 unrotated", "int8"),
    ("int4-g64-srow5", "int8"),
    ("int4-channel", "int8"),
    ("int4-g64-affine", "int8"),
    ("nf4-g64 decoded", "fp32"),  # its levels as they are stored
    ("nf4-g64", "fp32"),  # as the engine rounds them
    ("nf4-g64", "int8"),
    ("kmeans4-g64", "int8"),
    ("int3-g64", "int8"),
)
THEIRS = ("Q8_0", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_NL")
INT8_BAR, INT8_AS_RUN_BAR = 0.008, 0.015
ROUNDED_BAR = 0.02  # of nf4's KL, that the engine's rounding of its levels may add (docs/engine.md)
ADDED_BARS = {"int8": 0.005, "int16": 1e-5}  # KL that activations of so many bits may add to the weights' own


@dataclass
class Contender:
    """One quantized model, and its scores window by window."""

    name: str
    path: Path
    worker: Worker
    scores: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SCORED})

    def score(self, window: list[int], reference: Path) -> None:
        answer = self.worker.ask("compare", tokens=window, reference=str(reference))
        for name, values in self.scores.items():
            values.extend(answer[name])

    def row(self) -> dict[str, Any]:
        scores = Scores(**{name: np.array(values, np.float64) for name, values in self.scores.items()})
        windows = len(scores.kl) // (CONTEXT - 1)
        bits = summary(load(self.path))["bits_per_weight"]
        return {"model": self.name, "bits_per_weight": bits} | figures(scores, [CONTEXT - 1] * windows, paired=True)


def contenders(stack: ExitStack, directory: Path) -> list[Contender]:
    """All models, each loaded in a worker of its own that ends with `stack`."""
    result = []
    with bitwright_worker() as ours, llama_cpp_worker() as theirs:
        models = [
            (f"Bitwright {scheme}, {kind} activations", artifact_of_twin(scheme, directory, ours), kind) for scheme, kind in OURS
        ]
        models += [(f"llama.cpp {kind}", gguf_of_twin(kind, theirs), "") for kind in THEIRS]
    for name, path, activations in models:
        worker = stack.enter_context(llama_cpp_worker() if path.suffix == ".gguf" else bitwright_worker())
        worker.ask("load", model=str(path), threads=2, context=CONTEXT, activations=activations)
        result.append(Contender(name, path, worker))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Loss of Bitwright's and llama.cpp's formats on the twin of SmolLM2-135M.")
    parser.add_argument("--tokens", type=int, default=16384)
    options = parser.parse_args()
    if not TEXT.exists():
        raise SystemExit(f"{TEXT} is not here: this benchmark needs the WikiText-2 validation text")

    tokens = load(twin()).tokenizer().encode(TEXT.read_text("utf-8"), add_special=False)[: options.tokens]
    windows = [tokens[start : start + CONTEXT] for start in range(0, len(tokens) - CONTEXT + 1, CONTEXT)]
    data: dict[str, Any] = {"circumstances": circumstances(), "command": "python benchmarks/quality.py"}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        judge = stack.enter_context(bitwright_worker())
        judge.ask("load", model=str(twin()), threads=2, context=CONTEXT, activations="fp32")
        models = contenders(stack, directory)
        for window in windows:
            judge.ask("reference", tokens=window, path=str(directory / "reference.npy"))
            for model in models:
                model.score(window, directory / "reference.npy")
        rows = [model.row() for model in models]
    report(data | {"windows": len(windows), "context": CONTEXT, "rows": rows})


def report(data: dict[str, Any]) -> None:
    rows = {row["model"]: row for row in data["rows"]}
    lines = [
        (
            name,
            row["bits_per_weight"],
            row["kl_mean"],
            "{:.4g} .. {:.4g}".format(*row["kl_mean_interval"]),
            row["perplexity"],
            row["top1_agreement"],
        )
        for name, row in rows.items()
    ]
    int4, q4 = rows["Bitwright int4-g32, int8 activations"], rows["llama.cpp Q4_0"]
    bars = [
        verdict("KL of int8-channel, fp32 activations", rows["Bitwright int8-channel, fp32 activations"]["kl_mean"], INT8_BAR),
        verdict("KL of int8-channel as it runs", rows["Bitwright int8-channel, int8 activations"]["kl_mean"], INT8_AS_RUN_BAR),
        verdict("KL of int4-g32 as it runs, beside Q4_0", int4["kl_mean"], q4["kl_mean"]),
        verdict("bits of int4-g32, beside Q4_0", int4["bits_per_weight"], q4["bits_per_weight"]),
    ]
    exact = rows["Bitwright int8-channel, fp32 activations"]["kl_mean"]
    for kind, bar in ADDED_BARS.items():
        added = rows[f"Bitwright int8-channel, {kind} activations"]["kl_mean"] - exact
        bars.append(verdict(f"KL that {kind} activations add to int8-channel", added, bar))
    decoded, held = (rows[f"Bitwright nf4-g64{how}, fp32 activations"]["kl_mean"] for how in (" decoded", ""))
    bars.append(verdict("KL that rounding the levels of nf4-g64 adds, as a share of its own", held / decoded - 1, ROUNDED_BAR))
    perplexity = data["rows"][0]["perplexity_reference"]
    note = f"{data['windows']} windows of {data['context']} tokens; perplexity of the twin {perplexity:.2f}; 95 % intervals.\n"
    header = ("model", "bits per weight", "KL", "interval", "perplexity", "top-1")
    write("quality", "Loss on the twin of SmolLM2-135M, WikiText-2 validation", data, [note, table(header, lines), *bars])


if __name__ == "__main__":
    main()
