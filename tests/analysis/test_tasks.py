"""Tasks against their definitions in plain loops; multiple choice on tiny models, each choice read alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.analysis.tasks import (
    Answering,
    Question,
    auc,
    compare_task,
    mcnemar,
    multiple_choice,
    paired,
    paired_drop,
    read_task,
    task_drop,
    top1_accuracy,
    word_error_rate,
)
from bitwright.analysis.tasks.figures import ranking, share_right, word_edits, word_errors
from bitwright.analysis.tasks.likelihoods import in_tokens, log_likelihoods
from bitwright.engine import Engine
from bitwright.errors import BitwrightError, TaskError
from cli.helpers import tensors, write_model
from engine.measures import log_softmax

QUESTIONS = [
    Question("The quick brown", ("fox", "lazy dog", "a"), 0, 1),
    Question("Question: what reads words?\nAnswer:", ("a model", "numbers such as 12", "6789"), 0, 2),
    Question("A model reads ", ("words and guesses", "nothing"), 1, 3),
    Question("Names,", (" places", "\nsigns"), 1, 4),
    Question("jumps", ("over", "over the lazy dog and the next one after that"), 0, 5),
] * 2


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "model", tensors())


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_likelihoods_are_those_of_reading_each_choice_alone(model_directory: Path) -> None:
    model = bw.load(model_directory)
    engine, tokenizer = Engine.load(model), model.tokenizer()
    asked = [in_tokens(question, tokenizer, 1024) for question in QUESTIONS]
    found = list(log_likelihoods(engine, asked, at_once=3))  # batches of 3, 3, 3 and 1
    assert found == list(log_likelihoods(engine, asked, at_once=1))
    for one, likelihoods in zip(asked, found, strict=True):
        assert len(one.choices) == len(likelihoods)
        for choice, likelihood in zip(one.choices, likelihoods, strict=True):
            whole = [*one.context, *choice]
            logs = log_softmax(engine.logits(whole))
            begin = len(one.context)
            alone = sum(logs[begin - 1 + i, token] for i, token in enumerate(choice))
            assert likelihood == pytest.approx(alone, rel=1e-5)


def test_context_and_choice_are_cut_between_tokens_of_the_whole(model_directory: Path) -> None:
    tokenizer = bw.load(model_directory).tokenizer()
    for question in QUESTIONS:
        asked = in_tokens(question, tokenizer, 1024)
        assert asked.context[0] == tokenizer.bos_id and asked.context.count(tokenizer.bos_id) == 1
        for tokens, choice in zip(asked.choices, question.choices, strict=True):
            text = tokenizer.decode([*asked.context, *tokens])
            joined = question.context + (choice if question.context[-1].isspace() or choice[0].isspace() else f" {choice}")
            assert text == joined
        assert asked.lengths == list(map(len, question.choices))
    trailing = in_tokens(QUESTIONS[2], tokenizer, 1024)  # "reads " gives its blank to the choice
    assert tokenizer.decode(trailing.choices[1]) == " nothing"


def test_accuracies_are_of_the_largest_likelihood_by_each_length(model_directory: Path) -> None:
    model = bw.load(model_directory)
    result = multiple_choice(Answering(model), QUESTIONS)
    asked = [in_tokens(question, model.tokenizer(), 1024) for question in QUESTIONS]
    expected: dict[str, list[bool]] = {"": [], "_normalized": [], "_per_token": []}
    for question, one, likelihoods in zip(QUESTIONS, asked, log_likelihoods(Engine.load(model), asked), strict=True):
        per_character = [value / len(choice) for value, choice in zip(likelihoods, question.choices, strict=True)]
        per_token = [value / len(tokens) for value, tokens in zip(likelihoods, one.choices, strict=True)]
        for name, values in zip(expected, (likelihoods, per_character, per_token), strict=True):
            expected[name].append(values.index(max(values)) == question.answer)
    for way, right in expected.items():
        found, figure = result.ways[way], result.ways[way].figure()
        assert found.right is not None and found.right.tolist() == right
        assert figure.items == 10 and figure.value == pytest.approx(np.mean(right))
        assert figure.interval[0] <= figure.value <= figure.interval[1]
    assert len({tuple(right) for right in expected.values()}) > 1, "these questions cannot tell the ways apart"


def test_a_comparison_has_the_public_keys_with_and_without_a_reference(model_directory: Path, tmp_path: Path) -> None:
    lines = [{"context": q.context, "choices": q.choices, "answer": q.answer} for q in QUESTIONS]
    task, seen = read_task(write(tmp_path / "task.jsonl", *lines)), []
    running = ("fp32", "fp32", lambda done, total: seen.append((done, total)))
    both = compare_task(task, model_directory, model_directory, *running)
    alone = compare_task(task, model_directory, None).to_dict()
    found = json.loads(json.dumps(both.to_dict(), allow_nan=False))
    assert set(found) == set(alone) and found["task_items"] == 10 and found["task_kind"] == "multiple choice"
    for way in ("", "_normalized", "_per_token"):
        assert found[f"task_drop{way}"] == 0 and found[f"task_drop{way}_interval"] == [0, 0] and found[f"task_drop{way}_p"] == 1
        assert found[f"task_accuracy{way}"] == found[f"task_accuracy{way}_reference"] == alone[f"task_accuracy{way}"]
    assert alone["task_drop"] is None and alone["task_accuracy_reference_interval"] is None
    assert seen == [(i, 20) for i in range(1, 21)]


def test_what_cannot_be_asked_is_refused(model_directory: Path) -> None:
    with pytest.raises(TaskError, match="line 9 takes more than the 1024 tokens"):
        multiple_choice(Answering(bw.load(model_directory)), [Question("12 " * 600, ("a", "b"), 0, 9)])
    with pytest.raises(TaskError, match="no questions"):
        multiple_choice(Answering(bw.load(model_directory)), [])


def edits_by_definition(a: Sequence[str], b: Sequence[str]) -> int:
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return edits_by_definition(a[1:], b[1:])
    return 1 + min(edits_by_definition(a[1:], b[1:]), edits_by_definition(a[1:], b), edits_by_definition(a, b[1:]))


def test_word_edits_are_the_fewest() -> None:
    random = np.random.default_rng(2)
    for _ in range(60):
        a, b = ("".join(random.choice(list("abc"), random.integers(0, 6))) for _ in range(2))
        assert word_edits(list(a), list(b)) == edits_by_definition(list(a), list(b))


def test_word_error_rate_is_of_all_words_together() -> None:
    found = word_error_rate(["the cat sat", "on  the mat today", "yes"], ["the bat sat", "on mat today too", ""])
    assert found.value == pytest.approx((1 + 2 + 1) / 8) and found.items == 3
    assert found.interval[0] < found.value < found.interval[1]
    assert word_error_rate(["a b", "c"], ["a b", "c"]).interval == (0, 0)
    for references, hypotheses in ((["a"], []), ([], []), (["", " "], ["a", "b"])):
        with pytest.raises(TaskError):
            word_error_rate(references, hypotheses)


def test_top1_accuracy() -> None:
    scores = np.array([[1, 2, 0], [3, 3, 0], [0, 1, 5], [9, 0, 0]])
    assert top1_accuracy(scores, np.array([1, 0, 2, 1])).value == 0.75  # of equal scores the first counts
    for bad, labels in (
        (scores, [1, 0, 2]),
        (scores, [1, 0, 2, 3]),
        (scores, [1, 0, 2, -1]),
        (scores, [0.5] * 4),
        (scores[0], [1, 2, 0]),
        (scores * np.nan, [0] * 4),
        (scores[:0], []),
    ):
        with pytest.raises(TaskError):
            top1_accuracy(bad, np.array(labels))


def test_auc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(4)
    labels = random.integers(0, 2, 80)
    scores = np.round(random.normal(size=80) + labels, 1)  # with ties
    pairs = [(p > n) + (p == n) / 2 for p in scores[labels == 1] for n in scores[labels == 0]]
    found = auc(scores, labels)
    assert found.value == pytest.approx(np.mean(pairs)) and found.interval[0] < found.value < found.interval[1]
    spread = math.sqrt(found.value * (1 - found.value) / 40)  # what 40 of each kind leave open, about
    assert 1 < (found.interval[1] - found.interval[0]) / spread < 4
    assert auc(np.array([1, 2, 3]), np.array([0, 1, 1])).value == 1 and auc(np.ones(4), np.array([0, 1, 1, 0])).value == 0.5
    for bad, wrong in (([1, 2], [0, 0]), ([1, 2], [0, 2]), ([1, np.inf], [0, 1]), ([1], [0, 1]), ([[1, 2]], [0, 1])):
        with pytest.raises(TaskError):
            auc(np.array(bad), np.array(wrong))


def test_a_drop_is_paired() -> None:
    random = np.random.default_rng(5)
    reference = random.integers(0, 2, 400).astype(float)
    model = reference.copy()
    model[np.flatnonzero(reference == 1)[:6]] = 0
    found = paired_drop(model, reference)
    assert found.drop == pytest.approx(6 / 400)
    assert found.interval is not None and 0 < found.interval[0] < found.drop < found.interval[1] < 0.03
    assert mcnemar(model, reference) == pytest.approx(2 / 64)


def test_an_error_rate_that_grows_is_a_drop_and_its_interval_draws_the_same_items() -> None:
    references = ["a b c d", "e f", "g h i", "k"] * 10
    heard = [text if number % 4 else text.replace("a", "x") for number, text in enumerate(references)]
    worse = [text if number % 8 else "x" for number, text in enumerate(heard)]
    model, reference = word_errors(references, worse), word_errors(references, heard)
    found = paired(model, reference)
    assert (found.score, found.score_reference) == (pytest.approx(25 / 100), pytest.approx(10 / 100))
    assert found.drop == pytest.approx(0.15) and found.lower_is_better and found.measure == "word error rate"
    assert found.interval is not None and 0 <= found.interval[0] < found.drop < found.interval[1]
    back = paired(reference, model)
    assert back.drop == -found.drop and back.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=1000)  # as analysis/significance.py draws
    edits = np.array(
        [[word_edits(a.split(), b.split()) for a, b in zip(references, said, strict=True)] for said in (heard, worse)]
    )
    words = np.array([len(text.split()) for text in references])
    by_hand = (counts @ (edits[1] - edits[0])) / (counts @ words)
    assert found.interval == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])))
    for other in (word_errors(references[:8], worse[:8]), share_right("accuracy", np.ones(40, np.bool_))):
        with pytest.raises(TaskError, match="do not compare"):
            paired(model, other)


def test_the_interval_of_a_paired_auc_is_narrower_than_that_of_either_model() -> None:
    random = np.random.default_rng(8)
    labels = np.arange(120) % 2
    scores = random.normal(size=120) + labels
    model, reference = ranking(scores + random.normal(size=120) / 10, labels), ranking(scores, labels)
    found, alone = paired(model, reference), reference.figure()
    assert (
        found.drop == pytest.approx(alone.value - model.figure().value) and found.measure == "AUC" and not found.lower_is_better
    )
    assert found.interval is not None
    assert found.interval[1] - found.interval[0] < (alone.interval[1] - alone.interval[0]) / 2


def test_mcnemar_by_counting_all_splits() -> None:
    for lost, gained in ((0, 0), (1, 0), (3, 1), (5, 5), (9, 2)):
        reference = np.array([1] * lost + [0] * gained + [1, 0])
        model = np.array([0] * lost + [1] * gained + [1, 0])
        trials = lost + gained
        splits = [bin(split).count("1") for split in range(1 << trials)]
        as_uneven = sum(abs(2 * ones - trials) >= abs(lost - gained) for ones in splits) / (1 << trials)
        assert mcnemar(model, reference) == pytest.approx(as_uneven)


def test_task_drop_takes_any_function(model_directory: Path) -> None:
    model = bw.load(model_directory)

    def bits(loaded: object) -> float:
        return float(loaded.stored_bits("model.norm.weight"))  # type: ignore[attr-defined]

    found = bw.task_drop(model_directory, model, bits)
    assert (found.score, found.drop, found.interval) == (64 * 32, 0, None)
    quality = {id(model): [0.0, 1.0, 1.0] * 20}
    several = bw.task_drop(model_directory, model, lambda loaded: quality.get(id(loaded), [0.0, 0.0, 1.0] * 20))
    assert several.drop == pytest.approx(1 / 3) and several.interval is not None
    assert several.interval[0] < several.drop < several.interval[1]
    right = share_right("accuracy", np.array([True, False]))
    shared = task_drop(model_directory, model, lambda _: right)
    assert (shared.score, shared.drop, shared.measure) == (0.5, 0, "accuracy")
    for bad in (
        lambda loaded: math.nan,
        lambda loaded: [1.0] * (1 + (loaded is model)),
        lambda loaded: [],
        lambda loaded: right if loaded is model else 0.5,
    ):
        with pytest.raises(BitwrightError):
            task_drop(model_directory, model, bad)
