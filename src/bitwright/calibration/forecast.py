"""What storing a model will take, before it is done: seconds and peak memory, from the work and this machine's pace.

    products    2 * tokens * weights of the blocks, for each stream of activations; of experts, those that a token goes through
    between     what is done to activations one by one: norms, attention's weights, gates, types changed
    moments     tokens * columns^2 for each input (a symmetric product), twice that more where drift is observed
    factoring   columns^3 for each input: the moments' root and its inverse
    rounding    of each matrix by its method, scales included: paces.py
    guiding     four products a token with blocks, forwards and backwards with recomputing; the head; weights read for each part
    distilling  eight products a pass with blocks and head: forwards twice, backwards twice the work of forwards
    transforms  products and moments once more for each that observes, and for each try a product with a layer's moments
    storing     weights read once more, those that no method looks at the inputs of rounded to nearest, bytes written
    writing     tokens that the model has still to write, at the pace of reading its weights, or of a matrix unit

Memory is the model's file, which is mapped, the residual stream, the widest input and what one layer takes, or what the streams
and the end of the model take in guiding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitwright.calibration import paces
from bitwright.calibration.paces import Walking
from bitwright.models.architecture import LAYER_MATRICES, Architecture, active_share, experts_of, kind_of, of_expert
from bitwright.models.base import LanguageModel
from bitwright.rounding.needs import has_drift, is_guided

BASE_BYTES = 340_000_000  # Python, torch and their working memory
PLAIN_BYTES = 80_000_000  # Python and numpy
BETWEEN = 18  # visits to each activation between products, of the width of the stream or of the MLP
GUIDING_PRODUCTS, GUIDING_BETWEEN = 4, 11  # over those of one stream
HELD = {"gptq-scales": 7, "refine": 7, "guided": 7, "adaround": 27, "signround": 15}  # times a matrix in float32, the others 5
STEP_TOKENS, HEAD_TOKENS = 2048, 256  # of distillation and guiding, whose modules need torch


@dataclass(frozen=True)
class Forecast:
    """Bytes of files written; `seconds` without the writing of text, `writing_seconds` for it; peak resident bytes.

    The start of the program and the measuring of paces are not counted.
    """

    size_bytes: int
    seconds: float
    writing_seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class Work:
    """Which matrices are rounded by their inputs: name -> method, and what is observed, as rounding/needs.py names it."""

    methods: Mapping[str, str]
    needs: Mapping[str, str]
    shape: tuple[int, int]  # windows, tokens in each
    unwritten: int  # tokens
    size_bytes: int  # of files; 0 where nothing is stored
    observations: int = 0  # transforms that observe inputs
    searches: int = 0  # tries of each matrix that they make
    distill: int = 0  # passes over the windows

    @property
    def streams(self) -> int:
        """Of activations that walk beside each other."""
        return 2 if any(map(has_drift, self.needs.values())) else 1

    @property
    def guided(self) -> bool:
        """Whether a backward pass weighs tokens first."""
        return any(map(is_guided, self.needs.values()))


def forecast(model: LanguageModel, work: Work, walking: Walking | None = None) -> Forecast:
    """`walking` is measured where it is not given. Raises nothing of its own."""
    storing = _storing_seconds(model, work) if work.size_bytes else 0.0
    if not work.methods and not work.observations and not work.distill:
        return Forecast(work.size_bytes, storing, 0.0, PLAIN_BYTES + _mapped_bytes(model) + _largest_bytes(model))
    walking = walking or Walking.of(model)
    body, tokens = sum(rows * n for rows, n in _layer_shapes(model)), work.shape[0] * work.shape[1]
    active = _active_weights(model)
    walked = (work.streams if work.methods else 0) + work.observations
    seconds = walked * (_products(model, tokens, walking) + _between(model, tokens, walking)) + storing
    squares = sum(share * n * n for n, share in _inputs(model))
    seconds += tokens * squares * (bool(work.methods) * (1 if work.streams == 1 else 3) + work.observations) / walking.moment
    seconds += work.searches * sum(2 * rows * n * n for rows, n in _layer_shapes(model)) / walking.product
    seconds += (_rounding_seconds(model, work) if work.methods else 0.0) + work.guided * _guiding_seconds(model, work, walking)
    head = int(np.prod(model.shape(model.roles()["head", -1].name)))
    seconds += (8 * work.distill + 2 * bool(work.distill)) * tokens * (active + head) / walking.product
    peak = _peak_bytes(model, work) + bool(work.distill) * _distilled_bytes(model, tokens, body)
    peak = max(peak, work.guided * _guiding_bytes(model, work))
    writing = work.unwritten * paces.text_token(active, active + head, walking.product)
    return Forecast(work.size_bytes, seconds, writing, peak)


def _storing_seconds(model: LanguageModel, work: Work) -> float:
    shapes = {name: model.shape(name) for name in model.names()}
    nearest = paces.Rounding.of("nearest")
    plain = [nearest.seconds(*shape) for name, shape in shapes.items() if len(shape) == 2 and name not in work.methods]
    weights = sum(int(np.prod(shape)) for shape in shapes.values())
    return sum(plain) / paces.THREADS + weights / paces.reading(model) + work.size_bytes / paces.writing()


def _products(model: LanguageModel, tokens: int, walking: Walking) -> float:
    """Seconds of one stream."""
    return 2 * tokens * _active_weights(model) / walking.product


def _between(model: LanguageModel, tokens: int, walking: Walking) -> float:
    """Seconds of one stream."""
    inputs = _inputs(model)
    width = sum(n * share for n, share in inputs) / (4 * model.architecture.layers + 1)  # of the mean input
    return tokens * BETWEEN * width * model.architecture.layers / walking.between


def _rounding_seconds(model: LanguageModel, work: Work) -> float:
    costs = {method: paces.Rounding.of(method) for method in sorted(set(work.methods.values()))}
    factored = sum(n**3 for n, _ in _inputs(model)) * paces.factoring(work.streams > 1)
    shapes = {name: model.shape(name) for name in work.methods}
    return factored + sum(costs[method].seconds(*shapes[name][:2]) for name, method in work.methods.items())


def _guiding_seconds(model: LanguageModel, work: Work, walking: Walking) -> float:
    from bitwright.calibration.guidance import windows_at_once

    windows, tokens = work.shape[0], work.shape[0] * work.shape[1]
    parts = -(-windows // windows_at_once(model, work.shape[1]))
    read = 2 * parts * sum(rows * n for rows, n in _layer_shapes(model)) / paces.reading(model)
    blocks = GUIDING_PRODUCTS * _products(model, tokens, walking) + GUIDING_BETWEEN * _between(model, tokens, walking)
    return blocks + tokens * paces.guiding_head(model) + read


def _layer_shapes(model: LanguageModel) -> list[tuple[int, int]]:
    names = {place.name for (role, _), place in model.roles().items() if kind_of(role) in LAYER_MATRICES}
    return [(model.shape(name)[0], model.shape(name)[1]) for name in names]


def _active_weights(model: LanguageModel) -> int:
    """Of the blocks, those that multiply one token."""
    shares = {
        place.name: active_share(model.architecture, role)
        for (role, _), place in model.roles().items()
        if kind_of(role) in LAYER_MATRICES
    }
    return round(sum(share * int(np.prod(model.shape(name))) for name, share in shares.items()))


def _inputs(model: LanguageModel) -> list[tuple[int, float]]:
    """Columns of each input that is observed, for all layers, and the share of the tokens that come to it."""
    a = model.architecture
    mlp = [(width, active_share(a, role)) for role in _opening(a) for width in (a.hidden_size, a.intermediate_size)]
    return [(a.hidden_size, 1.0), (a.heads * a.head_dim, 1.0), *mlp] * a.layers + [(a.hidden_size, 1.0)]


def _opening(architecture: Architecture) -> list[str]:
    return [of_expert("gate", expert) for expert in experts_of(architecture)]


def _peak_bytes(model: LanguageModel, work: Work) -> int:
    architecture, tokens = model.architecture, work.shape[0] * work.shape[1]
    widest = max(architecture.intermediate_size, architecture.heads * architecture.head_dim)
    stream = tokens * (6 * architecture.hidden_size + 2 * widest)
    held = [HELD.get(method, 5) * 4 * int(np.prod(model.shape(name))) for name, method in work.methods.items()]
    weighed = _weights_bytes(model, tokens) * work.guided
    at_layer = max(3 * _largest_bytes(model), *held, 0) + 6 * 8 * widest**2
    return BASE_BYTES + _mapped_bytes(model) + work.streams * stream + weighed + at_layer


def _guiding_bytes(model: LanguageModel, work: Work) -> int:
    """The walk's streams, those before all blocks of one part of the windows, what a block keeps of a chunk, and the head."""
    from bitwright.calibration.cores import CHUNK_TOKENS
    from bitwright.calibration.guidance import windows_at_once

    architecture, tokens = model.architecture, work.shape[0] * work.shape[1]
    at_once = min(work.shape[0], windows_at_once(model, work.shape[1])) * work.shape[1]
    vocabulary, hidden = model.shape(model.roles()["head", -1].name)
    streams = 4 * hidden * (work.streams * tokens + at_once * (architecture.layers + 2)) + 2 * _weights_bytes(model, tokens)
    block = 4 * CHUNK_TOKENS * (12 * hidden + 8 * architecture.intermediate_size)
    head = 14 * vocabulary * hidden + 24 * HEAD_TOKENS * vocabulary  # in three types, with logits
    return BASE_BYTES + _mapped_bytes(model) + streams + block + head


def _weights_bytes(model: LanguageModel, tokens: int) -> int:
    """Of what guiding finds: a float32 for each token at each input of each layer."""
    return 4 * 4 * model.architecture.layers * tokens


def _distilled_bytes(model: LanguageModel, tokens: int, body: int) -> int:
    """Levels, the original's last activations, those between blocks of one step, two heads, and logits."""
    architecture = model.architecture
    vocabulary, hidden = model.shape(model.roles()["head", -1].name)
    between = STEP_TOKENS * 4 * hidden * architecture.layers
    return 2 * body + 2 * tokens * hidden + between + 4 * vocabulary * hidden + 24 * HEAD_TOKENS * vocabulary


def _mapped_bytes(model: LanguageModel) -> int:
    return sum(model.stored_bits(name) for name in model.names()) // 8


def _largest_bytes(model: LanguageModel) -> int:
    """Of one tensor as float32."""
    return max(4 * int(np.prod(model.shape(name))) for name in model.names())
