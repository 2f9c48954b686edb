"""A saved cache: what is loaded goes on as what was saved, and a file that lies is refused by name."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tiny
from bitwright.engine import CACHES, Engine
from bitwright.engine.state import CHECKSUM, PREFIX
from bitwright.errors import OutputError, StateError

TEXT = tiny.tokens(40)


@pytest.fixture(scope="module")
def model(tiny_directory: Callable[[str], Path]) -> Path:
    return tiny_directory("llama")


@pytest.mark.parametrize("cache", CACHES)
def test_a_loaded_state_goes_on_as_the_saved_one(cache: str, model: Path, tmp_path: Path) -> None:
    engine, other = Engine.load(model, kv_cache=cache), Engine.load(model, kv_cache=cache)
    engine.prefill(TEXT)
    engine.save_state(tmp_path / "state")
    other.load_state(tmp_path / "state")
    assert other.position == len(TEXT)
    assert np.array_equal(other.decode(3), engine.decode(3))
    assert np.array_equal(other.prefill([*TEXT, 3, 8], reuse=True), engine.decode(8))


def test_an_empty_state_is_one_too(model: Path, tmp_path: Path) -> None:
    engine = Engine.load(model)
    engine.save_state(tmp_path / "state")
    engine.prefill(TEXT)
    engine.load_state(tmp_path / "state")
    assert engine.position == 0


def test_a_state_tells_nothing_of_what_was_forgotten(model: Path, tmp_path: Path) -> None:
    engine = Engine.load(model)
    engine.prefill(TEXT)
    engine.save_state(tmp_path / "one")
    engine.decode(5)
    engine.sequence.rewind(len(TEXT))
    engine.save_state(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_state_belongs_to_its_model_cache_activations_and_context(
    model: Path, tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    engine, path = Engine.load(model), tmp_path / "state"
    engine.prefill(TEXT)
    engine.save_state(path)
    with pytest.raises(StateError, match="another model"):
        Engine.load(tiny_directory("mistral-full")).load_state(path)
    with pytest.raises(StateError, match="another model"):
        Engine.load(model, activations="fp32").load_state(path)
    with pytest.raises(StateError, match="type 'fp16', not 'int8'"):
        Engine.load(model, kv_cache="int8").load_state(path)
    Engine.load(model, context=40).load_state(path)
    with pytest.raises(StateError, match="40 tokens and the context 39"):
        Engine.load(model, context=39).load_state(path)


def signed(data: bytes) -> bytes:
    """The same with a checksum that holds: what an attacker would send."""
    return data[:-CHECKSUM] + hashlib.sha256(data[:-CHECKSUM]).digest()


def with_header(data: bytes, **changes: object) -> bytes:
    """The file with other facts in its header."""
    end = PREFIX.size + PREFIX.unpack_from(data)[2]
    header = json.dumps(json.loads(data[PREFIX.size : end]) | changes).encode()
    return signed(data[:12] + struct.pack("<I", len(header)) + header + data[end:])


def with_token(data: bytes, token: int) -> bytes:
    end = PREFIX.size + PREFIX.unpack_from(data)[2]
    return signed(data[:end] + struct.pack("<i", token) + data[end + 4 :])


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "not a saved state"),
    "magic": (lambda data: b"X" + data[1:], "not a saved state"),
    "version": (lambda data: signed(data[:8] + b"\x02" + data[9:]), "version 2"),
    "cut short": (lambda data: data[:-1], "length"),
    "cut in the header": (lambda data: data[:60], "header of"),
    "longer": (lambda data: data + b"0", "length"),
    "far longer": (lambda data: data + bytes(1 << 20), "larger than a state"),
    "a flipped bit": (lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:], "checksum"),
    "header length": (lambda data: data[:12] + b"\xff\xff\xff\xff" + data[16:], "header of"),
    "no JSON": (lambda data: data[:16] + b"[" * 50 + data[66:], "unreadable header"),
    "no object": (lambda data: signed(data[:12] + struct.pack("<I", 1) + b"7" + data[17:]), "without exactly"),
    "a fact too many": (lambda data: with_header(data, extra=1), "without exactly"),
    "a bool": (lambda data: with_header(data, tokens=True), "without exactly"),
    "a fraction": (lambda data: with_header(data, tokens=40.0), "without exactly"),
    "fewer tokens": (lambda data: with_header(data, tokens=39), "length"),
    "negative tokens": (lambda data: with_header(data, tokens=-1), "-1 tokens"),
    "many tokens": (lambda data: with_header(data, tokens=10**30), "tokens and the context"),
    "payload": (lambda data: with_header(data, payload_bytes=2**62), "length"),
    "token": (lambda data: with_token(data, tiny.VOCABULARY), "outside the model's vocabulary"),
    "negative token": (lambda data: with_token(data, -1), "outside the model's vocabulary"),
}


@pytest.mark.parametrize("lie", HOSTILE)
def test_a_file_that_lies_is_refused_and_nothing_changes(lie: str, model: Path, tmp_path: Path) -> None:
    engine, path = Engine.load(model), tmp_path / "state"
    engine.prefill(TEXT)
    engine.save_state(path)
    damage, fault = HOSTILE[lie]
    path.write_bytes(damage(path.read_bytes()))
    expected = engine.prefill([1, 2, 3])
    with pytest.raises(StateError, match=fault):
        engine.load_state(path)
    assert engine.sequence.tokens == [1, 2, 3]
    assert np.array_equal(engine.prefill([1, 2, 3], reuse=True), expected)


def test_no_file_is_left_behind_where_writing_fails(model: Path, tmp_path: Path) -> None:
    engine = Engine.load(model)
    with pytest.raises(StateError, match="cannot read"):
        engine.load_state(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        engine.save_state(tmp_path / "folder")
    with pytest.raises(OutputError):
        engine.save_state(tmp_path / "missing" / "state")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]
