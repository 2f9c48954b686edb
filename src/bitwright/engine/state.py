"""A sequence's KV cache in a file, to go on from later without reading its tokens again.

    bytes 0-7      magic "BWSTATE" and a zero byte
    bytes 8-11     version, 1 (all numbers little endian)
    bytes 12-15    length of the header
    header         JSON: identity of the model, cache type, tokens, payload bytes
    tokens         int32 each
    payload        the cache's spans as native/include/bitwright/kv_cache.h lays them out
    last 32 bytes  SHA-256 of all before

A file is believed only where every length agrees with every other and with the file's own, and the checksum holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.artifact.staging import explain
from bitwright.engine.sequence import Sequence
from bitwright.errors import OutputError, StateError

MAGIC = b"BWSTATE\0"
VERSION = 1
PREFIX = struct.Struct("<8sII")
LONGEST_HEADER = 4096
CHECKSUM = hashlib.sha256().digest_size
FIELDS = {"identity": str, "kv_cache": str, "tokens": int, "payload_bytes": int}


def save_state(sequence: Sequence, identity: str, kv_cache: str, path: Path) -> None:
    """Write beside `path`, then rename. Raises `OutputError` for whatever the file system refuses."""
    sequence.rewind(sequence.position)
    payload = sequence.native.state()
    facts = {"identity": identity, "kv_cache": kv_cache, "tokens": sequence.position, "payload_bytes": payload.nbytes}
    header = json.dumps(facts).encode()
    parts = (PREFIX.pack(MAGIC, VERSION, len(header)), header, np.array(sequence.tokens, "<i4").tobytes(), payload.data)
    checksum, beside = hashlib.sha256(), path.parent / f".{path.name}.partial-{secrets.token_hex(4)}"
    try:
        try:
            with beside.open("xb") as file:
                for part in parts:
                    checksum.update(part)
                    file.write(part)
                file.write(checksum.digest())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as fault:
        raise OutputError(explain(fault, path)) from fault


def load_state(sequence: Sequence, identity: str, kv_cache: str, vocabulary: int, path: Path) -> None:
    """Put the file's tokens and cache in place of the sequence's. Raises `StateError` and then leaves it as it was."""
    data = _checked_bytes(path, sequence)
    facts, at = _header(data, path)
    if facts["identity"] != identity:
        raise StateError(f"{path} was saved by another model, rope scaling or kind of activations; read the text again")
    if facts["kv_cache"] != kv_cache:
        raise StateError(
            f"{path} holds a cache of type {facts['kv_cache']}, not {kv_cache}; load with kv_cache={facts['kv_cache']!r}"
        )
    count, size = facts["tokens"], facts["payload_bytes"]
    if not 0 <= count <= sequence.context:
        raise StateError(f"{path} holds {count} tokens and the context {sequence.context}; ask for a larger --context")
    if size != sequence.native.cache_bytes(count) or len(data) != at + 4 * count + size + CHECKSUM:
        raise StateError(f"{path} does not have the length that its header says; save the state again")
    if hashlib.sha256(data[:-CHECKSUM]).digest() != bytes(data[-CHECKSUM:]):
        raise StateError(f"{path} is damaged: its checksum does not hold; save the state again")
    tokens = np.frombuffer(data, "<i4", count, at)
    if count and (tokens.min() < 0 or tokens.max() >= vocabulary):
        raise StateError(f"{path} holds tokens outside the model's vocabulary of {vocabulary}; save the state again")
    sequence.rewind(0)
    sequence.native.restore(count, np.frombuffer(data, np.uint8, size, at + 4 * count))
    sequence.tokens.extend(tokens.tolist())


def _checked_bytes(path: Path, sequence: Sequence) -> memoryview:
    """The file's bytes, unless it is larger than any state of this sequence could be."""
    most = PREFIX.size + LONGEST_HEADER + 4 * sequence.context + sequence.native.cache_bytes(sequence.context) + CHECKSUM
    try:
        with path.open("rb") as file:
            data = memoryview(file.read(most + 1))
    except OSError as fault:
        raise StateError(f"cannot read {path} ({fault.strerror}); check the path and the permissions") from fault
    if len(data) > most:
        raise StateError(f"{path} is larger than a state of {sequence.context} tokens can be; ask for a larger --context")
    if len(data) < PREFIX.size + CHECKSUM or bytes(data[: len(MAGIC)]) != MAGIC:
        raise StateError(f"{path} is not a saved state, or is cut short; save the state again")
    return data


def _header(data: memoryview, path: Path) -> tuple[Mapping[str, Any], int]:
    """What the header says, and where it ends."""
    _, version, length = PREFIX.unpack_from(data)
    if version != VERSION:
        raise StateError(f"{path} has version {version} of the format and this program reads {VERSION}; save the state again")
    end = PREFIX.size + length
    if length > LONGEST_HEADER or end > len(data) - CHECKSUM:
        raise StateError(f"{path} has a header of {length} bytes, which cannot be; save the state again")
    try:
        facts = json.loads(bytes(data[PREFIX.size : end]))
    except (ValueError, RecursionError) as fault:
        raise StateError(f"{path} has an unreadable header ({fault}); save the state again") from fault
    if not isinstance(facts, dict) or {name: type(value) for name, value in facts.items()} != FIELDS:
        raise StateError(f"{path} has a header without exactly {', '.join(FIELDS)}; save the state again")
    return facts, end
