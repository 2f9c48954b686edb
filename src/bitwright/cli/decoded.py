"""That matrices are stored in few bits and run in 32 is told when a model is loaded, not found out by its speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.cli.console import note

if TYPE_CHECKING:
    from bitwright.models.base import LanguageModel


def note_decoded(model: LanguageModel) -> None:
    """One line on stderr for what the engine decodes to fp32; none where that is nothing."""
    from bitwright.engine.layout import decoded

    found = decoded(model)
    if found:
        schemes = ", ".join(dict.fromkeys(scheme for each in found.values() for scheme in each))
        matrices = "1 matrix" if len(found) == 1 else f"{len(found)} matrices"
        note(f"{matrices} of {schemes}: no integer kernel, so decoded to fp32, 4 bytes a weight; `bitwright inspect` lists them")
