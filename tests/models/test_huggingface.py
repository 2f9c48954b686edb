"""Hugging Face directories: single files and shards, every stored type, names of models that see images, and every fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tiny
from bitwright.artifact.safetensors_file import SafetensorsFile, SafetensorsWriter
from bitwright.engine.reference import forward
from bitwright.errors import (
    MissingTensorError,
    ModelConfigError,
    ModelNotFoundError,
    ShapeError,
    TensorFileError,
    TokenizerError,
    TruncatedFileError,
    UnknownDtypeError,
    UnknownFamilyError,
)
from bitwright.models import load
from bitwright.models.families import read_architecture
from bitwright.models.huggingface import INDEX, SINGLE, HuggingFaceModel, download, is_hub_id

Tensors = dict[str, npt.NDArray[Any]]
CODES = {"float32": "F32", "float16": "F16", "uint16": "BF16", "float64": "F64"}


def read_tensors(directory: Path) -> Tensors:
    file = SafetensorsFile(directory / SINGLE)
    return {name: np.array(file.view(name)) for name in file.names()}


def write_tensors(path: Path, tensors: Tensors) -> None:
    path.unlink(missing_ok=True)
    with SafetensorsWriter(path, {name: (CODES[str(x.dtype)], x.shape) for name, x in tensors.items()}) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def shard(directory: Path) -> dict[str, str]:
    """Split the single file in two, and return the weight map that was written."""
    tensors = read_tensors(directory)
    (directory / SINGLE).unlink()
    names = sorted(tensors)
    halves = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, members in halves.items():
        write_tensors(directory / file, {name: tensors[name] for name in members})
    weight_map = {name: file for file, members in halves.items() for name in members}
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), "utf-8")
    return weight_map


@pytest.fixture
def copy_of(tiny_directory: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Case -> a copy that the test may change."""
    return lambda case: Path(shutil.copytree(tiny_directory(case), tmp_path / case))


