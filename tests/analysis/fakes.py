"""A bigram model and an engine for it in plain numpy, so that every figure can be computed by hand.

The hidden state after a token is that token's row of an embedding; logits are hidden @ head^T.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

VOCABULARY, HIDDEN = 128, 16


class Letters:
    """One token a character, the character's code."""

    bos_id = None

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        return [ord(letter) % VOCABULARY for letter in text]

    def decode(self, ids: list[int], skip_special: bool = True) -> str:
        return "".join(map(chr, ids))


@dataclass
class BigramModel:
    """`noise` of 0 is the reference; `seed` tells the noises apart."""

    noise: float = 0.0
    seed: int = 1
    vocabulary: int = VOCABULARY
    encoder: Any = field(default_factory=Letters)
    path: Path = Path("bigram")

    def __post_init__(self) -> None:
        random = np.random.default_rng(0)
        self.embedding = random.normal(size=(self.vocabulary, HIDDEN)).astype(np.float32)
        head = random.normal(size=(self.vocabulary, HIDDEN))
        noise = np.random.default_rng(self.seed).normal(size=head.shape)
        self.head = (head + self.noise * noise).astype(np.float32)
        mixture = {"experts": 0, "experts_per_token": 0}
        matrices = {"intermediate_size": 24, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 4, "window_of_layer": (0, 8)}
        shape = {"vocab_size": self.vocabulary, "hidden_size": HIDDEN, "context_length": 4096}
        self.architecture = SimpleNamespace(**shape, **matrices, **mixture)

    def tokenizer(self) -> Any:
        return self.encoder

    def fingerprint(self) -> str:
        return f"bigram-{self.noise}-{self.seed}"

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        return self.embedding[tokens] @ self.head.T


class FakeEngine:
    """Counts how often hidden states are computed; records how it was loaded."""

    isa = "numpy"
    weight_bytes = 1_000_000
    vocab_size = VOCABULARY
    context, cache_bytes = 100, 6400

    loaded: list[dict[str, Any]] = []
    hidden_calls: list[BigramModel] = []

    def __init__(self, model: BigramModel) -> None:
        self.model = model

    @classmethod
    def load(cls, model: BigramModel, **options: Any) -> FakeEngine:
        cls.loaded.append({"model": model} | options)
        return cls(model)

    def hidden(self, tokens: np.ndarray) -> np.ndarray:
        self.hidden_calls.append(self.model)
        return self.model.embedding[tokens]

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        return self.model.logits(tokens)[-1]

    def decode(self, token: int) -> np.ndarray:
        return self.model.logits(np.array([token]))[0]

    def compare(self, reference_hidden: np.ndarray, reference: FakeEngine, hidden: np.ndarray, targets: np.ndarray) -> Any:
        p, q = log_softmax(reference_hidden @ reference.model.head.T), log_softmax(hidden @ self.model.head.T)
        row = np.arange(len(targets))
        return SimpleNamespace(
            kl=(np.exp(p) * (p - q)).sum(axis=1).astype(np.float32),
            nll=-q[row, targets].astype(np.float32),
            nll_reference=-p[row, targets].astype(np.float32),
            confidence_reference=np.exp(p.max(axis=1)).astype(np.float32),
            agree=p.argmax(axis=1) == q.argmax(axis=1),
            right=q.argmax(axis=1) == targets,
            right_reference=p.argmax(axis=1) == targets,
        )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
