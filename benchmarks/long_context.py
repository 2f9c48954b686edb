"""The twin of SmolLM2-135M with a context of 32768 tokens: the memory that is foretold and taken, and the speed there.

    python benchmarks/long_context.py [--tokens 32768] [--scheme int4-g64]

The twin was made for 8192 tokens; its artifact is copied with a higher limit, which changes memory and time but teaches it
nothing: what it says so far out is not asked here. For each KV cache a process of its own reads a prompt, in the engine's
own chunks, then writes to the end of the context. Memory is foretold by allocation/memory.py before that process starts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOKENS, DECODED = 32768, 32
CACHES = ("fp16", "int8", "int4")
BAR = 0.05  # how far the true peak may be from the foretold one
READ_AND_WRITE = """
import json, sys, time
from bitwright.analysis.memory import peak_rss_bytes
from bitwright.engine import Engine
from bitwright.models import load
model, cache, context, decoded = load(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
tokenizer = model.tokenizer()
engine = Engine.load(model, threads=int(sys.argv[5]), context=context, kv_cache=cache)
clock = time.perf_counter()
engine.prefill([i % 1000 for i in range(context - decoded)])
prefill, clock = time.perf_counter() - clock, time.perf_counter()
for token in range(decoded):
    engine.decode(token)
decode = time.perf_counter() - clock
print(json.dumps({"prefill_seconds": prefill, "decode_tokens_per_s": decoded / decode, "peak_rss_bytes": peak_rss_bytes()}))
"""


def with_context(artifact: Path, tokens: int, out: Path) -> Path:
    """A copy whose config allows `tokens`; the weights are the same file."""
    shutil.copytree(artifact, out, copy_function=os.link)
    manifest = json.loads((artifact / "manifest.json").read_text("utf-8"))
    manifest["config"]["max_position_embeddings"] = tokens
    (out / "manifest.json").unlink()
    (out / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return out


def measure(artifact: Path, cache: str, tokens: int, threads: int) -> dict[str, Any]:
    """One cache: bytes foretold, and what a process of its own took."""
    from bitwright.allocation.memory import Running, running_memory
    from bitwright.models import load

    memory = running_memory(
        load(artifact), Running(tokens, threads, kv_cache=cache), (artifact / "model.safetensors").stat().st_size
    )
    command = [sys.executable, "-c", READ_AND_WRITE, str(artifact), cache, str(tokens), str(DECODED), str(threads)]
    taken: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return {"kv_cache": cache, "foretold_bytes": memory.peak, "foretold_cache_bytes": memory.kv_cache} | taken


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and speed of a 135M model with a context of 32768 tokens.")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--scheme", default="int4-g64")
    options = parser.parse_args()

    from bitwright import _native
    from material import artifact_of_twin
    from results import circumstances, command_line
    from worker import bitwright_worker

    data: dict[str, Any] = {"circumstances": circumstances(), "command": command_line()}
    threads = _native.available_cores()
    with tempfile.TemporaryDirectory() as directory:
        with bitwright_worker() as worker:
            made = artifact_of_twin(options.scheme, Path(directory), worker)
        artifact = with_context(made, options.tokens, Path(directory) / "long")
        rows = [measure(artifact, cache, options.tokens, threads) for cache in CACHES]
    report(data | {"tokens": options.tokens, "decoded": DECODED, "scheme": options.scheme, "threads": threads, "rows": rows})


def report(data: dict[str, Any]) -> None:
    from results import table, verdict, write

    rows = [
        (
            row["kv_cache"],
            round(row["foretold_cache_bytes"] / 1e6, 1),
            round(row["foretold_bytes"] / 1e6, 1),
            round(row["peak_rss_bytes"] / 1e6, 1),
            row["prefill_seconds"],
            row["decode_tokens_per_s"],
        )
        for row in data["rows"]
    ]
    header = ("KV cache", "its MB", "foretold peak MB", "true peak MB", "seconds of prefill", "decode tokens/s at the end")
    bars = [
        verdict(f"true peak off the foretold one, {row['kv_cache']}", abs(row["peak_rss_bytes"] / row["foretold_bytes"] - 1), BAR)
        for row in data["rows"]
    ]
    said = f"{data['scheme']}, {data['threads']} threads; {data['decoded']} of {data['tokens']} tokens are written one by one.\n"
    write(
        "long_context",
        f"Reading {data['tokens']} tokens with the twin of SmolLM2-135M",
        data,
        [said + "Quality so far beyond what the model was made for is not asked.\n", table(header, rows), *bars],
    )


if __name__ == "__main__":
    main()
