"""Every verb does its work on a tiny model, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.helpers import Command, tensors, write_model


def test_inspect(bitwright: Command, artifact: Path, model_directory: Path) -> None:
    found = bitwright("inspect", artifact, "--json").json
    assert {"size_bytes", "bits_per_weight", "tensors"} <= set(found)
    assert found["size_bytes"] == sum(path.stat().st_size for path in artifact.iterdir())
    assert {row["scheme"] for row in found["tensors"]} == {"int4-g64", "int8-channel", "fp32"}
    assert {row["rotation"] for row in found["tensors"] if row["scheme"] == "int4-g64"} == {64}
    assert {row["rotation"] for row in found["tensors"] if row["scheme"] == "fp32"} == {0}
    assert "rotation" in bitwright("inspect", artifact).out
    table = bitwright("inspect", model_directory).out
    assert "model.layers.1.mlp.down_proj.weight" in table and "32.000 bits per weight" in table


def test_quantize(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    found = bitwright("quantize", model_directory, "-o", tmp_path / "out", "--scheme", "int8-channel", "--json").json
    assert found["path"] == str(tmp_path / "out") and found["seconds"] > 0 and found["peak_rss_bytes"] > 0
    inspected = bitwright("inspect", tmp_path / "out", "--json").json
    assert (found["size_bytes"], found["bits_per_weight"]) == (inspected["size_bytes"], inspected["bits_per_weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_quantize_by_recipe(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"choices": [{"pattern": "*down_proj*", "scheme": "int8-g64"}, {"pattern": "*", "scheme": "int4-g32"}]}')
    outcome = bitwright("quantize", model_directory, "-o", tmp_path / "out", "--recipe", recipe)
    assert outcome.code == 0 and outcome.out == "" and outcome.err.startswith(f"wrote {tmp_path / 'out'}")
    schemes = {row["name"]: row["scheme"] for row in bitwright("inspect", tmp_path / "out", "--json").json["tensors"]}
    assert schemes["model.layers.0.mlp.down_proj.weight"] == "int8-g64"
    assert schemes["model.layers.0.mlp.up_proj.weight"] == "int4-g32"


def test_quantize_prunes_and_inspect_says_what_that_is_worth(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    options = ("--scheme", "int8-channel", "--head", "fp16", "--prune", "2:4")
    bitwright("quantize", model_directory, "-o", tmp_path / "out", *options)
    found = bitwright("inspect", tmp_path / "out", "--entropy", "--json").json
    assert found["entropy_bits_per_weight"] < found["bits_per_weight"]
    tensors = {row["name"]: row for row in found["tensors"]}
    assert tensors["model.layers.1.mlp.up_proj.weight"]["zeros"] >= 0.5
    assert all(row["entropy_bits_per_weight"] <= row["bits_per_weight"] for row in tensors.values())
    assert "by an entropy coder" in bitwright("inspect", tmp_path / "out", "--entropy").out


def test_eval(bitwright: Command, artifact: Path, model_directory: Path, text_file: Path) -> None:
    options = ("--reference", model_directory, "--text", text_file, "--context", "64", "--tokens", "512")
    found = bitwright("eval", artifact, *options, "--json").json
    assert 0 < found["kl_mean_interval"][0] <= found["kl_mean"] <= found["kl_mean_interval"][1]
    assert found["tokens"] == 512  # every window opens with a special token, so each token of the text is scored
    assert found["kl_median"] <= found["kl_p99"] and 0 <= found["top1_agreement"] <= 1
    table = bitwright("eval", artifact, *options).out
    assert "KL p99" in table and "95 % interval" in table


def test_eval_of_a_model_against_itself(bitwright: Command, model_directory: Path, text_file: Path) -> None:
    options = ("--text", text_file, "--context", "64", "--tokens", "512", "--activations", "fp32", "--json")
    found = bitwright("eval", model_directory, "--reference", model_directory, *options).json
    assert found["kl_mean"] < 1e-5 and found["top1_agreement"] > 0.99
    alone = bitwright("eval", model_directory, *options).json
    assert alone["perplexity"] == pytest.approx(found["perplexity"]) and alone["kl_mean"] is None


def test_eval_by_kind(bitwright: Command, artifact: Path, model_directory: Path, text_file: Path) -> None:
    options = ("--text", text_file, "--context", "64", "--tokens", "512", "--by-kind")
    found = bitwright("eval", artifact, "--reference", model_directory, *options, "--json").json
    kinds = found["kinds"]
    assert {"word start", "punctuation", "repeats", "frequent"} <= {kind["kind"] for kind in kinds}
    for group in ("text", "context", "frequency", "reference"):
        assert sum(kind["tokens"] for kind in kinds if kind["group"] == group) == found["tokens"]
        added = sum(kind["loss_added"] * kind["share"] for kind in kinds if kind["group"] == group)
        assert added == pytest.approx(found["loss_added"])
    assert found["flips"] == pytest.approx(1 - found["top1_agreement"]) and 0 < found["noise_floor_kl"] < found["kl_mean"] / 10
    table = bitwright("eval", artifact, "--reference", model_directory, *options).out
    assert "noise floor" in table and "word start" in table
    refused = bitwright("eval", artifact, *options)
    assert refused.code == 2 and "--reference" in refused.err


def test_eval_of_a_task(bitwright: Command, artifact: Path, model_directory: Path, text_file: Path, tmp_path: Path) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text('{"context": "A model reads", "choices": ["words", "nothing"], "answer": 0}\n' * 3, "utf-8")
    alone = bitwright("eval", artifact, "--task", task, "--json").json
    assert alone["task_items"] == 3 and 0 <= alone["task_accuracy"] <= 1 and alone["task_drop"] is None
    assert "perplexity" not in alone
    options = ("--reference", model_directory, "--task", task)
    found = bitwright("eval", artifact, *options, "--text", text_file, "--context", "64", "--tokens", "128", "--json").json
    assert found["perplexity"] > 1 and found["task_drop"] == found["task_accuracy_reference"] - found["task_accuracy"]
    assert "McNemar" in bitwright("eval", artifact, *options).out
    task.write_text('{"context": "A model reads"}', "utf-8")
    broken = bitwright("eval", artifact, "--task", task)
    assert broken.code == 2 and broken.err.startswith(f"error: {task}, line 1: ") and broken.err.count("\n") == 1
    neither = bitwright("eval", artifact)
    assert neither.code == 2 and "--text" in neither.err


def test_run(bitwright: Command, artifact: Path) -> None:
    found = bitwright("run", artifact, "The quick brown fox", "-n", "12", "--json").json
    assert 0 < found["tokens"] <= 12 and found["prompt_tokens"] > 4
    plain = bitwright("run", artifact, "The quick brown fox", "-n", "12")
    assert plain.code == 0 and plain.out == found["text"] + "\n"
    raw = bitwright("run", artifact, "The quick brown fox", "-n", "12", "--raw", "--json").json
    assert raw["prompt_tokens"] < found["prompt_tokens"]


def test_run_stops_where_told(bitwright: Command, artifact: Path) -> None:
    whole = bitwright("run", artifact, "The quick", "-n", "24", "--json").json["text"]
    middle = whole[len(whole) // 2 :][:3]
    assert middle
    assert (
        bitwright("run", artifact, "The quick", "-n", "24", "--stop", middle, "--json").json["text"]
        == whole[: whole.index(middle)]
    )


def test_run_with_a_seed_is_repeatable(bitwright: Command, artifact: Path) -> None:
    options = ("-n", "16", "--temperature", "1.5", "--top-k", "50", "--top-p", "0.95", "--min-p", "0.01")
    texts = [bitwright("run", artifact, "Hello", *options, "--seed", seed, "--json").json["text"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_context_limit_is_an_error_or_a_sliding_window(bitwright: Command, artifact: Path) -> None:
    options = ("-n", "60", "--context", "12", "--raw")
    full = bitwright("run", artifact, "The quick brown fox", *options)
    assert full.code == 2 and "context" in full.err
    slid = bitwright("run", artifact, "The quick brown fox", *options, "--overflow", "slide", "--json").json
    assert slid["tokens"] > 12


def test_run_says_what_it_switched(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    choices = [{"pattern": "*", "scheme": "int8-channel"}]
    runtime = [{"activations": "int16"}, {"kv_cache": "int8", "activations": "int8", "from_context": 3}]
    (tmp_path / "recipe.json").write_text(json.dumps({"choices": choices, "runtime": runtime}), "utf-8")
    assert bitwright("quantize", model_directory, "-o", tmp_path / "out", "--recipe", tmp_path / "recipe.json").code == 0
    outcome = bitwright("run", tmp_path / "out", "The quick brown fox", "-n", "4")
    said = "switched after 3 tokens: KV cache fp16 to int8, activations int16 to int8 (3 tokens reached; "
    assert outcome.code == 0 and outcome.err.startswith(said) and outcome.err.count("\n") == 1
    assert len(bitwright("run", tmp_path / "out", "The quick brown fox", "-n", "4", "--json").json["switches"]) == 1
    assert bitwright("run", tmp_path / "out", "The quick brown fox", "-n", "4", "--kv-cache", "fp16").err == ""


def test_chat_says_what_it_switched(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    """Once, after the answer in which it happened."""
    runtime = [{"activations": "int16"}, {"kv_cache": "int8", "from_context": 60}]
    choices = [{"pattern": "*", "scheme": "int8-channel"}]
    (tmp_path / "recipe.json").write_text(json.dumps({"choices": choices, "runtime": runtime}), "utf-8")
    assert bitwright("quantize", model_directory, "-o", tmp_path / "out", "--recipe", tmp_path / "recipe.json").code == 0
    short = bitwright("chat", tmp_path / "out", "-n", "4", stdin="Hello\n")
    assert short.code == 0 and short.err == ""
    outcome = bitwright("chat", tmp_path / "out", "-n", "4", stdin="Hello\n" + "And the quick brown fox, too? " * 4 + "\nNow?\n")
    assert outcome.code == 0 and outcome.out.startswith(short.out)
    assert outcome.err.startswith("switched after 60 tokens: KV cache fp16 to int8 (") and outcome.err.count("\n") == 1


def test_chat_answers_every_line(bitwright: Command, artifact: Path) -> None:
    lines = "Hello\n\n/reset\nHello\nAnd now?\n/exit\nnever read\n"
    outcome = bitwright("chat", artifact, "-n", "8", "--system", "Be brief.", stdin=lines)
    assert outcome.code == 0 and outcome.err == ""
    alone = bitwright("chat", artifact, "-n", "8", "--system", "Be brief.", stdin="Hello\n").out
    assert outcome.out.startswith(alone + alone) and len(outcome.out) > 2 * len(alone)


def test_bench(bitwright: Command, artifact: Path) -> None:
    options = ("--prompt", "32", "--generate", "8", "--threads", "1,2", "--depth", "16,24", "--kv-cache", "int8")
    found = bitwright("bench", artifact, *options, "--json").json
    assert [run["threads"] for run in found["runs"]] == [1, 2]
    assert all(run["prefill_tokens_per_s"] > 0 and run["decode_fraction_of_bandwidth"] > 0 for run in found["runs"])
    assert {"cpu", "cores", "isa"} <= set(found["machine"]) and found["ceilings"]["read_gb_per_s"]["1"] > 0
    assert [decode["depth"] for decode in found["runs"][0]["decodes"]] == [16, 24]
    assert found["runs"][0]["joules_per_token"] > 0 and found["runs"][0]["energy_source"] in ("RAPL", "estimate")
    text = bitwright("bench", artifact, *options[:4]).out
    assert "decode tok/s" in text and "ceilings: reading" in text


def test_version(bitwright: Command) -> None:
    outcome = bitwright("--version")
    assert outcome.code == 0 and outcome.out.startswith("bitwright ")


def test_findings_are_warnings_or_refused(bitwright: Command, tmp_path: Path) -> None:
    changed, name = tensors(), "model.layers.1.mlp.up_proj.weight"
    changed[name][5] = 0
    model, out = write_model(tmp_path / "model", changed), tmp_path / "out"
    expected = [{"tensor": name, "kind": "dead", "message": "1 of 128 rows are all zero: 5"}]
    refused = bitwright("quantize", model, "-o", out, "--strict", "--json")
    assert refused.code == 1 and refused.json == {"findings": expected}
    assert refused.err.splitlines()[0] == f"warning: {name}: 1 of 128 rows are all zero: 5"
    assert "error: 1 finding" in refused.err and [path.name for path in tmp_path.iterdir()] == ["model"]
    warned = bitwright("quantize", model, "-o", out, "--json")
    assert warned.code == 0 and warned.json["findings"] == expected and "warning: " in warned.err and out.is_dir()


def test_a_sound_model_passes_strictly(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    for scheme in ("int4-g64", "int8-channel"):
        done = bitwright("quantize", model_directory, "-o", tmp_path / scheme, "--scheme", scheme, "--strict", "--json")
        assert done.code == 0 and done.json["findings"] == [] and done.err == ""
