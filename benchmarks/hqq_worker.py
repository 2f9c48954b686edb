"""HQQ behind the protocol of `worker.py`. Run by the interpreter that `hqq_interpreter` makes.

    python benchmarks/hqq_worker.py      answers requests from stdin

A kind is a scheme such as `int4-g64-affine`: HQQ always has a zero point, in half precision.
"""

from __future__ import annotations

from typing import Any

from export import body, load_tensors, save_model
from worker import serve


def quantize(source: str, target: str, kind: str) -> None:
    import numpy as np
    import torch
    from hqq.core.quantize import Quantizer

    bits, group = kind.removeprefix("int").split("-")[:2]
    tensors = load_tensors(source)
    for name in body(tensors):
        settings = {"nbits": int(bits), "group_size": int(group[1:]), "axis": 1, "compute_dtype": torch.float32, "device": "cpu"}
        codes, meta = Quantizer.quantize(torch.from_numpy(tensors[name].astype(np.float32)), **settings)
        half = {key: meta[key].half().float() for key in ("scale", "zero")}  # as they are stored
        tensors[name] = Quantizer.dequantize(codes, meta | half).float().numpy()
    save_model(source, target, tensors)


def unsupported(*_: object) -> Any:
    raise NotImplementedError("this peer only quantizes here")


if __name__ == "__main__":
    serve(unsupported, quantize, "hqq")
