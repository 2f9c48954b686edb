"""The whole examination of one recipe: what it loses, which tensor loses it, on which tokens, and what would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.analysis import frontiers, rooflines
from bitwright.analysis.attribution import Attribution, attribute
from bitwright.analysis.ceilings import Ceilings
from bitwright.analysis.dense_only import require_dense
from bitwright.analysis.documents import Document, Made, analysis_document
from bitwright.analysis.estimation import attribute_by_estimate
from bitwright.analysis.evaluate import Evaluation, evaluate
from bitwright.analysis.scored_text import read_text, windows_of
from bitwright.analysis.seen_inputs import seen_inputs
from bitwright.analysis.unseen import require_unseen
from bitwright.calibration.marks import remembered, seen_share
from bitwright.calibration.text import Watch, unwatched
from bitwright.core import Choice, Floats, Recipe, Scheme
from bitwright.errors import TextError
from bitwright.formats import FORMATS
from bitwright.models.base import LanguageModel
from bitwright.quantization import QuantizedModel, quantize
from bitwright.quantization.matrix import quantize_matrix
from bitwright.runtime import setting_of

CONTEXT = 256
TOKENS, ESTIMATE_TOKENS = (4096, 1024), (2048, 512)  # for the whole, and of these for one tensor at a time
REPAIRS = ("int3-g64", "int4-g64", "int5-g64", "int6-g64", "int8-channel")  # the next larger is tried
WITH_INTERVALS = (
    *("kl_mean", "kl_p99", "top1_agreement", "flips", "perplexity", "perplexity_reference"),
    *("loss_reference", "loss_added", "noise_floor_kl"),
)
WHOLE = ("size_bytes", "bits_per_weight", "kl_max", *WITH_INTERVALS, *(f"{name}_interval" for name in WITH_INTERVALS))


@dataclass(frozen=True)
class Examined:
    """`tokens` of `text` (itself, or a file) for the whole, of which `probed` for one tensor at a time; by default TOKENS.

    With `estimate` what each tensor costs is estimated from one backward pass, and measured of a few only (estimation.py), by
    default on ESTIMATE_TOKENS.
    """

    text: str | Path
    tokens: int | None = None
    probed: int | None = None
    allow_seen: bool = False
    estimate: bool = False

    def counts(self) -> tuple[int, int]:
        """Tokens for the whole, and for one tensor at a time."""
        usual = ESTIMATE_TOKENS if self.estimate else TOKENS
        return self.tokens or usual[0], self.probed or usual[1]


def analyze(made: Made, recipe: Recipe, examined: Examined, calibration: str = "self", watch: Watch = unwatched) -> Document:
    """The document of a report. Raises `TextError` for a text too short, `ModelConfigError` for a mixture of experts, and what
    `quantize` and `evaluate` raise.
    """
    model = made.model
    require_dense(model, "analyses")
    quantized = quantize(model, recipe, calibration)
    context = min(CONTEXT, model.architecture.context_length)
    tokens, probed = examined.counts()
    passage = read_text(examined.text, tokens)
    windows = [window for window in windows_of(model.tokenizer(), passage, context, probed) if len(window) == context]
    if not windows:
        raise TextError(f"an analysis needs one window of {context} tokens at least; give a longer text")
    quantized.text.watch = watch
    read, marks = windows_of(model.tokenizer(), passage, context, tokens), remembered(quantized)
    if not examined.allow_seen:
        require_unseen(read, marks)
    quantized.calibrate(None, watch)
    with watch("quantizing"):
        quantized.hold()
    run = setting_of(recipe)
    with watch("measuring the whole") as progress:
        whole = evaluate(quantized, model, passage, context, tokens, run.activations, progress, True, True, kv_cache=run.kv_cache)
    attributing = attribute_by_estimate if examined.estimate else attribute
    found = attributing(model, quantized, np.stack(windows), lambda name: repaired(model, quantized, name), watch)
    with watch("looking at layers under their inputs"):
        seen = {each.tensor: each for each in seen_inputs(model, quantized, np.stack(windows))}
    figures = whole.to_dict()
    totals = {key: figures[key] for key in WHOLE}
    document = analysis_document(made, quantized, found, totals, seen)
    with watch("estimating other schemes") as progress:
        document["frontier"] = frontiers.of_recipe(model, quantized, found, totals, np.stack(windows), progress)
    with watch("timing a token"):
        roofline = rooflines.of_model(quantized, Ceilings.of_this_machine())
    if roofline is not None:
        document["roofline"], document["machine"] = roofline
    document["token_kinds"] = kinds_of(whole)
    name = examined.text.name if isinstance(examined.text, Path) else "a text of its own"
    share = seen_share(read, marks) if examined.allow_seen else 0.0
    apart = f"calibration saw {100 * share:.0f} % of it" if share else "calibration did not see it"
    document["text"] = {"name": name, "tokens": whole.tokens, "context": context, "held_out": apart}
    return document | {"fixes": fixes(quantized, found, whole.kl_mean or 0.0)}


def larger(scheme: Scheme) -> Scheme | None:
    """The next of REPAIRS with more bits; None beyond eight."""
    bits = FORMATS[scheme.format].bits
    return next((Scheme.parse(name) for name in REPAIRS if FORMATS[Scheme.parse(name).format].bits > bits), None)


def better_scheme(quantized: QuantizedModel, name: str) -> Scheme:
    """What is tried for a tensor: the next larger scheme; fp16 where none is or fits, and for blocks of rows."""
    lines = quantized.lines(name)
    better = larger(lines[0].scheme) if len(lines) == 1 and lines[0].scheme.scaled else None
    fits = better is not None and not (better.group > 0 and quantized.shape(name)[1] % better.group)
    return better if better is not None and fits else Scheme("fp16")


def repaired(model: LanguageModel, quantized: QuantizedModel, name: str) -> Floats:
    """The tensor rounded to nearest in its better scheme; as it was, where that is fp16."""
    better = better_scheme(quantized, name)
    if not better.scaled:
        return model.read(name)
    rotated = quantized.rotation_of(name) > 0
    return quantize_matrix(name, model.stored(name), Choice(name, better, rotate=rotated)).dequantize()


def fixes(quantized: QuantizedModel, found: Attribution, whole: float) -> list[dict[str, Any]]:
    """What was tried for the worst tensors, or foretold: with estimates scaled so that their sum is the loss of the `whole`."""
    rows, scale = [], 1.0 if found.measured else whole / max(found.sum_of_parts, 1e-30)
    for repair in found.repairs:
        if not any(line.scheme.scaled for line in quantized.lines(repair.tensor)):
            continue  # in full precision already
        better, (outputs, inputs) = better_scheme(quantized, repair.tensor), quantized.shape(repair.tensor)
        extra = better.stored_bits((outputs, inputs)) - quantized.stored_bits(repair.tensor)
        rows.append(
            {
                "tensor": repair.tensor,
                "from_scheme": quantized.scheme_of(repair.tensor),
                "to_scheme": str(better),
                "kl_before": scale * repair.before,
                "kl_after": scale * repair.after,
                "extra_bytes": max(0, extra // 8),
                "measured": found.measured,
            }
        )
    return rows


def kinds_of(whole: Evaluation) -> list[dict[str, Any]]:
    """The kinds of token as the report names their figures."""
    return [
        {
            "kind": f"{kind.group}: {kind.kind}",
            "share": kind.share,
            "kl": kind.kl_mean,
            "nll_reference": kind.loss_reference,
            "nll_added": kind.loss_added,
        }
        for kind in whole.kinds or ()
    ]
