"""`bitwright inspect`: what a model is made of, in true bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from bitwright.cli.command_line import Argument
from bitwright.cli.console import Json, megabytes, print_json, print_table


def inspect(
    path: Annotated[str, Argument("PATH", help="Hugging Face directory or hub id, .gguf file or artifact.")],
    as_json: Json = False,
) -> None:
    """List tensors, schemes, true bits per weight and bytes."""
    from bitwright.inspection import summary
    from bitwright.models import load

    found = summary(load(path))
    if as_json:
        print_json(found)
        return
    title = f"{path}: {megabytes(found['size_bytes'])}, {found['bits_per_weight']:.3f} bits per weight"
    print_table(title, ("tensor", "shape", "scheme", "bits per weight", "bytes"), tensor_rows(found["tensors"]))


def tensor_rows(tensors: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row a tensor, in the order of the layers."""
    return [
        (
            tensor["name"],
            " x ".join(map(str, tensor["shape"])),
            tensor["scheme"],
            f"{tensor['bits_per_weight']:.3f}",
            f"{tensor['bytes']}",
        )
        for tensor in tensors
    ]
