"""What a user asks for, in the units of a file, a device and a text; and the limits on sums that follow from it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bitwright.errors import BudgetError

PROMPT = 512  # tokens of the prompt by whose reading `min_prefill` goes
OBJECTIVES = {  # what a plan makes least
    "loss": "divergence",
    "size": "bytes",
    "speed": "seconds",
    "prefill": "prefill",
    "ram": "ram",
    "energy": "joules",
}
ENDLESS = 100.0  # nats a token: beyond what a model can lose, and its exponential is still a number
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"


@dataclass(frozen=True)
class Budget:
    """Limits; None for none. Bytes of all files and of memory, nats a token, a share of perplexity, tokens a second, joules.

    `max_task_drop` is in the units of a task's score, which the plan is to be given.

    `objective` is what to make best within them, one of OBJECTIVES; by default size where a loss is limited, else loss. All but
    the loss need a limit on a loss: without one the coarsest candidates are best at everything. Raises `BudgetError`.
    """

    max_size: int | None = None
    max_ram: int | None = None
    max_kl: float | None = None
    max_drop: float | None = None
    min_speed: float | None = None
    min_prefill: float | None = None
    max_energy: float | None = None
    objective: str = ""
    max_task_drop: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if not (math.isfinite(value) and value > 0):
                raise BudgetError(f"--{name.replace('_', '-')} must be above zero, not {value:g}")
        if self.objective and self.objective not in OBJECTIVES:
            raise BudgetError(f"unknown objective {self.objective!r}; choose from {', '.join(OBJECTIVES)}")
        if not self.given() and not self.objective:
            raise BudgetError("a plan needs a budget, such as --max-size 80MB, --max-kl 0.02 or --min-speed 60")
        if self.wanted != "divergence" and not self.loss_limited:
            said = f"--objective {self.objective} needs a limit on the loss, or the coarsest schemes are best"
            raise BudgetError(f"{said}; add --max-kl 0.02 or --max-drop 1%")

    def given(self) -> dict[str, float]:
        names = ("max_size", "max_ram", "max_kl", "max_drop", "min_speed", "min_prefill", "max_energy", "max_task_drop")
        return {name: float(value) for name in names if (value := getattr(self, name)) is not None}

    @property
    def wanted(self) -> str:
        """The quantity to make least."""
        if self.objective:
            return OBJECTIVES[self.objective]
        return "bytes" if self.loss_limited else "divergence"

    @property
    def loss_limited(self) -> bool:
        return any(limit is not None for limit in (self.max_kl, self.max_drop, self.max_task_drop))

    def limits(self) -> dict[str, float]:
        """Quantity -> what its sum may be at most. Perplexity and tasks are no sums: see `asked`."""
        found = {"bytes": self.max_size, "ram": self.max_ram, "joules": self.max_energy, "divergence": self.max_kl}
        found["seconds"] = None if self.min_speed is None else 1 / self.min_speed
        found["prefill"] = None if self.min_prefill is None else PROMPT / self.min_prefill
        return {quantity: float(limit) for quantity, limit in found.items() if limit is not None}

    def asked(self) -> dict[str, float]:
        """`limits`, and that on what is added to the loss on a text: a share d of perplexity is log(1 + d) nats a token."""
        return self.limits() | ({} if self.max_drop is None else {"loss_added": math.log1p(self.max_drop)})


def in_users_units(quantities: Mapping[str, float], measured: bool = False) -> str:
    """Sums by quantity as a user would give them: --max-size 80.2MB, --min-speed 61. Energy is estimated unless `measured`."""
    said = {
        "bytes": lambda x: f"--max-size {math.ceil(x / 1e5) / 10}MB",
        "ram": lambda x: f"--max-ram {math.ceil(x / 1e5) / 10}MB",
        "divergence": lambda x: f"--max-kl {x * 1.005:.3g}",
        "seconds": lambda x: f"--min-speed {math.floor(10 / x) / 10}",
        "prefill": lambda x: f"--min-prefill {math.floor(10 * PROMPT / x) / 10}",
        "joules": lambda x: f"--max-energy {x * 1.005:.3g}{'' if measured else ' (an estimate)'}",
        "loss_added": lambda x: f"--max-drop {100 * math.expm1(min(x, ENDLESS)) * 1.005:.3g}%",
        "task": lambda x: f"--max-task-drop {x * 1.005:.3g}",
    }
    return " ".join(said[quantity](value) for quantity, value in quantities.items())


def parse_bytes(text: str) -> int:
    """80MB, 1.5GB, 300MiB. Raises `BudgetError`."""
    match = re.fullmatch(_NUMBER + r"\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _BYTES:
        raise BudgetError(f"cannot read the size {text!r}; write it like 80MB, 1.5GB or 300MiB")
    return int(float(match[1]) * _BYTES[match[2]])


def parse_share(text: str) -> float:
    """0.5% or .005. Raises `BudgetError`."""
    match = re.fullmatch(_NUMBER + r"\s*(%?)", text.strip())
    if match is None:
        raise BudgetError(f"cannot read the share {text!r}; write it like 0.5% or 0.005")
    return float(match[1]) / (100 if match[2] else 1)


def parse_number(text: str, option: str) -> float:
    """A plain number. Raises `BudgetError`."""
    match = re.fullmatch(_NUMBER + r"(e-?[0-9]+)?", text.strip().lower())
    if match is None:
        raise BudgetError(f"cannot read {option} {text!r}; write a plain number, as in --help")
    return float(text)
