"""Every transform leaves the float function as it was, on every family that it takes; the others it refuses by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import tiny
from bitwright.core import Choice, Scheme
from bitwright.engine.reference import forward
from bitwright.errors import RecipeError
from bitwright.models import load
from bitwright.models.architecture import experts_of, of_expert
from bitwright.models.base import LanguageModel
from bitwright.observers.inputs import Inputs
from bitwright.transforms import TRANSFORMS, transformed
from bitwright.transforms.setting import Setting

CASES = ["llama-bias", "smollm2", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "phi3-partial", "qwen3-moe"]
REFUSED = {("rotate-residual", "gemma2"), ("rotate-residual", "gemma3")}
REFUSED |= {(name, "qwen3-moe") for name in ("smoothquant", "awq")}
WITH_BIASES = ("llama-bias", "qwen2")
ALONE = [(name,) for name in TRANSFORMS]
CHAINS = [
    ("fold", "awq", "awq-clip"),
    ("smoothquant", "rotate-residual", "rotate-heads"),
    ("rotate-residual", "equalize", "fold", "awq"),
]
IDS = tiny.tokens(24)

Floats = npt.NDArray[np.float32]


def made_up(model: LanguageModel) -> Iterator[Inputs]:
    """Inputs of uneven sizes, so that no scale is 1."""
    random = np.random.default_rng(3)
    architecture = model.architecture
    widths = {
        ("q", "k", "v"): architecture.hidden_size,
        ("o",): architecture.heads * architecture.head_dim,
    }
    for expert in experts_of(architecture):
        widths[of_expert("gate", expert), of_expert("up", expert)] = architecture.hidden_size
        widths[(of_expert("down", expert),)] = architecture.intermediate_size
    for layer in range(architecture.layers):
        for roles, columns in widths.items():
            x = random.standard_normal((200, columns)) * np.exp(random.standard_normal(columns)) + 0.2
            yield Inputs(layer, roles, x.T @ x / 200, x.mean(axis=0), np.abs(x).mean(axis=0), np.abs(x).max(axis=0))


def setting_for(scheme: str | None) -> Setting:
    """Roundings of one int scheme for all matrices, in the simplest way; None for full precision."""
    choice = None if scheme is None else Choice("*", Scheme.parse(scheme))

    def rounded(role: str, layer: int, weights: Floats) -> Floats:
        groups = weights.reshape(-1, 32)
        scale = np.maximum(np.abs(groups).max(axis=1, keepdims=True), 1e-20) / 7
        return (np.rint(groups / scale) * scale).reshape(weights.shape).astype(np.float32)

    return Setting(made_up, lambda role, layer: choice, rounded, seed=5)


def scales_only(names: tuple[str, ...]) -> bool:
    """Whether what is left unchanged does not depend on nothing being rounded."""
    return not {"awq-clip", "bias-correction"} & set(names)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("names", [*ALONE, *CHAINS], ids="+".join)
def test_the_float_function_stays(names: tuple[str, ...], case: str, tiny_directory: Callable[[str], Path]) -> None:
    """In double precision, so that nothing small is lost among rounding errors; AWQ scales for an int4 rounding."""
    model, setting = load(tiny_directory(case)), setting_for("int4-g32" if scales_only(names) else None)
    refused = any((name, case) in REFUSED for name in names)
    refused |= "bias-correction" in names and case not in WITH_BIASES
    if refused:
        with pytest.raises(RecipeError, match=f"^({'|'.join(names)}): .*leave it out$"):
            transformed(model, names, setting)
        return
    changed = transformed(model, names, setting)
    before, after = forward(model, IDS, np.float64), forward(changed, IDS, np.float64)
    assert np.abs(after - before).max() < 2e-5 * np.abs(before).max()


@pytest.mark.parametrize("names", [names for names in ALONE if scales_only(names)], ids="+".join)
def test_something_changes(names: tuple[str, ...], tiny_directory: Callable[[str], Path]) -> None:
    model = load(tiny_directory("llama-bias"))
    changed = transformed(model, names, setting_for("int4-g32"))
    assert any(not np.array_equal(changed.read(name), model.read(name)) for name in model.names())
    assert changed.fingerprint() != model.fingerprint()


def test_what_a_scale_is_undone_by_matters(tiny_directory: Callable[[str], Path]) -> None:
    """Every edit of a transform is needed: leaving one kind of tensor out changes the function."""
    model = load(tiny_directory("llama-bias"))
    before = forward(model, IDS, np.float64)
    for name in ("fold", "rotate-residual", "rotate-heads", "smoothquant", "awq", "equalize"):
        setting = setting_for("int4-g32")
        row = TRANSFORMS[name]
        roles = {edit.role for edit in row.find(model, setting)}
        for left_out in roles:
            broken = replace(row, find=lambda m, s, row=row, left_out=left_out: [e for e in row.find(m, s) if e.role != left_out])
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(TRANSFORMS, name, broken)
                after = forward(transformed(model, [name], setting), IDS, np.float64)
            assert np.abs(after - before).max() > 1e-3 * np.abs(before).max(), (name, left_out)
