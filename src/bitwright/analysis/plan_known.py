"""What a plan will find in the cache, and so need not do: known before it begins, so that the time left is told truly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from bitwright.allocation.budget import Budget
from bitwright.allocation.candidates import Unit, stored_as
from bitwright.allocation.device import DeviceCosts
from bitwright.allocation.sensitivity import known_sensitivities
from bitwright.allocation.undominated import undominated
from bitwright.analysis.evaluate import is_reference_kept
from bitwright.analysis.plan_devices import is_timed_here
from bitwright.analysis.plan_texts import known_calibration, known_held_out, part_for_running, unwritten_tokens
from bitwright.analysis.plan_types import Settings
from bitwright.core import Scheme
from bitwright.models.base import LanguageModel


@dataclass(frozen=True)
class Known:
    """`units` have their candidates with the losses; None where these are still to be found. `unmeasured` counts ways to store a
    matrix that are still to be timed, with each kind of activations; without `units`, of all that are offered. `unwritten` are
    tokens of text to verify on. `before` and `proof`: whether the reference was run on the text that is run before there is a
    plan, and on the text that it is proved on.
    """

    units: Sequence[Unit] | None
    unmeasured: int
    unwritten: int
    before: bool
    proof: bool

    @classmethod
    def of(cls, model: LanguageModel, settings: Settings, budget: Budget) -> Self:
        """Raises `TextError` for the user's text where it is too short."""
        offer, windows = settings.offer(model), known_calibration(model, settings)
        units = None if windows is None else known_sensitivities(model, windows, offer)
        if units is not None and settings.all_schemes:
            units = undominated([unit for unit in units if unit.candidates])
        stored: Mapping[bool, Sequence[Scheme]] = dict.fromkeys({way.rotate for way in offer.ways}, offer.all_schemes())
        unmeasured = 0
        if settings.device is None and is_timed_here(settings, budget):
            unmeasured = _unmeasured(model, settings, stored if units is None else stored_as(units))
        held = known_held_out(model, settings) if settings.verify else None
        before = settings.verify and windows is not None and is_reference_kept(model, part_for_running(windows))
        proof = held is not None and is_reference_kept(model, [*held.proof, *held.climbing])
        return cls(units, unmeasured, unwritten_tokens(model, settings), before, proof)


def _unmeasured(model: LanguageModel, settings: Settings, stored: Mapping[bool, Sequence[Scheme]]) -> int:
    """`stored`: turned or not -> schemes."""
    return sum(
        len(DeviceCosts.unmeasured(model.architecture, schemes, settings.threads, turned, kind))
        for kind in settings.activations
        for turned, schemes in stored.items()
    )
