"""auto-round (SignRound) behind the protocol of `worker.py`. Run by the interpreter that `auto_round_interpreter` makes.

    python benchmarks/auto_round_worker.py      answers requests from stdin

A kind is a scheme and a number of steps a block, such as `int3-g64-affine 50 steps`: its own default is 200, its
`light` recipe 50. The output head stays as it is.
"""

from __future__ import annotations

from typing import Any

from export import calibration, save_model
from worker import serve

BATCH = 8  # windows, auto-round's default


def quantize(source: str, target: str, kind: str) -> None:
    import torch
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scheme, steps, _ = kind.split()
    bits, group, *rest = scheme.removeprefix("int").split("-")
    windows: Any = torch.from_numpy(calibration())
    rounder = AutoRound(
        AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
        AutoTokenizer.from_pretrained(source),
        scheme="W4A16",  # bits, group_size and sym say otherwise
        bits=int(bits),
        group_size=int(group[1:]),
        sym=rest != ["affine"],
        iters=int(steps),
        dataset=[{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in windows.split(BATCH)],
        nsamples=len(windows),
        seqlen=windows.shape[1],
        batch_size=BATCH,
        device_map="cpu",
    )
    model, _ = rounder.quantize()  # its matrices hold dequantized values
    save_model(source, target, {name: tensor.float().numpy() for name, tensor in model.state_dict().items()})


def unsupported(*_: object) -> Any:
    raise NotImplementedError("this peer only quantizes here")


if __name__ == "__main__":
    serve(unsupported, quantize, "auto-round")
