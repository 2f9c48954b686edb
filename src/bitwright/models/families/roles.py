"""Which tensor plays which role, and what shape that role gives it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from bitwright.errors import MissingTensorError, ModelConfigError, ShapeError
from bitwright.models.architecture import (
    LAYER_VECTORS,
    ROUTER,
    Architecture,
    TensorSlice,
    expert_of,
    kind_of,
    layer_matrices,
)
from bitwright.models.families.family import Family
from bitwright.models.families.table import FAMILIES

Roles = dict[tuple[str, int], TensorSlice]

_OPTIONAL = ("q_bias", "k_bias", "v_bias", "o_bias")
_BUFFERS = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached")  # recomputed, never read


def roles(architecture: Architecture, tensor_names: Collection[str]) -> Roles:
    """(role, layer) -> rows of a tensor, in the order of the layers; layer -1 for embedding, final_norm and head.

    Raises `MissingTensorError` for a tensor that is needed and absent, `ModelConfigError` for one in a layer that
    has no role, since to ignore it would compute another function.
    """
    family, names = FAMILIES[architecture.family], frozenset(tensor_names)
    found = {("embedding", -1): _needed(family.tensors["embedding"], names)}
    optional = [role for role in _OPTIONAL if role not in family.biases and _name(family, role, 0) in names]
    for layer in range(architecture.layers):
        found |= _layer_roles(architecture, layer, names, optional)
    found[("final_norm", -1)] = _needed(family.tensors["final_norm"], names)
    found[("head", -1)] = found[("embedding", -1)] if architecture.tied_head else _head(family, names)
    _refuse_unplayed(family, names, found)
    return found


def role_shape(architecture: Architecture, role: str) -> tuple[int, ...]:
    """(outputs, inputs) of a matrix's role, (length,) of a vector's."""
    hidden, inner = architecture.hidden_size, architecture.intermediate_size
    queries, keys = architecture.heads * architecture.head_dim, architecture.kv_heads * architecture.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (architecture.vocab_size, hidden),
        "head": (architecture.vocab_size, hidden),
        "q": (queries, hidden),
        "k": (keys, hidden),
        "v": (keys, hidden),
        "o": (hidden, queries),
        "gate": (inner, hidden),
        "up": (inner, hidden),
        "down": (hidden, inner),
        ROUTER: (architecture.experts, hidden),
        "q_bias": (queries,),
        "k_bias": (keys,),
        "v_bias": (keys,),
        "q_norm": (architecture.head_dim,),
        "k_norm": (architecture.head_dim,),
    }
    return shapes.get(kind_of(role), (hidden,))


def tensor_shapes(architecture: Architecture, played: Mapping[tuple[str, int], TensorSlice]) -> dict[str, tuple[int, ...]]:
    """Tensor name -> the shape that its roles give it, in the order of the layers. Fused roles add their rows."""
    rows: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for (role, _), place in played.items():
        shape = role_shape(architecture, role)
        rows[place.name] = max(rows.get(place.name, 0), shape[0] if place.end < 0 else place.end)
        shapes[place.name] = (rows[place.name], *shape[1:])
    return shapes


def check_shapes(shapes: Mapping[str, tuple[int, ...]], shape_of: Callable[[str], tuple[int, ...]]) -> None:
    """Raises `ShapeError` where `shape_of` a name is not what `tensor_shapes` says."""
    for name, expected in shapes.items():
        actual = tuple(shape_of(name))
        if actual != expected:
            raise ShapeError(
                f"{name} has shape {list(actual)}, the config asks for {list(expected)}; they do not belong together"
            )


def _layer_roles(architecture: Architecture, layer: int, names: frozenset[str], optional: list[str]) -> Roles:
    """The roles of one layer, matrices first."""
    family = FAMILIES[architecture.family]
    fused = _fused_roles(architecture, layer, names)
    found: Roles = {}
    for role in (*layer_matrices(architecture), ROUTER, *LAYER_VECTORS):
        if role in fused:
            found[(role, layer)] = fused[role]
        elif kind_of(role) in family.tensors and (role not in _OPTIONAL or role in family.biases or role in optional):
            found[(role, layer)] = _needed(_name(family, role, layer), names)
    return found


def _fused_roles(architecture: Architecture, layer: int, names: frozenset[str]) -> dict[str, TensorSlice]:
    """Role -> its rows, for tensors that hold several roles one below the other."""
    found: dict[str, TensorSlice] = {}
    for template, members in FAMILIES[architecture.family].fused.items():
        name, begin = _needed(template.format(layer=layer), names).name, 0
        for role in members:
            end = begin + role_shape(architecture, role)[0]
            found[role] = TensorSlice(name, begin, end)
            begin = end
    return found


def _head(family: Family, names: frozenset[str]) -> TensorSlice:
    name = family.tensors["head"]
    if name not in names:
        raise MissingTensorError(
            f"tensor {name} is missing; if the head is the embedding, set tie_word_embeddings to true in config.json"
        )
    return TensorSlice(name)


def _needed(name: str, names: frozenset[str]) -> TensorSlice:
    if name not in names:
        raise MissingTensorError(
            f"tensor {name} is missing; the model is incomplete or its config.json is another's: fetch it again"
        )
    return TensorSlice(name)


def _name(family: Family, role: str, layer: int) -> str:
    return family.tensors.get(kind_of(role), "").format(layer=layer, expert=expert_of(role))


def _refuse_unplayed(family: Family, names: frozenset[str], found: Roles) -> None:
    """A tensor inside the layers that no role names: a bias, an adapter, a layer beyond the last."""
    played = {place.name for place in found.values()}
    for name in sorted(names - played):
        if name.startswith("model.layers.") and not name.endswith(_BUFFERS):
            raise ModelConfigError(
                f"tensor {name} has no role in the {family.name} family; the model is of another kind than its config.json says"
            )
