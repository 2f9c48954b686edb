"""GPTQModel behind the protocol of `worker.py`. Run by the interpreter that `gptqmodel_interpreter` makes.

    python benchmarks/gptqmodel_worker.py      answers requests from stdin

A kind is a method and a scheme, such as `gptq int4-g64` or `gptaq int3-g64-affine`; all else is at GPTQModel's defaults. The
weights are read back from the file that it writes, as its own layers dequantize them. The output head stays as it is.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from export import calibration, load_tensors, save_model
from worker import serve

# On two cores it would start one worker and then ask for two, which it refuses.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")


def quantize(source: str, target: str, kind: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # it keeps a log where it is started
        found = dequantized(source, kind, directory)
    save_model(source, target, load_tensors(source) | found)


def dequantized(source: str, kind: str, directory: str) -> dict[str, Any]:
    """The matrices of the blocks. GPTQModel's file is written to `directory`."""
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
    model = GPTQModel.load(source, settings)
    model.quantize(rows, batch_size=1)
    model.save(directory)
    layers = GPTQModel.load(directory, backend=BACKEND.GPTQ_TORCH, device="cpu").model.named_modules()
    return {
        f"{name}.weight": layer.dequantize_weight().T.float().numpy() for name, layer in layers if isinstance(layer, TorchLinear)
    }


def unsupported(*_: object) -> Any:
    raise NotImplementedError("this peer only quantizes here")


if __name__ == "__main__":
    serve(unsupported, quantize, "gptqmodel")
