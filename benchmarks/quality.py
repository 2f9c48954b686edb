"""What quantization costs: KL divergence, perplexity and top-1 agreement of Bitwright's schemes and of llama.cpp's types.

    python benchmarks/quality.py [--tokens 12288]

On the twin of SmolLM2 over WikiText-2 validation, in windows of 512 tokens. The reference is the twin itself with
32-bit activations; every contender sees the same windows, and one piece of code scores them all, from their logits.
What an engine's path adds is its KL less that of the same weights with 32-bit activations, both on the same tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.analysis.evaluate import SCORED, figures
from bitwright.analysis.scores import Scores
from bitwright.analysis.significance import percentile_interval, resample, units_of_windows
from bitwright.inspection import summary
from bitwright.models import load
from material import TEXT, artifact_of_twin, gguf_of_twin, twin
from results import circumstances, command_line, table, verdict, write
from worker import Worker, bitwright_worker, llama_cpp_worker

CONTEXT = 512
OURS = (
    ("int8-channel", "fp32"),
    ("int8-channel", "int16"),
    ("int8-channel", "int8"),
    ("int4-g32", "fp32"),
    ("int4-g32", "int8"),
    ("int4-g32 unrotated", "int8"),
    ("int4-g32-srow5", "fp32"),
    ("int4-g32-srow5", "int16"),
    ("int4-g32-srow5", "int8"),
    ("int4-g64", "fp32"),
    ("int4-g64", "int16"),
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
ADDED_TO = ("int8-channel", "int4-g64", "int4-g32-srow5")
AT_ONCE = 2  # contenders that are scored side by side, each on one thread: no result depends on it


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

    @property
    def windows(self) -> list[int]:
        """Scored tokens of each."""
        return [CONTEXT - 1] * (len(self.scores["kl"]) // (CONTEXT - 1))

    def row(self) -> dict[str, Any]:
        scores = Scores(**{name: np.array(values, np.float64) for name, values in self.scores.items()})
        bits = summary(load(self.path))["bits_per_weight"]
        return {"model": self.name, "bits_per_weight": bits} | figures(scores, self.windows, paired=True)


def named(scheme: str, activations: str) -> str:
    return f"Bitwright {scheme}, {activations} activations"


def contenders(stack: ExitStack, directory: Path) -> list[Contender]:
    """All models, each loaded in a worker of its own that ends with `stack`."""
    result = []
    with bitwright_worker() as ours, llama_cpp_worker() as theirs:
        models = [(named(scheme, kind), artifact_of_twin(scheme, directory, ours), kind) for scheme, kind in OURS]
        models += [(f"llama.cpp {kind}", gguf_of_twin(kind, theirs), "") for kind in THEIRS]
    for name, path, activations in models:
        worker = stack.enter_context(llama_cpp_worker() if path.suffix == ".gguf" else bitwright_worker())
        worker.ask("load", model=str(path), threads=1, context=CONTEXT, activations=activations)
        result.append(Contender(name, path, worker))
    return result


def added(models: list[Contender]) -> list[dict[str, Any]]:
    """KL that activations of fewer bits add to the weights' own, with the interval of the difference."""
    kl = {model.name: np.array(model.scores["kl"], np.float64) for model in models}
    draws = resample(units_of_windows(models[0].windows))
    rows = []
    for scheme in ADDED_TO:
        for kind in ADDED_BARS:
            more = kl[named(scheme, kind)] - kl[named(scheme, "fp32")]
            interval = percentile_interval(draws.means(more))
            rows.append({"scheme": scheme, "activations": kind, "kl": float(more.mean()), "interval": interval})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Loss of Bitwright's and llama.cpp's formats on the twin of SmolLM2-135M.")
    parser.add_argument("--tokens", type=int, default=12288)
    options = parser.parse_args()
    if not TEXT.exists():
        raise SystemExit(f"{TEXT} is not here: this benchmark needs the WikiText-2 validation text")

    tokens = load(twin()).tokenizer().encode(TEXT.read_text("utf-8"), add_special=False)[: options.tokens]
    windows = [tokens[start : start + CONTEXT] for start in range(0, len(tokens) - CONTEXT + 1, CONTEXT)]
    data: dict[str, Any] = {"circumstances": circumstances(), "command": command_line()}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        judge = stack.enter_context(bitwright_worker())
        judge.ask("load", model=str(twin()), threads=2, context=CONTEXT, activations="fp32")
        models = contenders(stack, directory)
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        reference = directory / "reference.npy"
        for window in windows:
            judge.ask("reference", tokens=window, path=str(reference))
            list(pool.map(lambda model, window=window: model.score(window, reference), models))
        data |= {"rows": [model.row() for model in models], "added": added(models)}
    report(data | {"windows": len(windows), "context": CONTEXT})


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
    int4, q4 = rows[named("int4-g32", "int8")], rows["llama.cpp Q4_0"]
    bars = [
        verdict("KL of int8-channel, fp32 activations", rows[named("int8-channel", "fp32")]["kl_mean"], INT8_BAR),
        verdict("KL of int8-channel as it runs", rows[named("int8-channel", "int8")]["kl_mean"], INT8_AS_RUN_BAR),
        verdict("KL of int4-g32 as it runs, beside Q4_0", int4["kl_mean"], q4["kl_mean"]),
        verdict("bits of int4-g32, beside Q4_0", int4["bits_per_weight"], q4["bits_per_weight"]),
    ]
    for each in data["added"]:
        between = "{:.4g} to {:.4g}".format(*each["interval"])
        what = f"KL that {each['activations']} activations add to {each['scheme']} ({between})"
        bars.append(verdict(what, each["kl"], ADDED_BARS[each["activations"]]))
    decoded, held = (rows[named(f"nf4-g64{how}", "fp32")]["kl_mean"] for how in (" decoded", ""))
    bars.append(verdict("KL that rounding the levels of nf4-g64 adds, as a share of its own", held / decoded - 1, ROUNDED_BAR))
    perplexity = data["rows"][0]["perplexity_reference"]
    note = f"{data['windows']} windows of {data['context']} tokens; perplexity of the twin {perplexity:.2f}; 95 % intervals.\n"
    header = ("model", "bits per weight", "KL", "interval", "perplexity", "top-1")
    write("quality", "Loss on the twin of SmolLM2-135M, WikiText-2 validation", data, [note, table(header, lines), *bars])


if __name__ == "__main__":
    main()
