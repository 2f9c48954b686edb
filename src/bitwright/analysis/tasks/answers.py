"""Who answers a task, and what the answers come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bitwright.analysis.tasks.figures import Statistic
from bitwright.engine import Engine
from bitwright.models.base import LanguageModel
from bitwright.runtime import activations_of

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Answering:
    """A model and how it is run: `activations` "" are those of its recipe. `progress` is told of items, done and all."""

    model: LanguageModel
    activations: str = ""
    kv_cache: str = "fp16"
    progress: Progress | None = None

    def engine(self, context: int) -> Engine:
        """For sequences of so many tokens at most."""
        activations = self.activations or activations_of(self.model)
        return Engine.load(self.model, context=context, activations=activations, kv_cache=self.kv_cache)

    def told(self, done: int, items: int) -> None:
        if self.progress is not None:
            self.progress(done, items)


@dataclass(frozen=True)
class Answers:
    """`key` is what JSON calls the figure: accuracy, word_error_rate or auc. `ways` to find it, by the ending of their keys;
    the way with no ending is the one that plans go by.
    """

    key: str
    ways: Mapping[str, Statistic]

    @property
    def first(self) -> Statistic:
        return self.ways[""]
