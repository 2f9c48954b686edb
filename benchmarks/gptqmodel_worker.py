"""GPTQModel behind the protocol of `worker.py`. Run by the interpreter that `gptqmodel_interpreter` makes.

    python benchmarks/gptqmodel_worker.py      answers requests from stdin

A kind is a method and a scheme, such as `gptq int4-g64` or `gptaq int3-g64-affine`; all else is at GPTQModel's defaults. The
weights are read back from the file that it writes, as its own layers dequantize them. The output head stays as it is.
"""

from __future__ import annotations

import tempfile
from typing import Any

from export import calibration, load_tensors, save_model
from worker import serve


def quantize(source: str, target: str, kind: str) -> None:
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.config import GPTAQConfig

    method, scheme = kind.split()
    bits, group, *rest = scheme.removeprefix("int").split("-")
    settings = QuantizeConfig(
        bits=int(bits),
        group_size=int(group[1:]),
        sym=rest != ["affine"],
        gptaq=GPTAQConfig() if method == "gptaq" else None,
        device="cpu",
        offload_to_disk=False,
    )
    rows = [{"input_ids": window, "attention_mask": [1] * len(window)} for window in calibration().tolist()]
    with tempfile.TemporaryDirectory() as directory:
        model = GPTQModel.load(source, settings)
        model.quantize(rows, batch_size=1)
        model.save(directory)
        layers = GPTQModel.load(directory, backend=BACKEND.GPTQ_TORCH, device="cpu").model.named_modules()
        found = {f"{name}.weight": layer.dequantize_weight().T for name, layer in layers if isinstance(layer, TorchLinear)}
        save_model(source, target, load_tensors(source) | {name: values.float().numpy() for name, values in found.items()})


def unsupported(*_: object) -> Any:
    raise NotImplementedError("this peer only quantizes here")


if __name__ == "__main__":
    serve(unsupported, quantize, "gptqmodel")
