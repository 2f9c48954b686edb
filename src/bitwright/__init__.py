"""Bitwright turns a trained model into the smallest, fastest model that still answers the same, and proves it.

    import bitwright as bw
    model = bw.load(path)
    quant = bw.quantize(model, bw.Recipe.uniform("int4-g64"))
    result = bw.evaluate(quant, reference=model, text=text)
    quant.save(out)

The public names are loaded when they are first used, so importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitwright.analysis.evaluate import evaluate
    from bitwright.analysis.planning import plan
    from bitwright.analysis.tasks import task_drop
    from bitwright.core import Recipe, Scheme
    from bitwright.engine import Engine
    from bitwright.models import load
    from bitwright.quantization import quantize

__version__ = "0.1.0"
__all__ = ["Engine", "Recipe", "Scheme", "__version__", "evaluate", "load", "plan", "quantize", "task_drop"]

_HOME = {
    "Engine": "bitwright.engine",
    "Recipe": "bitwright.core",
    "Scheme": "bitwright.core",
    "evaluate": "bitwright.analysis.evaluate",
    "load": "bitwright.models",
    "plan": "bitwright.analysis.planning",
    "quantize": "bitwright.quantization",
    "task_drop": "bitwright.analysis.tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bitwright' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
