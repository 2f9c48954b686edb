"""Damages artifacts and GGUF files without end, and demands that reading them ends in a named error or in numbers.

    python benchmarks/fuzz_readers.py --minutes 10 [--seed 1] [FILE.gguf ...]
    python benchmarks/fuzz_readers.py --replay 12345            one case again, with its traceback

Each case has a seed. A child process takes the cases one after another and prints the seed of each before it starts, so
that a crash of the interpreter, a case over its time or over its memory is as well reported as an exception.
Reading means: load, every tensor, its shape, and the tokenizer on a text and back.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from bitwright.errors import BitwrightError
from bitwright.models import load
from fuzz_seeds import write_seeds

SECONDS = 30  # that one case may take
MEMORY = 6 * 2**30  # bytes of address space for all
CASES = 2000  # that one child takes
TEXT = "Hello, world: 12 fränkische 文字 \N{GRINNING FACE}"
NUMBERS = (0, 1, 2, 7, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)

Mutation = Callable[[random.Random, bytearray, bytes], None]


def _place(rng: random.Random, content: bytearray) -> int:
    """Half of the time in the header, where there is more to break."""
    return rng.randrange(min(len(content), rng.choice((64, 4096, len(content)))) or 1)


def flip_bits(rng: random.Random, content: bytearray, other: bytes) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        content[_place(rng, content)] ^= 1 << rng.randrange(8)


def random_bytes(rng: random.Random, content: bytearray, other: bytes) -> None:
    place = _place(rng, content)
    content[place : place + rng.choice((1, 4, 64))] = rng.randbytes(rng.choice((1, 4, 64)))


def only_random_bytes(rng: random.Random, content: bytearray, other: bytes) -> None:
    keep = rng.choice((0, 4, 8, 24))
    content[keep:] = rng.randbytes(rng.randrange(2048))


def truncate(rng: random.Random, content: bytearray, other: bytes) -> None:
    del content[rng.choice((_place(rng, content), len(content) - 1)) :]


def splice(rng: random.Random, content: bytearray, other: bytes) -> None:
    source = rng.choice((bytes(content), other)) or b"\0"
    begin, place, length = rng.randrange(len(source)), _place(rng, content), rng.choice((1, 8, 24, 512))
    kept = rng.choice((length, 0))  # overwrite, or push what follows away
    content[place : place + kept] = source[begin : begin + length]


def set_integer(rng: random.Random, content: bytearray, other: bytes) -> None:
    place, width = _place(rng, content), rng.choice((1, 2, 4, 8))
    content[place : place + width] = (rng.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(width, "little")


def set_decimal(rng: random.Random, content: bytearray, other: bytes) -> None:
    """A number in JSON gets another value; spaces or the digits that follow give way, so that offsets stay true."""
    found = list(re.finditer(rb"\d+", bytes(content[: 2**16])))
    if found:
        match = rng.choice(found)
        number = str(rng.choice((*NUMBERS, -1, 1e308, "null", '"x"', "[]"))).encode()
        content[match.start() : match.end() if rng.random() < 0.5 else match.start() + len(number)] = number


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_bits,
    random_bytes,
    only_random_bytes,
    truncate,
    splice,
    set_integer,
    set_decimal,
    set_decimal,
    set_decimal,
)


def damage(rng: random.Random, path: Path, seeds: list[Path]) -> None:
    """One to three mutations of `path`, or of one or two files in it."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    others = [file for seed in seeds for file in (sorted(seed.iterdir()) if seed.is_dir() else [seed])]
    for file in rng.sample(files, rng.choice((1, 1, 2)) if len(files) > 1 else 1):
        content, other = bytearray(file.read_bytes()), rng.choice(others).read_bytes()
        for _ in range(rng.choice((1, 1, 2, 3))):
            rng.choice(MUTATIONS)(rng, content, other)
            content = content or bytearray(1)
        file.write_bytes(content)


def read_everything(path: Path) -> None:
    """Raises whatever reading raises; every face that a model shows is looked at."""
    model = load(path)
    for name in model.names():
        if model.read(name).shape != model.shape(name) or model.stored_bits(name) <= 0 or not model.scheme_of(name):
            raise AssertionError(f"{name} is not what the model says")
    model.roles(), model.config(), model.fingerprint()
    tokenizer = model.tokenizer()
    tokenizer.decode(tokenizer.encode(TEXT))


def run_case(seed: int, seeds: list[Path], directory: Path) -> str:
    """The name of the error that the case ends in, or "read"."""
    rng = random.Random(seed)
    source = rng.choice(seeds)
    path = directory / ("case" + source.suffix)
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
    damage(rng, path, seeds)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(action="ignore"):  # damaged numbers overflow, which is no fault of the reader
            read_everything(path)
    except BitwrightError as error:
        message = str(error)
        if "\n" in message or not message:
            raise AssertionError(f"not one line: {message!r}") from error
        return type(error).__name__
    finally:
        signal.alarm(0)
    return "read"


def work(first: int, cases: int, extra: list[Path]) -> None:
    """The child: seed, outcome, seed, outcome, ... on stdout. Ends at the first fault with its traceback."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as scratch:
        seeds = write_seeds(Path(scratch) / "seeds") + extra
        for seed in range(first, first + cases):
            print(seed, flush=True)
            try:
                outcome = run_case(seed, seeds, Path(scratch))
            except BaseException:  # noqa: BLE001 - whatever it is, it is what we look for, and it is reported
                traceback.print_exc()
                sys.exit(f"seed {seed} ended in an error without a name")
            print(outcome, flush=True)


def supervise(minutes: float, first: int, extra: list[Path]) -> int:
    """Children until the time is over; the number of seeds that failed."""
    begin, outcomes, failed = time.monotonic(), dict[str, int](), list[str]()
    print(f"seeds from {first}", flush=True)
    while time.monotonic() - begin < 60 * minutes:
        arguments = [sys.executable, __file__, "--work", "--seed", str(first), *map(str, extra)]
        seed = str(first)
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line[0].isdigit():
                    seed = line.strip()
                else:
                    outcomes[line.strip()] = outcomes.get(line.strip(), 0) + 1
                if time.monotonic() - begin >= 60 * minutes:
                    child.terminate()
                    break
            else:
                if child.wait() != 0:
                    failed.append(seed)
                    print(f"FAILED seed {seed}, exit code {child.returncode}; --replay {seed} repeats it", flush=True)
        first = int(seed) + 1
        print(f"{time.monotonic() - begin:6.0f} s, {sum(outcomes.values())} cases, to seed {seed}: {outcomes}", flush=True)
    print(f"{len(failed)} of {sum(outcomes.values()) + len(failed)} cases failed {' '.join(failed)}")
    return len(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1, help="of the first case")
    parser.add_argument("--replay", type=int, help="run this one case")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", type=Path, help="more GGUF files or artifacts to damage; absent ones are skipped")
    options = parser.parse_args()
    extra = [path for path in options.files if path.exists()]
    if options.replay is not None:
        work(options.replay, 1, extra)
    elif options.work:
        work(options.seed, CASES, extra)
    else:
        sys.exit(supervise(options.minutes, options.seed, extra) > 0)


if __name__ == "__main__":
    main()
