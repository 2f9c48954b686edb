"""The cache gives back what was computed, stays within its bound, and never breaks an evaluation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bitwright.analysis.reference_cache import HiddenCache, cache_key, hidden_states
from bitwright.errors import OutputError

WIDTH = 4
WINDOWS = [np.arange(5, dtype=np.int32), np.arange(3, 9, dtype=np.int32)]


class Reference:
    """Computes rows that depend on the tokens, and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        self.calls += 1
        return np.sin(np.outer(tokens + 1, np.arange(1, WIDTH + 1))).astype(np.float32)


def run(cache: HiddenCache, identity: str = "model", windows: list[np.ndarray] = WINDOWS) -> tuple[list[np.ndarray], int]:
    reference = Reference()
    rows = [np.array(part) for part in hidden_states(windows, reference, WIDTH, [identity], cache)]
    return rows, reference.calls


def entries(cache: HiddenCache) -> list[Path]:
    return sorted(cache.directory.iterdir()) if cache.directory.exists() else []


@pytest.fixture
def cache(tmp_path: Path) -> HiddenCache:
    return HiddenCache(tmp_path / "cache")


def test_the_second_run_computes_nothing_and_is_equal(cache: HiddenCache) -> None:
    first, calls = run(cache)
    second, calls_again = run(cache)
    assert (calls, calls_again) == (2, 0)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.suffix for path in entries(cache)] == [".npy"]


def test_entry_is_a_plain_npy_of_float32(cache: HiddenCache) -> None:
    rows, _ = run(cache)
    np.testing.assert_array_equal(np.load(entries(cache)[0], allow_pickle=False), np.concatenate(rows))


def test_whatever_the_rows_depend_on_makes_another_key() -> None:
    keys = {
        cache_key(["a"], WINDOWS),
        cache_key(["b"], WINDOWS),
        cache_key(["a", ""], WINDOWS),
        cache_key(["a"], WINDOWS[:1]),
        cache_key(["a"], [np.concatenate(WINDOWS)]),
        cache_key(["a"], [WINDOWS[0] + 1, WINDOWS[1]]),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("damage", ["truncate", "flip", "header", "empty", "pickle"])
def test_a_damaged_entry_is_computed_again(cache: HiddenCache, damage: str) -> None:
    sound, _ = run(cache)
    path = entries(cache)[0]
    data = bytearray(path.read_bytes())
    if damage == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        data[-3] ^= 0x10 if damage == "flip" else 0
        data[10:14] = b"\xff\xff\xff\xff" if damage == "header" else data[10:14]
        path.write_bytes(bytes({"truncate": data[:-7], "empty": b""}.get(damage, data)))
    again, calls = run(cache)
    assert calls == 2
    np.testing.assert_array_equal(np.concatenate(again), np.concatenate(sound))
    assert run(cache)[1] == 0


def test_space_is_bounded_and_the_oldest_use_goes_first(tmp_path: Path) -> None:
    run(HiddenCache(tmp_path), "a")
    size = entries(HiddenCache(tmp_path))[0].stat().st_size
    cache = HiddenCache(tmp_path, 3 * size)
    for name in "bc":
        run(cache, name)
    for position, path in enumerate(sorted(entries(cache), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (1000 + position, 1000 + position))
    assert run(cache, "a")[1] == 0  # used just now: b is the oldest
    run(cache, "d")
    assert sum(path.stat().st_size for path in entries(cache)) <= cache.limit
    assert run(cache, "a")[1] == 0
    assert run(cache, "b")[1] == 2


def test_an_entry_beyond_the_bound_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = HiddenCache(tmp_path / "cache", 100)
    assert run(cache)[1] == 2
    assert entries(cache) == []
    assert len(caplog.messages) == 1 and "BITWRIGHT_CACHE_BYTES" in caplog.messages[0]


def test_a_cache_turned_off_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(HiddenCache(tmp_path / "cache", 0))[1] == 2
    assert caplog.messages == []


def test_an_unwritable_cache_costs_one_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    rows, calls = run(HiddenCache(tmp_path / "file" / "cache"))
    assert calls == 2 and len(rows) == 2
    assert len(caplog.messages) == 1 and "not caching" in caplog.messages[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_one_note(
    cache: HiddenCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitwright.analysis.reference_cache.ABANDONED_AFTER_SECONDS", float("inf"))
    cache.directory.mkdir()
    key = cache_key(["model"], WINDOWS)
    (cache.directory / f"{key}.{os.getpid()}.part").symlink_to("/dev/full")
    rows, calls = run(cache)
    assert calls == 2 and len(rows) == 2
    assert len(caplog.messages) == 1 and "No space left" in caplog.messages[0]
    assert entries(cache) == []


def test_an_abandoned_run_leaves_nothing(cache: HiddenCache) -> None:
    rows = hidden_states(WINDOWS, Reference(), WIDTH, ["model"], cache)
    next(rows)
    assert [path.suffix for path in entries(cache)] == [".part"]
    rows.close()
    assert entries(cache) == []


def test_what_a_killed_run_left_is_swept(cache: HiddenCache) -> None:
    cache.directory.mkdir()
    stale = cache.directory / "0123.99999.part"
    stale.write_bytes(b"half")
    os.utime(stale, (1000, 1000))
    run(cache)
    assert not stale.exists()


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setenv("BITWRIGHT_CACHE_BYTES", "12345")
    assert HiddenCache.from_environment() == HiddenCache(tmp_path, 12345)
    monkeypatch.delenv("BITWRIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert HiddenCache.from_environment().directory == Path("/somewhere/bitwright")
    monkeypatch.setenv("BITWRIGHT_CACHE_BYTES", "2GB")
    with pytest.raises(OutputError, match="whole number of bytes, not '2GB'"):
        HiddenCache.from_environment()
