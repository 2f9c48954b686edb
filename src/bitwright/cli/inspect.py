"""`bitwright inspect`: what a model is made of, in true bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import Json, megabytes, print_json, print_table

if TYPE_CHECKING:
    from bitwright.models.base import LanguageModel


def inspect(
    path: Annotated[str, Argument("PATH", help="Hugging Face directory or hub id, .gguf file or artifact.")],
    entropy: Annotated[bool, Option("--entropy", help="Also what an entropy coder would store; reads all weights.")] = False,
    as_json: Json = False,
) -> None:
    """List tensors, schemes, true bits per weight and bytes."""
    from bitwright.engine.layout import held
    from bitwright.inspection import summary
    from bitwright.models import load

    model = load(path)
    found = with_entropy(summary(model), model) if entropy else summary(model)
    for tensor in found["tensors"]:
        kinds = [kind for _, kind in held(model, tensor["name"])] if len(tensor["shape"]) == 2 else ["fp32"]
        tensor["engine"] = " + ".join(dict.fromkeys(kinds))
    if as_json:
        print_json(found)
        return
    title = f"{path}: {megabytes(found['size_bytes'])}, {found['bits_per_weight']:.3f} bits per weight"
    rows = tensor_rows(found["tensors"])
    columns = ["tensor", "shape", "scheme", "rotation", "bits per weight", "bytes", "in the engine"]
    if entropy:
        title += f"; {found['entropy_bits_per_weight']:.3f} by an entropy coder"
        columns += ["zeros", "by an entropy coder"]
        shown = [(f"{tensor['zeros']:.1%}", f"{tensor['entropy_bits_per_weight']:.3f}") for tensor in found["tensors"]]
        rows = [row + more for row, more in zip(rows, shown, strict=True)]
    print_table(title, columns, rows)


def with_entropy(found: dict[str, Any], model: LanguageModel) -> dict[str, Any]:
    """What `summary` found, with `entropy_bits_per_weight` for the model and each tensor, and each tensor's share of `zeros`."""
    from bitwright.sparsity.size import coded_size

    sizes = [coded_size(model.stored(name), model.stored_bits(name)) for name in model.names()]
    tensors = [
        tensor | {"zeros": size.zeros / size.weights, "entropy_bits_per_weight": size.entropy_bits / size.weights}
        for tensor, size in zip(found["tensors"], sizes, strict=True)
    ]
    total = sum(size.entropy_bits for size in sizes) / found["weights"]
    return found | {"entropy_bits_per_weight": total, "tensors": tensors}


def tensor_rows(tensors: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row a tensor, in the order of the layers."""
    return [
        (
            tensor["name"],
            " x ".join(map(str, tensor["shape"])),
            tensor["scheme"],
            f"{tensor['rotation']}" if tensor["rotation"] else "",
            f"{tensor['bits_per_weight']:.3f}",
            f"{tensor['bytes']}",
            tensor["engine"],
        )
        for tensor in tensors
    ]
