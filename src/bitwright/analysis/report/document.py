"""What a report says, before it is a page: the types of the JSON document that `analyze` and `plan` write.

Sizes are bytes, KL is in nats per token, shares are parts of 1. All but `kind`, `verdict` and `model` may be missing, and a
missing part leaves its section out of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitwright.analysis.report.reading import read
from bitwright.errors import ReportError

KINDS = ("analysis", "plan")
SHARES = ("measured", "estimated")
OUTSIDE = -1  # the `layer` of what lies in no block: embedding and head
WORST = 12  # tensors that a page names as the costliest, each with what would mend it

Interval = tuple[float, float]


@dataclass(frozen=True)
class Model:
    name: str
    parameters: int | None = None
    blocks: int | None = None


@dataclass(frozen=True)
class Text:
    """What the figures were measured on; `held_out` says what keeps it apart from the calibration text."""

    name: str
    tokens: int | None = None
    context: int | None = None
    held_out: str | None = None


@dataclass(frozen=True)
class Whole:
    """The quantized model as one, with 95 % intervals. `noise_floor_kl` is what two equal models differ by.

    Losses are nats a token: the original's own on the text, and what quantization adds to it, which is the logarithm of the
    one perplexity over the other.
    """

    size_bytes: int | None = None
    bits_per_weight: float | None = None
    kl_mean: float | None = None
    kl_mean_interval: Interval | None = None
    kl_p99: float | None = None
    kl_p99_interval: Interval | None = None
    kl_max: float | None = None
    top1_agreement: float | None = None
    top1_agreement_interval: Interval | None = None
    flips: float | None = None
    flips_interval: Interval | None = None
    perplexity: float | None = None
    perplexity_interval: Interval | None = None
    perplexity_reference: float | None = None
    perplexity_reference_interval: Interval | None = None
    loss_reference: float | None = None
    loss_reference_interval: Interval | None = None
    loss_added: float | None = None
    loss_added_interval: Interval | None = None
    noise_floor_kl: float | None = None
    noise_floor_kl_interval: Interval | None = None


@dataclass(frozen=True)
class Tensor:
    """One tensor. `kl_alone`: the loss when only it is quantized; `kl_regained`: what comes back when only it is restored."""

    name: str
    layer: int
    kind: str
    scheme: str
    bits: float
    bytes: int
    shape: tuple[int, ...] = ()
    method: str | None = None
    kl_alone: float | None = None
    kl_alone_interval: Interval | None = None
    kl_regained: float | None = None
    kl_estimated: float | None = None
    sqnr_db: float | None = None
    cosine: float | None = None
    largest_error: float | None = None
    clipped_share: float | None = None
    unused_share: float | None = None
    output_error: float | None = None
    reason: str | None = None

    @property
    def cost(self) -> float | None:
        """Its loss alone as measured, or as estimated where it was not measured."""
        return self.kl_alone if self.kl_alone is not None else self.kl_estimated


@dataclass(frozen=True)
class TensorKind:
    """All tensors of one kind: their shares of the weights and of the summed loss, which is `kl`."""

    kind: str
    weights_share: float
    kl: float
    kl_share: float


@dataclass(frozen=True)
class Fix:
    """A change of one tensor and the KL of the whole model with it: tried, or foretold where it was not measured."""

    tensor: str
    from_scheme: str
    to_scheme: str
    kl_before: float
    kl_after: float
    extra_bytes: int
    measured: bool = True


@dataclass(frozen=True)
class Additivity:
    sum_of_parts: float
    together: float


@dataclass(frozen=True)
class Judged:
    """A tensor's loss alone, as estimated and as measured."""

    tensor: str
    estimated: float
    measured: float


@dataclass(frozen=True)
class Estimate:
    """How well estimated losses order the tensors that were measured as well; `sample` has these where not all were."""

    tensors: int
    rank_correlation: float | None = None
    sample: tuple[Judged, ...] = ()


@dataclass(frozen=True)
class Cumulative:
    """The loss when the blocks up to and with this one are quantized."""

    block: int
    kl: float


@dataclass(frozen=True)
class TokenKind:
    kind: str
    share: float
    kl: float
    nll_reference: float | None = None
    nll_added: float | None = None


