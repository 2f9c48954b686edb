"""The twin of SmolLM2: the same function in another basis, so that no method profits from the model's 4-bit past.

The model in the PyPI package has been through 4 bits in groups of 32, and would come back out of them unhurt.
Its twin is made in four steps, each of which leaves the function as it was:

1. fold every norm's gain into the matrices that read it, and untie the head;
2. rotate the residual stream by an orthogonal R, three rounds of Givens rotations over random pairs of channels:
   E R, W_in R, R^T W_out, H R. A norm without a gain commutes with R;
3. give each norm a gain again, gamma_j = rms of column j over the matrices that read it, divided by the geometric
   mean of all columns', and divide those columns by it;
4. round to fp16.

    python benchmarks/make_twin.py OUT [--gguf OUT.gguf]

writes a Hugging Face directory (and the same numbers as GGUF, for llama.cpp), then compares its next-token
distributions with the original's and fails unless the KL divergence stays below 1e-5.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smollm2 import CHANNELS, CONFIG, LAYERS, Tensors, package_file, read_gguf, write_gguf, write_huggingface

SEED = 20240607
ROUNDS = 3
BAR = 1e-5
ROOT = Path(__file__).resolve().parent.parent
TEXTS = (ROOT.parent / "shared/data/text/wikitext2_valid.txt", ROOT / "README.md")

Matrix = npt.NDArray[np.float64]


def givens_rotation(channels: int, seed: int) -> Matrix:
    """An orthogonal (channels, channels) matrix: per round, random pairs each turned by an angle uniform in 0 .. 2 pi."""
    random = np.random.default_rng(seed)
    rotation = np.eye(channels)
    for _ in range(ROUNDS):
        first, second = random.permutation(channels).reshape(2, -1)
        angle = random.uniform(0, 2 * np.pi, channels // 2)
        left, right = rotation[:, first], rotation[:, second]
        rotation[:, first] = left * np.cos(angle) + right * np.sin(angle)
        rotation[:, second] = right * np.cos(angle) - left * np.sin(angle)
    return rotation


def readers() -> dict[str, list[str]]:
    """Each norm -> the matrices that read its output."""
    table = {"model.norm.weight": ["lm_head.weight"]}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        table[f"{prefix}.input_layernorm.weight"] = [f"{prefix}.self_attn.{kind}_proj.weight" for kind in "qkv"]
        table[f"{prefix}.post_attention_layernorm.weight"] = [f"{prefix}.mlp.{kind}_proj.weight" for kind in ("gate", "up")]
    return table


def rebase(tensors: Tensors, seed: int) -> Tensors:
    """Steps 1 to 3, on a model whose head is already a tensor of its own."""
    twin = dict(tensors)
    rotation = givens_rotation(CHANNELS, seed)
    twin["model.embed_tokens.weight"] = (tensors["model.embed_tokens.weight"] @ rotation).astype(np.float32)
    for layer in range(LAYERS):
        for name in (f"model.layers.{layer}.self_attn.o_proj.weight", f"model.layers.{layer}.mlp.down_proj.weight"):
            twin[name] = (rotation.T @ tensors[name]).astype(np.float32)
    for norm, names in readers().items():
        rotated = {name: (tensors[name] * tensors[norm].astype(np.float64)) @ rotation for name in names}
        gain = balanced_gain(list(rotated.values()))
        twin[norm] = gain.astype(np.float32)
        twin |= {name: (values / gain).astype(np.float32) for name, values in rotated.items()}
    return twin


def balanced_gain(matrices: list[Matrix]) -> Matrix:
    """(columns,): root mean square of each column over all rows, divided by the columns' geometric mean."""
    size = np.sqrt(np.mean(np.concatenate(matrices) ** 2, axis=0))
    gain: Matrix = size / np.exp(np.mean(np.log(size)))
    return gain


def log_probabilities(tensors: Tensors, tokens: list[int]) -> Matrix:
    """(tokens, vocabulary) from transformers in fp32, normalized in fp64: in fp32 that alone would be off by the bar."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**CONFIG | {"dtype": "float32"}))
    state = {name: torch.from_numpy(values.astype(np.float32)) for name, values in tensors.items()}
    model.load_state_dict(state, assign=True)
    with torch.inference_mode():
        logits = model.eval()(torch.tensor([tokens])).logits[0]
    result: Matrix = torch.log_softmax(logits.double(), -1).numpy()
    return result


def divergence(original: Tensors, directory: Path, tokens: list[int]) -> float:
    """Mean KL(original || twin as stored), in nats a token."""
    from safetensors.numpy import load_file

    reference = log_probabilities(original, tokens)
    twin = log_probabilities(load_file(directory / "model.safetensors"), tokens)
    return float(np.mean(np.sum(np.exp(reference) * (reference - twin), axis=1)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the twin of SmolLM2-135M and prove it equal.")
    parser.add_argument("out", type=Path, help="Hugging Face directory to write")
    parser.add_argument("--gguf", type=Path, help="also write the same numbers as an f16 GGUF")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()

    from bitwright.models import load

    source = package_file()
    original = read_gguf(source)
    write_huggingface(rebase(original, options.seed), options.out)
    tokenizer = load(source).tokenizer()
    tokenizer.save(options.out)
    if options.gguf:
        write_gguf(options.out, source, options.gguf)
    text = next(path for path in TEXTS if path.exists()).read_text("utf-8")[:4000]
    kl = divergence(original, options.out, tokenizer.encode(text)[:512])
    print(f"twin of {source.name} in {options.out}: KL to the original {kl:.2e} nats a token (bar: {BAR:.0e})")
    if kl >= BAR:
        raise SystemExit("the twin is not equal to the original")


if __name__ == "__main__":
    main()
