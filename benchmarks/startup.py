"""How long after the return key `bitwright run` shows its first word, and where the time goes.

    python benchmarks/startup.py [--rounds 9]

Each run is a fresh process on an artifact that the file cache holds, timed from before it is started until the first
byte of the answer arrives; medians. The phases are those of another fresh process, one after the other: in a real run
the tokenizer is read while the weights are repacked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCHEMES = ("int4-g64", "int8-channel")
PROMPT = "Why is the sky blue?"
SECONDS_BAR = 0.4
PHASES = """
import json, sys, time
clock, found = time.perf_counter(), {}
def lap(name):
    global clock
    found[name], clock = time.perf_counter() - clock, time.perf_counter()
import bitwright.cli.run
import bitwright.engine
from bitwright.models import load
from bitwright.artifact import open_artifact
lap("imports")
model = load(sys.argv[1])
lap("opening the artifact")
from bitwright.cli.answer import read_prompt
tokenizer, tokens = read_prompt(model, sys.argv[2], raw=False)
lap("tokenizer and prompt")
engine = bitwright.engine.Engine.load(model)
lap("repacking the weights")
engine.prefill(tokens)
lap("reading the prompt")
print(json.dumps(found))
"""


def first_word(artifact: Path) -> float:
    """Seconds until the first byte of the answer."""
    command = [sys.executable, "-m", "bitwright", "run", str(artifact), PROMPT, "-n", "1"]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        byte = process.stdout.read(1)
        seconds = time.perf_counter() - begin
    if process.returncode or not byte.strip():
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    return seconds


def phases(artifact: Path) -> dict[str, float]:
    """Seconds by phase, the interpreter's own start first."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    interpreter = {"interpreter": time.perf_counter() - begin}
    found = subprocess.run([sys.executable, "-c", PHASES, str(artifact), PROMPT], capture_output=True, text=True, check=True)
    later: dict[str, float] = json.loads(found.stdout)
    return interpreter | later


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds from the return key to the first word of a 135M model.")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()

    from material import artifact_of_twin
    from results import circumstances, command_line
    from worker import bitwright_worker

    data: dict[str, Any] = {"circumstances": circumstances(), "command": command_line(), "rows": []}
    with tempfile.TemporaryDirectory() as directory:
        with bitwright_worker() as worker:
            artifacts = {scheme: artifact_of_twin(scheme, Path(directory), worker) for scheme in SCHEMES}
        for scheme, artifact in artifacts.items():
            first_word(artifact)  # warms the file cache
            rounds = [first_word(artifact) for _ in range(options.rounds)]
            parts = [phases(artifact) for _ in range(options.rounds)]
            medians = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
            data["rows"].append({"scheme": scheme, "seconds": statistics.median(rounds), "rounds": rounds, "phases": medians})
    report(data)


def report(data: dict[str, Any]) -> None:
    from results import table, verdict, write

    names = list(data["rows"][0]["phases"])
    rows = [(row["scheme"], row["seconds"], *(row["phases"][name] for name in names)) for row in data["rows"]]
    bars = [verdict(f"seconds to the first word, {row['scheme']}", row["seconds"], SECONDS_BAR) for row in data["rows"]]
    header = ("scheme", "seconds to the first word", *names)
    write("startup", "Start-up of the twin of SmolLM2-135M", data, [table(header, rows), *bars])


if __name__ == "__main__":
    main()
