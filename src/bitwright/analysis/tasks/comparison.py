"""A model's answers to a task of a file beside its reference's, for whoever reads JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.analysis.tasks.answers import Answering, Answers, Progress
from bitwright.analysis.tasks.figures import Statistic
from bitwright.analysis.tasks.files import FileTask
from bitwright.analysis.tasks.paired import loaded, mcnemar, paired
from bitwright.calibration.marks import remembered
from bitwright.models.base import LanguageModel


@dataclass(frozen=True)
class Comparison:
    """What a model answered to a task of a `kind`, and its reference where there is one."""

    kind: str
    model: Answers
    reference: Answers | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, by the public keys. Drops are by how much the model is worse; `_p` is McNemar's exact test, null for
        a figure that is no share of right answers.
        """
        result: dict[str, Any] = {"task_kind": self.kind, "task_items": self.model.first.items}
        for way, found in self.model.ways.items():
            name, drop = f"task_{self.model.key}{way}", f"task_drop{way}"
            figure = found.figure()
            result |= {name: figure.value, f"{name}_interval": list(figure.interval)}
            keys = f"{name}_reference", f"{name}_reference_interval", drop, f"{drop}_interval", f"{drop}_p"
            expected = (None,) * len(keys) if self.reference is None else _against(found, self.reference.ways[way])
            result |= dict(zip(keys, expected, strict=True))
        return result


def compare_task(  # noqa: PLR0913 - one argument an option of `bitwright eval`
    task: FileTask,
    model: LanguageModel | str | Path,
    reference: LanguageModel | str | Path | None,
    activations: str = "",
    kv_cache: str = "fp16",
    progress: Progress | None = None,
    allow_seen: bool = False,
) -> Comparison:
    """Both models on a task, one after the other; the reference with 32-bit activations and KV cache.

    Raises `TaskError` before either is asked, and `TextError` where `model` was calibrated on the task (unless `allow_seen`).
    """
    models = [loaded(each) for each in (model, reference) if each is not None]
    for each in models:
        task.check(each)
    if not allow_seen:
        task.require_unseen(models[0], remembered(models[0]))

    def told(before: int) -> Progress:
        return lambda done, total: progress(before * total + done, len(models) * total) if progress is not None else None

    found = task.answers(Answering(models[0], activations, kv_cache, told(0)))
    if len(models) == 1:
        return Comparison(task.kind, found, None)
    return Comparison(task.kind, found, task.answers(Answering(models[1], "fp32", "fp32", told(1))))


def _against(found: Statistic, expected: Statistic) -> tuple[Any, ...]:
    """The reference's figure and its interval, the drop and its, and p."""
    figure, drop = expected.figure(), paired(found, expected)
    interval = None if drop.interval is None else list(drop.interval)
    right = None if found.right is None or expected.right is None else mcnemar(found.right, expected.right)
    return figure.value, list(figure.interval), drop.drop, interval, right
