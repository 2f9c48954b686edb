"""Quality by tasks, beside the loss on text: each figure with its 95 % interval, each loss of a model with a paired one."""

from __future__ import annotations

from bitwright.analysis.tasks.answers import Answering, Answers
from bitwright.analysis.tasks.comparison import Comparison, compare_task
from bitwright.analysis.tasks.figures import Figure, Statistic, auc, top1_accuracy, word_error_rate
from bitwright.analysis.tasks.files import FileFigure, FileTask, file_task, read_task
from bitwright.analysis.tasks.multiple_choice import multiple_choice
from bitwright.analysis.tasks.paired import Drop, mcnemar, paired, paired_drop, task_drop
from bitwright.analysis.tasks.questions import Question

__all__ = [
    "Answering",
    "Answers",
    "Comparison",
    "Drop",
    "Figure",
    "FileFigure",
    "FileTask",
    "Question",
    "Statistic",
    "auc",
    "compare_task",
    "file_task",
    "mcnemar",
    "multiple_choice",
    "paired",
    "paired_drop",
    "read_task",
    "task_drop",
    "top1_accuracy",
    "word_error_rate",
]
