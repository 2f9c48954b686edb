"""llm-compressor behind the protocol of `worker.py`. Run by the interpreter that `llm_compressor_interpreter` makes.

    python benchmarks/llm_compressor_worker.py      answers requests from stdin

A kind is a method and a scheme, such as `gptq int4-g64` or `awq int3-g64-affine`. The output head stays as it is.
"""

from __future__ import annotations

from typing import Any

from export import calibration, save_model
from worker import serve


def quantize(source: str, target: str, kind: str) -> None:
    """The twin with dequantized weights, as llm-compressor chose them; AWQ's scales are in it, too."""
    import torch
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    method, scheme = kind.split()
    windows = calibration()
    rows = {"input_ids": windows.tolist(), "attention_mask": [[1] * windows.shape[1]] * len(windows)}
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    oneshot(
        model=model,
        dataset=Dataset.from_dict(rows),
        recipe=[modifier(method, scheme)],
        max_seq_length=windows.shape[1],
        num_calibration_samples=len(windows),
    )
    with torch.no_grad():
        for layer in model.modules():
            found = getattr(layer, "quantization_scheme", None)
            if found is not None and found.weights is not None:  # what is rounded already stays as it is
                zero = getattr(layer, "weight_zero_point", None)
                layer.weight.data = fake_quantize(layer.weight.data, layer.weight_scale, zero, found.weights)
    save_model(source, target, {name: tensor.float().numpy() for name, tensor in model.state_dict().items()})


def modifier(method: str, scheme: str) -> Any:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    bits, group, *rest = scheme.removeprefix("int").split("-")
    weights = QuantizationArgs(num_bits=int(bits), group_size=int(group[1:]), strategy="group", symmetric=rest != ["affine"])
    settings: dict[str, Any] = {
        "config_groups": {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        "ignore": ["lm_head"],
    }
    if method == "gptq":
        from llmcompressor.modifiers.gptq import GPTQModifier

        return GPTQModifier(**settings)
    from llmcompressor.modifiers.awq import AWQModifier

    return AWQModifier(**settings)


def unsupported(*_: object) -> Any:
    raise NotImplementedError("this peer only quantizes here")


if __name__ == "__main__":
    serve(unsupported, quantize, "llm-compressor")
