"""Settings of the engine that change while a text grows or memory gets short: a plan that a recipe may carry.

    [{"kv_cache": "fp16", "activations": "int16"},
     {"kv_cache": "int8", "activations": "int8", "from_context": 1024},
     {"kv_cache": "int4", "below_free_memory_mb": 500}]

A sequence begins with the first and only ever moves on. What a setting does not name stays as the one before has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bitwright.errors import RecipeError

ACTIVATIONS = ("int8", "int16", "fp32")
CACHES = ("fp16", "fp32", "int8", "int4")
NARROWER = ("fp32", "fp16", "int8", "int4")  # a cache never widens: what was rounded away does not come back
LARGEST = 2**40  # of a threshold


@dataclass(frozen=True)
class RuntimeSetting:
    """From the token number `from_context` on, or below so much free memory (10^6 bytes), whichever is first; 0 for never.

    Empty `kv_cache` or `activations`: as before. Raises `RecipeError`.
    """

    kv_cache: str = ""
    activations: str = ""
    from_context: int = 0
    below_free_memory_mb: int = 0

    def __post_init__(self) -> None:
        if self.kv_cache not in ("", *CACHES):
            raise RecipeError(f"unknown KV cache {self.kv_cache!r} in a runtime setting; choose from {', '.join(CACHES)}")
        if self.activations not in ("", *ACTIVATIONS):
            raise RecipeError(f"unknown activations {self.activations!r} in a runtime setting; use {', '.join(ACTIVATIONS)}")
        for name in ("from_context", "below_free_memory_mb"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= LARGEST:
                raise RecipeError(f"{name} of a runtime setting is a whole number from 0 to {LARGEST}, not {value!r}")

    @property
    def conditional(self) -> bool:
        return bool(self.from_context or self.below_free_memory_mb)

    def to_dict(self) -> dict[str, Any]:
        """Only what it says."""
        return {name: value for name, value in vars(self).items() if value}

    def due(self, position: int, free_bytes: int | None) -> str:
        """Why a sequence of `position` tokens should have it now, or nothing; None: nobody has looked at the memory."""
        if self.from_context and position >= self.from_context:
            return f"{self.from_context} tokens reached"
        if free_bytes is not None and free_bytes < 1e6 * self.below_free_memory_mb:
            return f"{free_bytes / 1e6:.0f} MB of memory free, below {self.below_free_memory_mb} MB"
        return ""


def read_settings(data: Any) -> tuple[RuntimeSetting, ...]:
    """What a list of `to_dict` stands for. Raises `RecipeError`."""
    if not isinstance(data, Sequence) or isinstance(data, str) or not all(isinstance(entry, Mapping) for entry in data):
        raise RecipeError('\'runtime\' is a list of settings such as {"kv_cache": "int8", "from_context": 1024}')
    known = set(RuntimeSetting.__dataclass_fields__)
    for entry in data:
        if not set(entry) <= known:
            raise RecipeError(f"a runtime setting takes {', '.join(sorted(known))}; got {sorted(map(str, entry))}")
        if not all(isinstance(entry.get(name, ""), str) for name in ("kv_cache", "activations")):
            raise RecipeError(f"kv_cache and activations of a runtime setting are strings; got {dict(entry)!r}")
    return complete([RuntimeSetting(**entry) for entry in data])


def complete(settings: Sequence[RuntimeSetting]) -> tuple[RuntimeSetting, ...]:
    """The same, once it is clear that they can be followed in this order. Raises `RecipeError`."""
    filled = resolved(settings)
    for number, (before, after) in enumerate(zip(filled, filled[1:], strict=False), 2):
        at = f"runtime setting {number}"
        if not after.conditional:
            raise RecipeError(f"{at} is never reached: give it from_context or below_free_memory_mb")
        if NARROWER.index(after.kv_cache) < NARROWER.index(before.kv_cache):
            raise RecipeError(f"{at} would widen the KV cache from {before.kv_cache} to {after.kv_cache}; put it first")
        if (after.kv_cache, after.activations) == (before.kv_cache, before.activations):
            raise RecipeError(f"{at} changes nothing; leave it out")
        _check_order(at, filled[: number - 1], after)
    if filled and filled[0].conditional:
        raise RecipeError("the first runtime setting holds from the start: it takes no from_context and no below_free_memory_mb")
    return tuple(settings)


def resolved(settings: Sequence[RuntimeSetting]) -> tuple[RuntimeSetting, ...]:
    """Each with the cache and the activations that it means; those of an engine, fp16 and int8, where none is named."""
    filled: list[RuntimeSetting] = []
    for setting in settings:
        before = filled[-1] if filled else RuntimeSetting("fp16", "int8")
        kv_cache, activations = setting.kv_cache or before.kv_cache, setting.activations or before.activations
        filled.append(replace(setting, kv_cache=kv_cache, activations=activations))
    return tuple(filled)


def setting_of(model: object) -> RuntimeSetting:
    """How a model or a recipe is run in the end where nobody says: the last of its runtime settings; int8, fp16 without any."""
    settings: Sequence[RuntimeSetting] = getattr(model, "runtime", ())
    return resolved(settings or (RuntimeSetting(),))[-1]


def activations_of(model: object) -> str:
    """How a model's activations are held where nobody says; see `setting_of`."""
    return setting_of(model).activations


def _check_order(at: str, before: Sequence[RuntimeSetting], setting: RuntimeSetting) -> None:
    """Thresholds come in the order in which they are crossed, or the settings before would never be seen."""
    contexts = [each.from_context for each in before if each.from_context]
    memories = [each.below_free_memory_mb for each in before if each.below_free_memory_mb]
    if setting.from_context and contexts and setting.from_context <= max(contexts):
        raise RecipeError(f"{at} begins at {setting.from_context} tokens, not after the one before; let from_context grow")
    if setting.below_free_memory_mb and memories and setting.below_free_memory_mb >= min(memories):
        raise RecipeError(f"{at} begins at {setting.below_free_memory_mb} MB, not below the one before; let the memory shrink")
