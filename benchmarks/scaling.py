"""How speed scales: with the model's size, the context, the batch and the threads.

    python benchmarks/scaling.py [--repeats 5] [--threads 1,2]

Sizes: the twin of SmolLM2-135M, and random weights in the shape of a 1B model (four layers of Llama 3.2 1B) and of a 7B
model (two layers of Llama 2 7B), each with a vocabulary of 8192: what a token costs depends on the shapes and the bits,
not on the values. All in int4-g64. A share of the machine's read bandwidth (decode) and int8 peak (prefill) is
comparable between sizes where a speed is not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import bitwright
from bitwright.analysis.benchmark import Work, bench
from material import twin
from results import circumstances, table, verdict, write

SCHEME = "int4-g64"
VOCABULARY = 8192
# hidden size, intermediate size, layers, query heads, key heads
SHAPES = {"1B-shaped, 4 layers": (2048, 8192, 4, 32, 8), "7B-shaped, 2 layers": (4096, 11008, 2, 32, 32)}
DEPTHS = (128, 1024, 4096)
CACHES = ("fp16", "int8")
BATCHES = (1, 2, 4, 8)
DEPTH_BAR, BATCH_BAR = 0.75, 5.0  # speed at 4096 over 128 with an int8 cache; of eight sequences over one


def random_model(shape: tuple[int, int, int, int, int], directory: Path) -> Path:
    """A Hugging Face directory in fp16. The same million random numbers fill every matrix."""
    hidden, intermediate, layers, heads, kv_heads = shape
    numbers = (np.random.default_rng(0).normal(size=1 << 20) / np.sqrt(hidden)).astype(np.float16)
    narrow = hidden // heads * kv_heads
    sizes = {"model.embed_tokens": (VOCABULARY, hidden), "lm_head": (VOCABULARY, hidden)}
    ones = ["model.norm"]
    for layer in range(layers):
        at = f"model.layers.{layer}"
        ones += [f"{at}.input_layernorm", f"{at}.post_attention_layernorm"]
        sizes |= {f"{at}.self_attn.{kind}_proj": (hidden, hidden) for kind in "qo"}
        sizes |= {f"{at}.self_attn.{kind}_proj": (narrow, hidden) for kind in "kv"}
        sizes |= {f"{at}.mlp.{kind}_proj": (intermediate, hidden) for kind in ("gate", "up")}
        sizes[f"{at}.mlp.down_proj"] = (hidden, intermediate)
    tensors = {f"{name}.weight": np.resize(numbers, size) for name, size in sizes.items()}
    tensors |= {f"{name}.weight": np.ones(hidden, np.float16) for name in ones}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "vocab_size": VOCABULARY}
    config |= {"intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads}
    config |= {"num_key_value_heads": kv_heads, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 1e4}
    config |= {"hidden_act": "silu", "tie_word_embeddings": False, "dtype": "float16"}
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def artifact(source: Path, out: Path) -> Path:
    """With the quickest fit: nobody reads what these models say."""
    bitwright.quantize(bitwright.load(source), bitwright.Recipe.uniform(SCHEME, fitting="minmax")).save(out)
    return out


def rows_of(model: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each thread count and way of decoding."""
    common = {"model": model, "kv_cache": result["kv_cache"], "prompt": result["prompt"]}
    figures = ("threads", "prefill_tokens_per_s", "prefill_fraction_of_peak")
    return [common | {name: run[name] for name in figures} | decode for run in result["runs"] for decode in run["decodes"]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed by model size, context, batch and threads.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", default="1,2", help="thread counts, separated by commas")
    options = parser.parse_args()
    threads = tuple(map(int, options.threads.split(",")))

    data: dict[str, Any] = {"circumstances": circumstances(), "command": "python benchmarks/scaling.py"}
    with tempfile.TemporaryDirectory() as name:
        small = artifact(twin(), Path(name) / "135M")
        sizes = rows_of("135M", bench(small, Work(repeats=options.repeats), threads))
        for model, shape in SHAPES.items():
            path = artifact(random_model(shape, Path(name) / model), Path(name) / f"{model} {SCHEME}")
            sizes += rows_of(model, bench(path, Work(repeats=options.repeats), threads))
        depths = []
        for cache in CACHES:
            work = Work(generate=32, depths=DEPTHS, repeats=options.repeats, kv_cache=cache)
            depths += rows_of("135M", bench(small, work, threads))
        batches = rows_of("135M", bench(small, Work(batches=BATCHES, repeats=options.repeats), threads))
    report(data | {"sizes": sizes, "depths": depths, "batches": batches})


def report(data: dict[str, Any]) -> None:
    def percent(fraction: float | None) -> str:
        return "" if fraction is None else f"{100 * fraction:.0f} %"

    sizes = [
        (
            row["model"],
            row["threads"],
            row["prefill_tokens_per_s"],
            percent(row["prefill_fraction_of_peak"]),
            row["decode_tokens_per_s"],
            percent(row["decode_fraction_of_bandwidth"]),
        )
        for row in data["sizes"]
    ]
    depths = [
        (row["kv_cache"], row["threads"], row["depth"], row["decode_tokens_per_s"], over(row, data["depths"], "depth"))
        for row in data["depths"]
    ]
    batches = [
        (row["threads"], row["batch"], row["decode_tokens_per_s"], over(row, data["batches"], "batch")) for row in data["batches"]
    ]
    parts = [
        table(("model", "threads", "prefill tokens/s", "of peak", "decode tokens/s", "of bandwidth"), sizes),
        table(("135M, KV cache", "threads", "tokens before", "decode tokens/s", "over the first"), depths),
        table(("135M, threads", "sequences at once", "decode tokens/s, all", "over the first"), batches),
        *verdicts(data),
    ]
    write("scaling", "Speed by model size, context, batch and threads, int4-g64", data, parts)


def over(row: dict[str, Any], rows: list[dict[str, Any]], what: str) -> float:
    """Its decoding speed over that of the smallest `what` among rows that are otherwise like it."""
    alike = [other for other in rows if all(other[key] == row[key] for key in ("threads", "kv_cache", "model"))]
    first = min(alike, key=lambda other: other[what])
    return float(row["decode_tokens_per_s"] / first["decode_tokens_per_s"])


def verdicts(data: dict[str, Any]) -> list[str]:
    """One line a bar."""
    deep = [row for row in data["depths"] if row["depth"] == max(DEPTHS) and row["kv_cache"] == "int8"]
    wide = [row for row in data["batches"] if row["batch"] == max(BATCHES)]
    return [
        verdict(f"decode at {row['depth']} over {min(DEPTHS)}, int8 cache, {row['threads']} thread(s)", ratio, DEPTH_BAR, True)
        for row, ratio in ((row, over(row, data["depths"], "depth")) for row in deep)
    ] + [
        verdict(f"decode of {row['batch']} sequences over one, {row['threads']} thread(s)", ratio, BATCH_BAR, True)
        for row, ratio in ((row, over(row, data["batches"], "batch")) for row in wide)
    ]


if __name__ == "__main__":
    main()