def mean_kl(kinds: Sequence[TokenKind]) -> float:
    """Of a token. Kinds may come in several groups, of which each holds every token once."""
    return sum(kind.share * kind.kl for kind in kinds) / max(sum(kind.share for kind in kinds), 1e-30)


@dataclass(frozen=True)
class Counts:
    """A histogram and the grid's levels in the same unit; `edges` has one entry more than `counts`.

    Of a grid of `level_count` even levels, `levels` may be the outermost two alone.
    """

    edges: tuple[float, ...]
    counts: tuple[float, ...]
    levels: tuple[float, ...] | None = None
    level_count: int | None = None

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1:
            raise ReportError(
                f"a histogram of {len(self.counts)} counts needs {len(self.counts) + 1} edges, not {len(self.edges)}"
            )


@dataclass(frozen=True)
class Histogram:
    """The weights of the tensor `name`, and the activations it is multiplied with."""

    name: str
    weights: Counts | None = None
    activations: Counts | None = None


@dataclass(frozen=True)
class Point:
    """One recipe of the frontier; `uniform` where one scheme is used throughout."""

    label: str
    size_bytes: int
    kl: float
    measured: bool = True
    chosen: bool = False
    uniform: bool = False


@dataclass(frozen=True)
class Prediction:
    quantity: str
    predicted: float
    true: float
    unit: str = ""


@dataclass(frozen=True)
class Swap:
    """A step after the first plan: how many tensors changed schemes, and the KL before and after on text for comparing."""

    swapped: int
    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class Limit:
    quantity: str
    limit: float
    reached: float
    met: bool
    unit: str = ""


@dataclass(frozen=True)
class Work:
    """One part of a token's work, as a point of the roofline."""

    name: str
    operations_per_byte: float
    operations_per_s: float
    seconds_share: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Roofline:
    bandwidth_bytes_per_s: float
    peak_operations_per_s: float
    points: tuple[Work, ...] = ()


@dataclass(frozen=True)
class Energy:
    joules_per_token: float
    how: str


@dataclass(frozen=True)
class Document:
    """`shares` says whether the losses of single tensors are measured or estimated."""

    kind: str
    verdict: str
    model: Model
    machine: str | None = None
    made_by: str | None = None
    bitwright: str | None = None
    warnings: tuple[str, ...] = ()
    shares: str = "measured"
    text: Text | None = None
    activations: str | None = None  # and the cache of keys and values, as the engine had them
    kv_cache: str | None = None
    whole: Whole | None = None
    tensors: tuple[Tensor, ...] = ()
    kinds: tuple[TensorKind, ...] = ()
    fixes: tuple[Fix, ...] = ()
    additivity: Additivity | None = None
    estimate: Estimate | None = None
    cumulative: tuple[Cumulative, ...] = ()
    token_kinds: tuple[TokenKind, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    frontier: tuple[Point, ...] = ()
    predicted: tuple[Prediction, ...] = ()
    swaps: tuple[Swap, ...] = ()
    budget: tuple[Limit, ...] = ()
    roofline: Roofline | None = None
    energy: Energy | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ReportError(f"unknown kind of report {self.kind!r}; choose from {', '.join(KINDS)}")

        if self.shares not in SHARES:
            raise ReportError(f"unknown shares {self.shares!r} in a report; choose from {', '.join(SHARES)}")

    @property
    def estimated(self) -> bool:
        return self.shares == "estimated"

    @property
    def judged(self) -> tuple[Judged, ...]:
        """Tensors whose loss is estimated and measured, neither of them zero."""
        both = [Judged(one.name, one.kl_estimated or 0.0, one.kl_alone or 0.0) for one in self.tensors]
        known = self.estimate.sample if self.estimate and self.estimate.sample else both
        return tuple(one for one in known if one.estimated > 0 and one.measured > 0)

    @property
    def cost(self) -> float:
        """The sum of the tensors' losses alone: what shares are shares of."""
        return sum(max(tensor.cost or 0.0, 0.0) for tensor in self.tensors)


def parse(document: Mapping[str, Any]) -> Document:
    """Raises `ReportError` that names the first part which is not as it should be."""
    return read(Document, document, "document")
