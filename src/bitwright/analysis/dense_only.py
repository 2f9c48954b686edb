"""What is not done for mixtures of experts yet: curvature and a device's times are of layers that every token goes through."""

from __future__ import annotations

from bitwright.errors import ModelConfigError
from bitwright.models.base import LanguageModel


def require_dense(model: LanguageModel, what: str) -> None:
    """Raises `ModelConfigError` for a mixture of experts; `what` begins the line, in the plural."""
    if model.architecture.experts:
        raise ModelConfigError(
            f"{what} are not made of mixtures of experts yet; choose a scheme with `bitwright quantize`, and measure it with "
            "`bitwright eval`"
        )
