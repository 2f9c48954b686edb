"""Quality by tasks, beside the loss on text: each figure with its 95 % interval, each loss of a model with a paired one."""

from __future__ import annotations

from bitwright.analysis.tasks.figures import Figure, auc, top1_accuracy, word_error_rate
from bitwright.analysis.tasks.multiple_choice import ChoiceComparison, TaskResult, choice_task, compare_choices, multiple_choice
from bitwright.analysis.tasks.paired import Drop, mcnemar, paired_drop, task_drop
from bitwright.analysis.tasks.questions import Question, read_questions

__all__ = [
    "ChoiceComparison",
    "Drop",
    "Figure",
    "Question",
    "TaskResult",
    "auc",
    "choice_task",
    "compare_choices",
    "mcnemar",
    "multiple_choice",
    "paired_drop",
    "read_questions",
    "task_drop",
    "top1_accuracy",
    "word_error_rate",
]
