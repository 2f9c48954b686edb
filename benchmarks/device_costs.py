"""How well a token's time is known before a model is run: predicted from the table of this device, and true.

    python benchmarks/device_costs.py ARTIFACT... [--threads 1,2] [--repeats 5]

Measures what the table lacks (allocation/device.py), then decodes with each artifact by turns and prints predicted over
true. A mixed recipe is the real question: its matrices were timed in models that are all alike.
"""

from __future__ import annotations

import argparse
import statistics
import time

from bitwright.allocation.device import DeviceCosts, schemes_of, token_seconds
from bitwright.engine import Engine
from bitwright.models import load

DEPTH, GENERATE = 16, 96


def seconds_a_token(engine: Engine) -> float:
    engine.prefill([0] * DEPTH)
    begin = time.perf_counter()
    for _ in range(GENERATE):
        engine.decode(0)
    return (time.perf_counter() - begin) / GENERATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    models = {path: load(path) for path in arguments.artifacts}
    for threads in map(int, arguments.threads.split(",")):
        predicted = {}
        for path, model in models.items():
            begin = time.perf_counter()
            for rotated, schemes in schemes_of(model).items():
                costs = DeviceCosts.measured(model.architecture, schemes, threads, rotated=rotated)
            predicted[path] = token_seconds(costs, model, DEPTH + GENERATE // 2)
            print(f"{path}: {threads} threads, costs known after {time.perf_counter() - begin:.1f} s", flush=True)
        engines = {path: Engine.load(model, threads=threads, context=256) for path, model in models.items()}
        for engine in engines.values():
            seconds_a_token(engine)
        rounds = [{path: seconds_a_token(engine) for path, engine in engines.items()} for _ in range(arguments.repeats)]
        for path in models:
            true = statistics.median(each[path] for each in rounds)
            speeds = f"predicted {1 / predicted[path]:.1f}, true {1 / true:.1f} tokens/s"
            print(f"{path}, {threads} threads: {speeds}, ratio of times {predicted[path] / true:.3f}", flush=True)


if __name__ == "__main__":
    main()
