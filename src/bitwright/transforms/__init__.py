"""The same function in easier numbers, one row a transform: `TRANSFORMS[name].find(model, setting)` gives the edits.

They are chained in the order that a recipe lists them, each looking at the model that those before it made.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.models.base import LanguageModel
from bitwright.transforms.awq import POWERS, awq
from bitwright.transforms.bias_correction import bias_correction, check_biases
from bitwright.transforms.clipping import RATIOS, awq_clip
from bitwright.transforms.edits import dense
from bitwright.transforms.equalization import equalize
from bitwright.transforms.fold import fold
from bitwright.transforms.head_rotation import rotate_heads
from bitwright.transforms.model import TransformedModel
from bitwright.transforms.rotation import check_residual, rotate_residual
from bitwright.transforms.setting import Setting, Transform
from bitwright.transforms.smoothquant import smoothquant

TRANSFORMS: dict[str, Transform] = {
    "fold": Transform(fold),
    "rotate-residual": Transform(rotate_residual, check_residual, unties=True),
    "rotate-heads": Transform(rotate_heads),
    "smoothquant": Transform(smoothquant, dense("smoothquant"), observes=True, scales=True),
    "awq": Transform(awq, dense("awq"), observes=True, scales=True, searches=len(POWERS)),
    "awq-clip": Transform(awq_clip, observes=True, scales=True, searches=len(RATIOS)),
    "equalize": Transform(equalize, scales=True),
    "bias-correction": Transform(bias_correction, check_biases, observes=True),
}


def transformed(model: LanguageModel, names: Sequence[str], setting: Setting, calibration: str = "") -> LanguageModel:
    """`model` after these transforms; nothing is computed before a tensor is asked for.

    `calibration` stands for all that edits depend on beside the model, in the fingerprint. Raises `RecipeError` for a model
    that one of them cannot take.
    """
    for name in names:
        model = _transformed(model, name, setting, calibration)
    return model


def _transformed(model: LanguageModel, name: str, setting: Setting, calibration: str) -> TransformedModel:
    row = TRANSFORMS[name]
    row.check(model)
    identity = f"{name} {setting.seed} {calibration if row.observes else ''}"
    return TransformedModel(model, identity, lambda: row.find(model, setting), row.unties)