def test_a_model_presents_its_tensors_in_the_order_of_the_layers(tiny_directory: Callable[[str], Path]) -> None:
    model = HuggingFaceModel(tiny_directory("llama"))
    names = model.names()
    assert (names[0], names[-2], names[-1]) == ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    assert [name for name in names if ".0." in name] == [name.replace(".1.", ".0.") for name in names if ".1." in name]
    q = "model.layers.0.self_attn.q_proj.weight"
    stored = model.stored(q)
    assert (model.shape(q), model.scheme_of(q), model.stored_bits(q)) == ((64, 64), "fp32", 64 * 64 * 32)
    assert not stored.values.flags.writeable and stored.values.base is not None
    assert model.read(q).dtype == np.float32
    assert read_architecture(model.config()) == model.architecture
    assert model.tokenizer().vocab_size == tiny.VOCABULARY


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precisions_are_read_exactly(dtype: str, copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("llama")
    tensors = read_tensors(directory)
    if dtype == "float16":
        halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
        expected = {name: half.astype(np.float32) for name, half in halves.items()}
    else:
        halves = {name: (tensor.view(np.uint32) >> 16).astype(np.uint16) for name, tensor in tensors.items()}
        expected = {name: (half.astype(np.uint32) << 16).view(np.float32) for name, half in halves.items()}
    write_tensors(directory / SINGLE, halves)
    model = HuggingFaceModel(directory)
    for name in model.names():
        np.testing.assert_array_equal(model.read(name), expected[name])
        assert model.scheme_of(name) == {"float16": "fp16", "bfloat16": "bf16"}[dtype]
        assert model.stored_bits(name) == 16 * expected[name].size


def test_shards_are_one_model(copy_of: Callable[[str], Path], tiny_directory: Callable[[str], Path]) -> None:
    directory = copy_of("qwen3")
    shard(directory)
    whole = HuggingFaceModel(tiny_directory("qwen3"))
    model = HuggingFaceModel(directory)
    assert model.names() == whole.names()
    assert all(np.array_equal(model.read(name), whole.read(name)) for name in whole.names())


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_the_text_half_of_a_model_that_sees_images(prefix: str, copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("gemma3-vision")
    expected = forward(HuggingFaceModel(directory), tiny.tokens(24))
    tensors = read_tensors(directory)
    old = (
        "language_model.model." if any(name.startswith("language_model.model.") for name in tensors) else "model.language_model."
    )
    write_tensors(directory / SINGLE, {prefix + n.removeprefix(old) if n.startswith(old) else n: x for n, x in tensors.items()})
    model = HuggingFaceModel(directory)
    assert all(name.startswith("model.layers.") for name in model.names()[1:-1])
    assert model.config()["architectures"] == ["Gemma3ForCausalLM"]
    assert read_architecture(model.config()) == model.architecture
    np.testing.assert_array_equal(forward(model, tiny.tokens(24)), expected)


def test_names_that_become_one_are_refused(copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("llama")
    tensors = read_tensors(directory)
    write_tensors(directory / SINGLE, tensors | {"language_model.lm_head.weight": tensors["lm_head.weight"]})
    with pytest.raises(ModelConfigError, match="holds? lm_head.weight twice"):
        HuggingFaceModel(directory)


@pytest.mark.parametrize("own", [False, True])
def test_a_tied_head_that_is_stored_yet(own: bool, copy_of: Callable[[str], Path]) -> None:
    """The same numbers again are the embedding; other numbers are a head of its own, as transformers has it."""
    directory = copy_of("smollm2")
    tensors = read_tensors(directory)
    head = tensors["model.embed_tokens.weight"] + np.float32(0.01 if own else 0)
    write_tensors(directory / SINGLE, tensors | {"lm_head.weight": head})
    model = HuggingFaceModel(directory)
    assert model.architecture.tied_head is not own
    assert ("lm_head.weight" in model.names()) is own
    assert read_architecture(model.config()) == model.architecture
    ids = tiny.tokens(8)
    np.testing.assert_allclose(forward(model, ids), tiny.reference_logits(directory, ids), atol=5e-5)


def test_fingerprints_tell_models_apart_and_stay(copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("llama")
    first = HuggingFaceModel(directory).fingerprint()
    assert HuggingFaceModel(directory).fingerprint() == first
    edit_config(directory, rms_norm_eps=1e-4)
    second = HuggingFaceModel(directory).fingerprint()
    tensors = read_tensors(directory)
    write_tensors(directory / SINGLE, {name: tensor + 1 for name, tensor in tensors.items()})
    assert len({first, second, HuggingFaceModel(directory).fingerprint()}) == 3


def test_faults_of_the_directory(tmp_path: Path, copy_of: Callable[[str], Path]) -> None:
    with pytest.raises(ModelNotFoundError, match="no directory"):
        HuggingFaceModel(tmp_path / "nowhere")
    with pytest.raises(ModelConfigError, match=r"has no config.json"):
        HuggingFaceModel(tmp_path)
    directory = copy_of("llama")
    (directory / SINGLE).rename(directory / "elsewhere")
    with pytest.raises(ModelNotFoundError, match=r"neither model.safetensors nor"):
        HuggingFaceModel(directory)
    (directory / "model.gguf").touch()
    with pytest.raises(ModelConfigError, match=r"path of the .gguf file itself"):
        HuggingFaceModel(directory)
    (directory / "pytorch_model.bin").touch()
    with pytest.raises(ModelConfigError, match=r"never loaded.*convert them to safetensors"):
        HuggingFaceModel(directory)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"[" * 100_000, b'{"hidden_size": 1' + b"0" * 5000 + b"}"])
def test_unreadable_configs(content: bytes, copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("llama")
    (directory / "config.json").write_bytes(content)
    with pytest.raises(ModelConfigError, match=r"config.json"):
        HuggingFaceModel(directory)


def test_faults_of_the_tensors(copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("llama")
    tensors = read_tensors(directory)
    up = "model.layers.1.mlp.up_proj.weight"
    write_tensors(directory / SINGLE, {name: tensor for name, tensor in tensors.items() if name != up})
    with pytest.raises(MissingTensorError, match=f"tensor {up} is missing"):
        HuggingFaceModel(directory)
    write_tensors(directory / SINGLE, tensors | {up: tensors[up][:-1]})
    with pytest.raises(ShapeError, match=r"up_proj.weight has shape \[127, 64\]"):
        HuggingFaceModel(directory)
    write_tensors(directory / SINGLE, tensors | {up: tensors[up].astype(np.float64)})
    with pytest.raises(UnknownDtypeError, match=r"stored as F64; convert"):
        HuggingFaceModel(directory).read(up)
    with pytest.raises(MissingTensorError, match="no tensor nonsense"):
        HuggingFaceModel(directory).read("nonsense")
    content = (directory / SINGLE).read_bytes()
    (directory / SINGLE).write_bytes(content[:-100])
    with pytest.raises(TruncatedFileError):
        HuggingFaceModel(directory)


def test_missing_heads_and_foreign_families(copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("smollm2")
    edit_config(directory, tie_word_embeddings=False)
    with pytest.raises(MissingTensorError, match=r"lm_head.weight is missing.*tie_word_embeddings"):
        HuggingFaceModel(directory)
    edit_config(directory, architectures=["MambaForCausalLM"])
    with pytest.raises(UnknownFamilyError, match="MambaForCausalLM"):
        HuggingFaceModel(directory)


HOSTILE_SHARDS = ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "weights.bin", "", 7, None, "x\0.safetensors", ".."]


@pytest.mark.parametrize("name", HOSTILE_SHARDS)
def test_an_index_names_only_files_beside_it(name: Any, copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("llama")
    weight_map = shard(directory)
    (directory.parent / "secret.safetensors").write_bytes((directory / "model-1-of-2.safetensors").read_bytes())
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map | {"lm_head.weight": name}}), "utf-8")
    with pytest.raises(ModelConfigError, match=r"no .safetensors file beside it"):
        HuggingFaceModel(directory)


def test_faults_of_the_index(copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("llama")
    weight_map = shard(directory)
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map | {"ghost": "model-1-of-2.safetensors"}}), "utf-8")
    with pytest.raises(MissingTensorError, match="model-1-of-2.safetensors holds ghost"):
        HuggingFaceModel(directory)
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}), "utf-8")
    (directory / "model-2-of-2.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="lacks model-2-of-2.safetensors"):
        HuggingFaceModel(directory)
    for broken in ("{}", '{"weight_map": []}', "nonsense"):
        (directory / INDEX).write_text(broken, "utf-8")
        with pytest.raises(ModelConfigError, match=r"index.json"):
            HuggingFaceModel(directory)


def test_a_model_without_a_tokenizer(copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("llama")
    (directory / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"no tokenizer.json"):
        HuggingFaceModel(directory).tokenizer()


def test_load_finds_out_what_a_path_is(tiny_directory: Callable[[str], Path], tmp_path: Path) -> None:
    directory = tiny_directory("llama")
    assert isinstance(load(directory), HuggingFaceModel) and isinstance(load(str(directory)), HuggingFaceModel)
    with pytest.raises(ModelConfigError, match="give its directory"):
        load(directory / SINGLE)
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(ModelConfigError, match="no model that can be read"):
        load(tmp_path / "notes.txt")
    (tmp_path / "broken.gguf").write_bytes(b"nonsense")
    with pytest.raises(TensorFileError):
        load(tmp_path / "broken.gguf")
    for missing in (tmp_path / "nowhere", "models/nowhere.gguf", "a/b/c", "../x", "nowhere", "x" * 5000, "x\0"):
        with pytest.raises(ModelNotFoundError, match="no model at"):
            load(missing)


def test_hub_ids() -> None:
    assert is_hub_id("HuggingFaceTB/SmolLM2-135M") and is_hub_id("a/b.c_d-1")
    assert not any(is_hub_id(text) for text in ("a", "a/b/c", "../b", "a/..", "/a/b", "./b", "a/b c", "~/a", "a/b..c"))


def test_hub_models_are_loaded_from_their_snapshot(
    tiny_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub", exc_type=ImportError)
    asked: list[tuple[str, list[str]]] = []

    def snapshot(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(tiny_directory("llama"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load("some/model").path == tiny_directory("llama")
    assert asked == [("some/model", ["*.json", "*.safetensors", "*.jinja"])]


def test_the_hub_offline_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub", exc_type=ImportError)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match=r"no path nobody/nothing, and the hub .*; check name and connection") as caught:
        download("nobody/nothing")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 320
