"""Follows a recipe's runtime settings: converts a sequence's cache, changes activations, and says so.

A threshold of context is met exactly: tokens before it are read with the setting before, whatever pieces a prompt comes in.
Free memory is looked at before every step. A sequence that is begun anew begins with the first setting again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright import _native
from bitwright.runtime import RuntimeSetting, resolved

if TYPE_CHECKING:
    from bitwright.engine.sequence import Sequence

MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Switch:
    """What happened to a sequence of `position` tokens. `before` and `after` name cache and activations."""

    position: int
    before: RuntimeSetting
    after: RuntimeSetting
    reason: str
    seconds: float
    freed_bytes: int

    def __str__(self) -> str:
        names = [
            f"{what} {old} to {new}"
            for what, old, new in (
                ("KV cache", self.before.kv_cache, self.after.kv_cache),
                ("activations", self.before.activations, self.after.activations),
            )
            if old != new
        ]
        cost = f"{1e3 * self.seconds:.1f} ms, {self.freed_bytes / 1e6:.1f} MB freed"
        return f"after {self.position} tokens: {', '.join(names)} ({self.reason}; {cost})"


class Follower:
    """The settings of one engine, which may be none, and the switches that its sequences made."""

    def __init__(self, settings: Items[RuntimeSetting], model: _native.Model, context: int) -> None:
        self.settings = resolved(settings)
        self.switches: list[Switch] = []
        self._model, self._context = model, context
        self._watches_memory = any(setting.below_free_memory_mb for setting in self.settings)

    def adapt(self, sequence: Sequence) -> None:
        """Bring a sequence to the setting that is due at its position."""
        if sequence.position == 0:
            self._begin(sequence)
        if sequence.setting + 1 >= len(self.settings):
            return
        free = free_memory() if self._watches_memory else None
        for index in range(len(self.settings) - 1, sequence.setting, -1):
            reason = self.settings[index].due(sequence.position, free)
            if reason:
                self._switch(sequence, index, reason)
                return

    def room(self, sequence: Sequence, ahead: int = 0) -> int:
        """Tokens from its position, or so many further, to the next threshold of context."""
        position, setting = sequence.position + ahead, sequence.setting if sequence.position else 0
        thresholds = (later.from_context for later in self.settings[setting + 1 :])
        return min((at - position for at in thresholds if at > position), default=self._context)

    def _begin(self, sequence: Sequence) -> None:
        if sequence.setting:
            sequence.native = _native.Sequence(self._model, self._context, self.settings[0].kv_cache)
            sequence.setting = sequence.kept_from = 0

    def _switch(self, sequence: Sequence, index: int, reason: str) -> None:
        before, after, begin, freed = self.settings[sequence.setting], self.settings[index], time.perf_counter(), 0
        if after.kv_cache != before.kv_cache:
            held = sequence.cache_bytes
            native = _native.Sequence(self._model, self._context, after.kv_cache)
            native.follow(sequence.native)
            sequence.native = native
            freed = held - sequence.cache_bytes
        sequence.setting = index
        sequence.kept_from = after.from_context if 0 < after.from_context <= sequence.position else sequence.kept_from
        switch = Switch(sequence.position, before, after, reason, time.perf_counter() - begin, freed)
        self.switches.append(switch)
        import logging  # here, because most runs switch nothing and start sooner without it

        logging.getLogger("bitwright.engine").info("%s", switch)


def free_memory(path: Path = MEMORY) -> int | None:
    """Bytes that the system could give without swapping; None where it does not say."""
    try:
        lines = path.read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None
