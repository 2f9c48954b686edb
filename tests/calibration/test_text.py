"""Calibration text: what the model writes is fixed by the seed, kept, resumed; texts are cut evenly; marks know a text again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tiny
from bitwright.calibration import self_written, text
from bitwright.calibration.marks import from_text, marks_of, seen_share, to_text
from bitwright.calibration.text import Source, cut, unwatched
from bitwright.errors import TextError
from bitwright.models import load
from bitwright.models.base import LanguageModel
from cli.helpers import tensors, write_model

SHAPE = (21, 24)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(write_model(tmp_path_factory.mktemp("written") / "model", tensors()))


def written(model: LanguageModel, shape: tuple[int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    return self_written.self_written(model, shape, seed, lambda: model, None)


def test_the_seed_fixes_the_text(model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = written(model)
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path / "other"))
    assert np.array_equal(written(model), first)
    assert first.shape == SHAPE and first.dtype == np.int32
    assert first.min() >= 0 and first.max() < tiny.VOCABULARY
    assert not np.array_equal(written(model, seed=1), first)
    assert len({window.tobytes() for window in first}) == len(first)


def test_a_window_is_what_it_would_be_alone(model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    together = written(model)
    monkeypatch.setattr(self_written, "AT_ONCE", 1)
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path / "other"))
    assert np.array_equal(written(model), together)


def test_progress_counts_every_token(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_written, "AT_ONCE", 8)
    told: list[tuple[int, int]] = []
    self_written.self_written(model, SHAPE, 0, lambda: model, lambda *step: told.append(step))
    total = SHAPE[0] * SHAPE[1]
    assert told == sorted(told) and len(told) > SHAPE[1] and told[-1] == (total, total)


def test_windows_begin_with_bos_or_go_on_from_it(model: LanguageModel) -> None:
    bos = model.tokenizer().bos_id
    own_words = [window for index, window in enumerate(written(model)) if index % 10 != 9]
    assert bos is not None and all(window[0] == bos for window in own_words)


def test_what_is_kept_is_not_written_again(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written(model, (8, 24))
    asked: list[int] = []
    real = self_written._write

    def spy(writer: object, indices: list[int], text: object, report: object) -> Iterator[tuple[int, np.ndarray]]:
        asked.extend(indices)
        return real(writer, indices, text, report)  # type: ignore[arg-type]

    monkeypatch.setattr(self_written, "_write", spy)
    second = written(model)
    assert asked == list(range(8, 21)) and np.array_equal(second[:8], first)
    asked.clear()
    assert np.array_equal(written(model), second) and not asked


def test_an_interrupted_run_goes_on(model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == SHAPE[0] * SHAPE[1]
        if done >= 12 * SHAPE[1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(self_written, "AT_ONCE", 8)
    with pytest.raises(KeyboardInterrupt):
        self_written.self_written(model, SHAPE, 0, lambda: model, stop)
    kept = list((tmp_path / "cache").rglob("*.npy"))
    assert 8 <= len(kept) <= 12
    kept[0].write_bytes(b"damaged")
    resumed = written(model)
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path / "other"))
    assert np.array_equal(resumed, written(model))


def test_windows_of_a_text_are_spread_evenly(model: LanguageModel) -> None:
    passage = " ".join(str(n) for n in range(3000))
    ids = model.tokenizer().encode(passage, add_special=False)
    windows = cut(model, passage, (5, 50), "it")
    bos = model.tokenizer().bos_id
    assert windows.shape == (5, 50) and (windows[:, 0] == bos).all()
    starts = [next(i for i in range(0, len(ids), 49) if ids[i : i + 49] == window[1:].tolist()) for window in windows]
    assert starts[0] == 0 and starts[-1] >= len(ids) - 98
    assert max(np.diff(starts)) - min(np.diff(starts)) <= 49
    assert len(cut(model, passage, (10**6, 50), "it")) == len(ids) // 49


def test_sources_are_refused_by_name(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short.txt").write_text("Too short.", "utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 1000)
    (tmp_path / "odd.jsonl").write_text('{"text": "good"}\n{"txt": "bad"}\n', "utf-8")

    def tokens(place: str) -> np.ndarray:
        source = Source(place, 2, 512)
        source.check()
        return source.tokens(model, lambda: model, unwatched)

    for place, message in (
        ("gone.txt", "no calibration text gone.txt"),
        ("no/such.txt", "no calibration text no/such.txt"),
        (str(tmp_path / "short.txt"), "give a longer text, or 'self'"),
        (str(tmp_path / "latin.txt"), "not UTF-8"),
        (str(tmp_path / "odd.jsonl"), "line 2 .* no JSON object with a string 'text'"),
    ):
        with pytest.raises(TextError, match=message):
            tokens(place)
    with pytest.raises(TextError, match="calibrate nothing"):
        Source("self", 0).check()

    def unreachable(*_: object, **__: object) -> list[str]:
        raise OSError("no route to host\nand a long story")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", unreachable)
    with pytest.raises(TextError, match=r"hub does not give such a data set \(no route to host\); give a text file"):
        tokens("some/dataset")


def test_a_data_set_on_the_hub_is_read(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(f'{{"text": "line {n} of a data set"}}\n' for n in range(500)), "utf-8")
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: ["README.md", "train.jsonl"])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(file))
    source = Source("some/dataset::train", 4, 64)
    source.check()
    windows = source.tokens(model, lambda: model, unwatched)
    assert windows.shape == (4, 64)
    assert np.array_equal(Source(str(file), 4, 64).tokens(model, lambda: model, unwatched), windows)


def test_marks_know_a_text_wherever_it_is_cut() -> None:
    random = np.random.default_rng(5)
    seen, other = (random.integers(0, 50000, 20000).astype(np.int32) for _ in range(2))
    marks = marks_of(seen.reshape(-1, 500))
    assert 400 < len(marks) < 900
    assert seen_share([seen[1234:9999]], marks) > 0.9
    assert seen_share([np.concatenate([other[:9000], seen[:1000]])], marks) > 0.03
    assert seen_share([other], marks) == 0
    assert seen_share([seen[:10]], marks) == 0
    assert from_text(to_text(marks)) == marks and from_text("no marks") == frozenset() == from_text("")


def test_there_is_one_place_for_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert text.Source() == Source("self", 128, 512, 0)
