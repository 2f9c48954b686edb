"""What tiny models answer to tasks of files: each figure is that of answers found in plain loops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import bitwright as bw
from bitwright import _native
from bitwright.analysis.tasks import Answering, auc, compare_task, file_task, read_task, top1_accuracy, word_error_rate
from bitwright.analysis.tasks.writing import NEW_TOKENS, answer_of
from bitwright.engine import Engine, Sampling
from bitwright.errors import TaskError
from bitwright.models.base import LanguageModel
from cli.helpers import tensors, write_model
from engine.measures import log_softmax

TEXTS = ["The quick brown", "A model reads", "jumps over", "Names,", "12", "lazy dog", "a", "the next one"]
LABELS = ["fox", "words and guesses", "dog"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine several threads wait for each other at every token."""
    monkeypatch.setattr(_native, "fastest_threads", lambda: 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bw.load(write_model(tmp_path_factory.mktemp("models") / "model", tensors()))


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The same weights to one digit: it answers otherwise."""
    weights = {name: np.round(values, 1) for name, values in tensors().items()}
    return bw.load(write_model(tmp_path_factory.mktemp("models") / "coarse", weights))


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def likelihood(engine: Engine, model: LanguageModel, text: str, answer: str) -> float:
    """Sum of log p of the answer's tokens after the text, read alone."""
    tokenizer = model.tokenizer()
    context, whole = tokenizer.encode(text), tokenizer.encode(f"{text} {answer}")
    logs = log_softmax(engine.logits(whole))
    return float(sum(logs[place - 1, whole[place]] for place in range(len(context), len(whole))))


def test_the_label_of_a_text_is_its_likeliest(model: LanguageModel, tmp_path: Path) -> None:
    lines = [{"text": text, "label": LABELS[number % 3]} for number, text in enumerate(TEXTS)]
    engine = Engine.load(model, activations="fp32", kv_cache="fp32")
    scores = np.array([[likelihood(engine, model, text, label) for label in LABELS] for text in TEXTS])
    expected = top1_accuracy(scores, np.arange(len(TEXTS)) % 3)
    found = read_task(write(tmp_path / "task.jsonl", lines)).answers(Answering(model, "fp32", "fp32"))
    assert found.key == "accuracy" and found.first.figure() == expected and 0 < expected.value < 1


def test_texts_are_ranked_by_how_much_likelier_the_positive_answer_is(model: LanguageModel, tmp_path: Path) -> None:
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    lines = [{"text": text, "label": int(labels[i]), "positive": "words", "negative": "fox"} for i, text in enumerate(TEXTS)]
    engine = Engine.load(model, activations="fp32", kv_cache="fp32")
    scores = [likelihood(engine, model, text, "words") - likelihood(engine, model, text, "fox") for text in TEXTS]
    expected = auc(np.array(scores), labels)
    found = read_task(write(tmp_path / "task.jsonl", lines)).answers(Answering(model, "fp32", "fp32"))
    assert found.key == "auc" and found.first.figure() == expected and 0 < expected.value < 1
    turned = [line | {"label": 1 - line["label"]} for line in lines]
    assert file_task(write(tmp_path / "turned.jsonl", turned), model)(model).value == pytest.approx(1 - expected.value)


def greedy(engine: Engine, model: LanguageModel, prompt: str) -> str:
    """Token after token, the whole text read anew for each."""
    tokenizer = model.tokenizer()
    prompt_tokens = tokenizer.encode(prompt)
    written: list[int] = []
    while len(written) < NEW_TOKENS:
        token = int(engine.prefill([*prompt_tokens, *written]).argmax())
        if token in tokenizer.eos_ids:
            break
        written.append(token)
    return tokenizer.decode(written).split("\n")[0]


def test_answers_are_greedy_and_judged_by_their_words(model: LanguageModel, coarse: LanguageModel, tmp_path: Path) -> None:
    prompts = TEXTS[:4]
    engine = Engine.load(model, activations="fp32", kv_cache="fp32")
    written = [greedy(engine, model, prompt) for prompt in prompts]
    references = ["words, one two", "a model", "fox are are", "12"]
    lines = [{"prompt": prompt, "reference": said} for prompt, said in zip(prompts, references, strict=True)]
    task = read_task(write(tmp_path / "task.jsonl", lines))
    found = task.answers(Answering(model, "fp32", "fp32"))
    assert found.key == "word_error_rate" and found.first.lower_is_better
    assert found.first.figure() == word_error_rate(references, written)
    told = json.loads(json.dumps(compare_task(task, coarse, model).to_dict(), allow_nan=False))
    assert told["task_kind"] == "writing" and told["task_drop_p"] is None
    assert told["task_word_error_rate_reference"] == found.first.value
    assert told["task_drop"] == told["task_word_error_rate"] - told["task_word_error_rate_reference"] != 0
    assert told["task_drop_interval"][0] <= told["task_drop"] <= told["task_drop_interval"][1]


def test_a_model_that_repeats_its_reference_has_no_error(model: LanguageModel, coarse: LanguageModel, tmp_path: Path) -> None:
    """What the reference itself writes, so that all error is the coarse model's; `file_task` runs each in its own way."""
    engine, tokenizer = Engine.load(model, activations="fp32", kv_cache="fp32"), model.tokenizer()
    lines = []
    for prompt in (f"{text} {number}" for number in range(8) for text in TEXTS):
        said = answer_of(engine, tokenizer, tokenizer.encode(prompt)).strip()
        if said and len(tokenizer.encode(f" {said}", add_special=False)) <= NEW_TOKENS:
            lines.append({"prompt": prompt, "reference": said})
        if len(lines) == 4:
            break
    evaluate = file_task(write(tmp_path / "task.jsonl", lines), model)
    found = bw.task_drop(coarse, model, evaluate)
    assert len(lines) == 4 and found.score_reference == 0 and found.drop == found.score > 0.5
    assert found.lower_is_better and found.interval is not None and found.interval[0] > 0


class Dictated:
    """An engine that writes what it was told to, and counts how many tokens were taken."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens, self.taken = tokens, 0

    def generate(self, prompt: list[int], sampling: Sampling) -> Iterator[int]:
        assert sampling == Sampling(max_tokens=NEW_TOKENS)
        for token in self.tokens:
            self.taken += 1
            yield token


def test_an_answer_ends_before_its_first_newline(model: LanguageModel) -> None:
    tokenizer = model.tokenizer()
    before, after = (tokenizer.encode(text, add_special=False) for text in (" a quick fox\n", "jumps over"))
    engine = Dictated(before + after)
    assert answer_of(cast(Engine, engine), tokenizer, [0]) == " a quick fox" and engine.taken == len(before)
    assert answer_of(cast(Engine, Dictated(after)), tokenizer, [0]) == "jumps over"


def test_lines_that_a_model_cannot_be_asked_are_refused_before_any_is(model: LanguageModel, tmp_path: Path) -> None:
    path, fits = tmp_path / "task.jsonl", {"prompt": "a", "reference": "b"}
    for line, fault in (
        ({"prompt": "12 " * 600, "reference": "b"}, "line 2: the prompt and 64 tokens .* 1024"),
        ({"prompt": "a", "reference": "z" * 65}, "line 2: the reference takes more than the 64 tokens"),
    ):
        with pytest.raises(TaskError, match=fault):
            file_task(write(path, [fits, line]), model)
    pair = {"text": "a", "label": 0, "positive": "yes", "negative": "no"}
    with pytest.raises(TaskError, match="line 2 takes more than the 1024 tokens"):
        compare_task(read_task(write(path, [pair, pair | {"text": "12 " * 600, "label": 1}])), model, None)
