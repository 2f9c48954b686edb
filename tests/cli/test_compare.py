"""`bitwright compare` and the tables it writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitwright.analysis.compare as core
from cli.helpers import Command

WAYS = ("--schemes", "int8-channel,int4-g48", "--methods", "nearest, stochastic + hqq", "--tokens", 128)


def test_a_table_and_an_object(bitwright: Command, model_directory: Path, text_file: Path) -> None:
    shown = bitwright("compare", model_directory, *WAYS, "--text", text_file)
    assert shown.code == 0 and shown.out.count("int8-channel") == 2 and shown.out.count("not possible") == 2
    assert "nearest int4-g48: model" in shown.err and "group 48 does not divide" in shown.err
    assert "[3/8] stochastic+hqq int8-channel: quantizing, about" in shown.err
    found = bitwright("compare", model_directory, *WAYS, "--json").json  # on the text that comes along
    assert [(row["method"], row["scheme"], "reason" in row) for row in found["rows"]] == [
        ("nearest", "int8-channel", False),
        ("stochastic+hqq", "int8-channel", False),
        ("nearest", "int4-g48", True),
        ("stochastic+hqq", "int4-g48", True),
    ]


def test_calibration_tokens(bitwright: Command, model_directory: Path) -> None:
    found = bitwright("compare", model_directory, *WAYS, "--calibration-tokens", 1200, "--json").json["calibration"]
    assert (found["windows"], found["length"]) == (2, 512)


@pytest.mark.parametrize("suffix", [".csv", ".md"])
def test_tables_for_others(bitwright: Command, model_directory: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    rows = bitwright("compare", model_directory, *WAYS, "-o", path, "--json").json["rows"]
    assert list(tmp_path.iterdir()) == [path]
    if suffix == ".csv":
        table = list(csv.DictReader(path.open(encoding="utf-8")))
        assert float(table[0]["kl_mean"]) == rows[0]["kl_mean"]
        assert [float(table[1][key]) for key in ("kl_mean_low", "kl_mean_high")] == rows[1]["kl_mean_interval"]
        assert table[2]["reason"] == rows[2]["reason"] and not table[2]["size_bytes"]
    else:
        lines = path.read_text("utf-8").splitlines()
        assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
        assert f"{rows[0]['kl_mean']:.4f}" in lines[2] and rows[3]["reason"] in lines[5]


def test_an_interrupted_comparison_goes_on(
    bitwright: Command, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "table.json", []
    measure = core.compare

    def stopping(model: Any, recipes: Any, *rest: Any) -> Iterator[core.Row]:
        asked.append(list(recipes))
        for row in measure(model, recipes, *rest):
            yield row
            if len(asked) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(core, "compare", stopping)
    assert bitwright("compare", model_directory, *WAYS, "-o", path).code == 130
    first = json.loads(path.read_text("utf-8"))["rows"]
    assert len(first) == 1
    found = bitwright("compare", model_directory, *WAYS, "-o", path, "--json").json
    assert len(found["rows"]) == 4 and found["rows"][0] == first[0] and found == json.loads(path.read_text("utf-8"))
    assert ("nearest", "int8-channel") not in asked[1]
    before = path.read_bytes()
    refused = bitwright("compare", model_directory, *WAYS[:-1], 64, "-o", path)  # other tokens
    assert refused.code == 2 and "holds another comparison" in refused.err and path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "table.xlsx"), "end its name in .json, .csv, .md"),
        (("-o", "nowhere/table.csv"), "no folder nowhere"),
        (("--methods", "magic"), "unknown method 'magic'; choose from nearest"),
        (("--methods", "nearest,gptq+nearest"), "gptq and nearest exclude each other"),
        (("--schemes", "int9-g64"), "unknown format 'int9'"),
        (("--schemes", "int4-g64,"), "cannot read scheme ''"),
        (("--text", "nowhere.txt"), "cannot read the text nowhere.txt"),
        (("--calibration", "nowhere.txt"), "no calibration text nowhere.txt"),
    ],
)
def test_refused_before_any_work(
    bitwright: Command, model_directory: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(core, "quantize", lambda *rest: pytest.fail("work has begun"))
    outcome = bitwright("compare", model_directory, *options)
    assert outcome.code == 2 and message in outcome.err and len(outcome.err.splitlines()) == 1
