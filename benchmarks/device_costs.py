"""What a run costs, known before it is made: predicted from the table of this device, and true.

    python benchmarks/device_costs.py ARTIFACT... [--threads 1,2] [--repeats 5]

Speed: what the table lacks is measured (allocation/device.py), then all artifacts decode by turns. The median token is what
is predicted; the median run has the waits for other programs in it too, and the two differ as much as the machine is busy. A
mixed recipe is the real question: its matrices were timed in models that are all alike. Memory: a process of its own reads a
whole context.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from bitwright.allocation.device import DeviceCosts, schemes_of, token_seconds
from bitwright.allocation.memory import Running, running_memory
from bitwright.engine import Engine
from bitwright.models import load
from bitwright.models.base import LanguageModel

DEPTH, GENERATE, CONTEXT = 16, 96, 1024
READ_WHOLE_CONTEXT = """
import sys
from bitwright.analysis.memory import peak_rss_bytes
from bitwright.engine import Engine
from bitwright.models import load
model, threads, context = load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
tokenizer = model.tokenizer()
Engine.load(model, threads=threads, context=context, kv_cache="fp16").prefill([0] * context)
print(peak_rss_bytes())
"""


def token_times(engine: Engine) -> list[float]:
    """Seconds of each token of one run."""
    engine.prefill([0] * DEPTH)
    ends = [time.perf_counter()]
    for _ in range(GENERATE):
        engine.decode(0)
        ends.append(time.perf_counter())
    return [end - begin for begin, end in pairwise(ends)]


def predicted_seconds(model: LanguageModel, threads: int) -> float:
    for rotated, schemes in schemes_of(model).items():
        costs = DeviceCosts.measured(model.architecture, schemes, threads, rotated=rotated)
    return token_seconds(costs, model, DEPTH + GENERATE // 2)


def compare_speeds(models: dict[str, LanguageModel], threads: int, repeats: int) -> None:
    begin = time.perf_counter()
    predicted = {path: predicted_seconds(model, threads) for path, model in models.items()}
    print(f"{threads} threads: costs known after {time.perf_counter() - begin:.1f} s", flush=True)
    engines = {path: Engine.load(model, threads=threads, context=256) for path, model in models.items()}
    for engine in engines.values():
        token_times(engine)
    rounds = [{path: token_times(engine) for path, engine in engines.items()} for _ in range(repeats)]
    for path in models:
        token = statistics.median(seconds for each in rounds for seconds in each[path])
        run = statistics.median(statistics.mean(each[path]) for each in rounds)
        speeds = f"predicted {1 / predicted[path]:.1f}, true {1 / token:.1f} tokens/s ({1 / run:.1f} of the median run)"
        print(f"{path}, {threads} threads: {speeds}, predicted over true {token / predicted[path]:.3f}", flush=True)


def compare_memory(path: str, model: LanguageModel, threads: int) -> None:
    predicted = running_memory(model, Running(CONTEXT, threads), (Path(path) / "model.safetensors").stat().st_size)
    command = [sys.executable, "-c", READ_WHOLE_CONTEXT, path, str(threads), str(CONTEXT)]
    true = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    figures = f"predicted {predicted.peak / 1e6:.1f} MB, true {true / 1e6:.1f} MB"
    print(f"{path}, {threads} threads: peak of memory {figures}, predicted over true {predicted.peak / true:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    models: dict[str, LanguageModel] = {path: load(path) for path in arguments.artifacts}
    for threads in map(int, arguments.threads.split(",")):
        compare_speeds(models, threads, arguments.repeats)
        for path, model in models.items():
            compare_memory(path, model, threads)


if __name__ == "__main__":
    main()
