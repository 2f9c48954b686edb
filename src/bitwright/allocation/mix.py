"""A plan's mix of schemes, timed before any of it is rounded: what its token and a prompt take, and how slow the machine is at a
moment.

A stand-in of the mix takes turns with stand-ins of the single schemes that most of its time goes to. These were timed when the
machine's costs were measured (device.py), and so tell its pace now against its pace then. The least that the stand-in took is
what the plan is promised to take; timed again beside the plan that was made, the stand-in tells pace and error apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bitwright.allocation.budget import PROMPT
from bitwright.allocation.device import DeviceCosts, prompt_time, rows_stored_as, stand_in_engine, token_seconds, token_time
from bitwright.allocation.stand_in import MixedStandIn, StandIn, role_shapes
from bitwright.core import Scheme
from bitwright.engine import Engine
from bitwright.models.base import LanguageModel

STAND_INS = 3  # by which the machine's pace is told
ROUNDS = 10  # in which the mix and these have their turns
PROMPTS = 2  # rounds of prompts


@dataclass(frozen=True)
class Mix:
    """A plan's mix of schemes as a stand-in: `seconds` of a token with `depth` tokens seen, at the pace of the machine at which
    its costs were measured; `now` and `prompt`, the least that a token and a prompt took when it was timed.
    """

    seconds: float
    now: float
    prompt: float
    engine: Engine = field(repr=False)
    depth: int

    @classmethod
    def timed(cls, costs: DeviceCosts, mixed: MixedStandIn, activations: str, depth: int) -> Mix | None:
        """In turn with stand-ins of single schemes, which tell the pace; None where `costs` knows none of the plan's schemes."""
        now = slowness(costs, mixed, activations, depth)  # type: ignore[arg-type]
        if now is None:
            return None
        engine = stand_in_engine(mixed, costs.threads, activations)
        taken = [(token_time(engine, depth), now()) for _ in range(ROUNDS)]
        seconds = float(np.median([token / slow for token, slow in taken]))
        prompt = min(_prompt_time(engine) for _ in range(PROMPTS))
        return cls(seconds, min(token for token, _ in taken), prompt, engine, depth)

    def slowness(self) -> float:
        """Of this machine now, against when it measured its costs: how many times longer a token takes."""
        return token_time(self.engine, self.depth) / self.seconds

    def prompt_slowness(self) -> float:
        """Of this machine now, against when the mix was timed: how many times longer a prompt takes."""
        return _prompt_time(self.engine) / self.prompt


def _prompt_time(engine: Engine) -> float:
    return prompt_time(engine, min(PROMPT, engine.context))


def slowness(costs: DeviceCosts, model: LanguageModel, activations: str, depth: int) -> Callable[[], float] | None:
    """Of this machine now, against when it measured `costs`: how many times longer stand-ins of the schemes that most of
    the model's time goes to take for a token, each counted by its share of that time. Other programs make a machine slower for
    minutes, and not all schemes alike: those of many bits wait for memory. None where `costs` knows no scheme of the model.
    """
    shapes = role_shapes(model.architecture)
    spent: dict[tuple[Scheme, bool], float] = {}
    for (role, _), part in model.roles().items():
        if role in shapes:
            for scheme, rotated, share in rows_stored_as(model, part.name):
                if costs.knows(scheme, rotated):  # what no candidate fitted stays as it was
                    seconds = share * costs.decode_seconds(scheme, shapes[role], rotated)
                    spent[scheme, rotated] = spent.get((scheme, rotated), 0.0) + seconds
    if not spent:
        return None
    leading = sorted(spent, key=lambda stored: spent[stored])[-STAND_INS:]
    total, timed = sum(spent[stored] for stored in leading), list[tuple[float, Engine]]()
    for stored in leading:
        stand_in = StandIn(model.architecture, *stored)
        foretold = token_seconds(costs, stand_in, depth)  # type: ignore[arg-type]
        timed.append((spent[stored] / total / foretold, stand_in_engine(stand_in, costs.threads, activations)))
    return lambda: sum(share * token_time(engine, depth) for share, engine in timed)
