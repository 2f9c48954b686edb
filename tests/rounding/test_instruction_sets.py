"""The native loops of GPTQ and descent give the same codes on every instruction set that this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, zlib
import numpy as np
from bitwright import _native

random = np.random.default_rng(2)
rows, columns, groups = 37, 50, 5
weights, levels = (random.standard_normal((rows, columns)).astype(np.float32) for _ in range(2))
scale = (random.random((rows, groups)) + .1).astype(np.float32)
zero_point = random.integers(-8, 8, (rows, groups)).astype(np.float32)
group_of = np.sort(random.integers(0, groups, columns)).astype(np.int32)
square = random.standard_normal((2 * columns, columns)).astype(np.float32)
gram = np.ascontiguousarray(np.round(square, 1).T @ np.round(square, 1)).round(2) + 5 * np.eye(columns, dtype=np.float32)
factor = np.triu(gram / 50).astype(np.float32)
grids = (scale, zero_point, group_of, -8, 7)
digest = 0
for drift in (None, np.triu(gram / 500, 1).astype(np.float32)):
    digest = zlib.crc32(_native.compensate(weights, *grids, factor, drift), digest)
digest = zlib.crc32(_native.descend(weights, levels, *grids, gram.astype(np.float32), 3), digest)
for count, size in ((1, 16), (rows, 8), (rows * groups, 4), (1, 200)):
    values = np.sort(random.standard_normal((count, size)).astype(np.float32), axis=1)
    middles = np.ascontiguousarray((values[:, 1:] + values[:, :-1]) / 2)
    tables = (middles, values, np.tile(np.arange(size, dtype=np.uint8), (count, 1)))
    digest = zlib.crc32(_native.compensate(weights, *grids, factor, None, tables), digest)
    digest = zlib.crc32(_native.descend(weights, levels, *grids, gram.astype(np.float32), 3, tables), digest)
print(_native.isa(), digest)
"""


def run(isa: str) -> tuple[str, str] | None:
    """(instruction set, digest of the codes); None where this machine lacks the set."""
    source = Path(__file__).parents[2] / "src"
    environment = os.environ | {"BITWRIGHT_ISA": isa}
    if "PYTHONPATH" not in environment:
        environment["PYTHONPATH"] = str(source)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    if done.returncode and "unknown or not supported here" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    name, digest = done.stdout.split()
    return name, digest


@pytest.mark.parametrize("isa", ["avx2", "avxvnni", "avx512vnni"])
def test_codes_are_those_of_the_scalar_set(isa: str) -> None:
    found = run(isa)
    if found is None:
        pytest.skip(f"this machine has no {isa}")
    assert found == (isa, (run("scalar") or ("", ""))[1])
