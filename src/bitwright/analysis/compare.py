"""Method x scheme, each quantized and held against the model it comes from: one row a combination.

A row's size, bits and losses are those of the artifact that `quantize` would write; the artifact goes when its row is done.
What cannot be (a group that divides no row, a scale beyond its type) is a row as well, with the reason in place of figures.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bitwright import __version__
from bitwright.analysis.evaluate import Evaluation, evaluate
from bitwright.analysis.own_process import Cost, quantize_apart
from bitwright.analysis.scored_text import Tokens, read_text, windows_of
from bitwright.analysis.unseen import require_unseen
from bitwright.calibration.marks import remembered
from bitwright.calibration.text import Source
from bitwright.core import Recipe
from bitwright.errors import EngineError, NonFiniteError, RecipeError, SchemeError, TextError
from bitwright.models.base import LanguageModel
from bitwright.quantization import quantize

CONTEXT = 256  # short windows, so that a short text makes enough of them for an interval
# Faults of one combination, not of all
IMPOSSIBLE = (SchemeError, RecipeError, NonFiniteError, EngineError, TextError, MemoryError)

Step = Callable[[str, int, int], None]  # what begins now, steps done, steps in all


@dataclass(frozen=True)
class Measured:
    """The figures of one combination. KL is in nats per token.

    `seconds` and `peak_rss_bytes` are what quantizing and writing took in a process of its own, calibration included; text that
    the model writes for it is written once, before.
    """

    size_bytes: int
    bits_per_weight: float
    kl_mean: float
    kl_mean_interval: tuple[float, float]
    perplexity: float
    perplexity_reference: float
    top1_agreement: float
    seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class Row:
    """One combination: its figures, or None and the reason."""

    method: str
    scheme: str
    measured: Measured | None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready and flat; figures that are missing are left out."""
        figures = asdict(self.measured) | {"kl_mean_interval": list(self.measured.kl_mean_interval)} if self.measured else {}
        return {"method": self.method, "scheme": self.scheme} | figures | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True)
class Ruler:
    """What all rows are measured with: the first `tokens` tokens of a text (itself, or a file), and what methods calibrate on.

    A row whose calibration saw the text is not measured, unless `allow_seen`.
    """

    text: str | Path
    tokens: int = 4096
    calibration: Source = field(default_factory=Source)
    allow_seen: bool = False

    def settings(self, model: LanguageModel) -> dict[str, Any]:
        """All that figures depend on beside the combination, JSON-ready. Raises `TextError` for a text that cannot be scored."""
        self.calibration.check()
        self.windows(model)
        settings = {
            "model": model.path.name,
            "fingerprint": model.fingerprint(),
            "text": hashlib.sha256(read_text(self.text, self.tokens).encode()).hexdigest()[:16],
            "tokens": self.tokens,
            "context": self.context(model),
            "calibration": asdict(self.calibration),
            "bitwright": __version__,
        }
        return settings | ({"allow_seen": True} if self.allow_seen else {})

    def windows(self, model: LanguageModel) -> list[Tokens]:
        """The text in the model's tokens. Raises `TextError`."""
        return windows_of(model.tokenizer(), read_text(self.text, self.tokens), self.context(model), self.tokens)

    def context(self, model: LanguageModel) -> int:
        return min(CONTEXT, model.architecture.context_length)


def compare(
    model: LanguageModel,
    recipes: Mapping[tuple[str, str], Recipe],
    ruler: Ruler,
    step: Step = lambda message, done, total: None,
) -> Iterator[Row]:
    """The row of each (method, scheme) in turn, so that what is done is not lost when the rest is interrupted.

    `model` is read anew from its path. Artifacts lie in the system's folder for temporary files, one at a time. Raises what
    reading, writing and loading raise.
    """
    for position, ((method, scheme), recipe) in enumerate(recipes.items()):

        def begin(what: str, done: int, name: str = f"{method} {scheme}", before: int = 2 * position) -> None:
            step(f"{name}: {what}", before + done, 2 * len(recipes))

        try:
            yield Row(method, scheme, _measured(model, recipe, ruler, begin))
        except IMPOSSIBLE as fault:
            yield Row(method, scheme, None, " ".join(str(fault).split()) or type(fault).__name__)


def _measured(model: LanguageModel, recipe: Recipe, ruler: Ruler, begin: Callable[[str, int], None]) -> Measured:
    begin("quantizing", 0)
    quantized = quantize(model, recipe, ruler.calibration)  # refuses at once what cannot be
    marks = remembered(quantized)  # its calibration text is kept on disk from now on: no row pays for what all read
    if not ruler.allow_seen:
        require_unseen(ruler.windows(model), marks)
    with tempfile.TemporaryDirectory(prefix="bitwright-compare-") as directory:
        path = Path(directory) / "artifact"
        cost = quantize_apart(model.path, recipe, ruler.calibration, path)
        begin("measuring what was lost", 1)
        return _figures(evaluate(path, model, ruler.text, ruler.context(model), ruler.tokens, allow_seen=True), cost)


def _figures(found: Evaluation, cost: Cost) -> Measured:
    assert found.kl_mean is not None and found.kl_mean_interval is not None  # there is a reference
    assert found.perplexity_reference is not None and found.top1_agreement is not None
    return Measured(
        found.size_bytes,
        found.bits_per_weight,
        found.kl_mean,
        found.kl_mean_interval,
        found.perplexity,
        found.perplexity_reference,
        found.top1_agreement,
        cost.seconds,
        cost.peak_rss_bytes,
    )
