"""Configs of published models and of nobody: read as transformers reads them, or refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.errors import BitwrightError, ModelConfigError, UnknownFamilyError
from bitwright.models.families import FAMILIES, family_of, read_architecture

PUBLISHED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("published_configs.json").read_text("utf-8"))
PLAIN = PUBLISHED["Llama-3.2-1B"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_read_as_transformers_reads_them(name: str) -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    config = PUBLISHED[name]
    theirs = transformers.AutoConfig.for_model(**json.loads(json.dumps(config))).get_text_config()
    ours = read_architecture(config)
    assert ours.family == family_of(config).name
    width = getattr(theirs, "moe_intermediate_size", theirs.intermediate_size)
    assert (ours.hidden_size, ours.intermediate_size) == (theirs.hidden_size, width)
    assert ours.experts == getattr(theirs, "num_experts", 0)
    assert ours.experts_per_token == getattr(theirs, "num_experts_per_tok", 0)
    assert ours.normalized_routing == getattr(theirs, "norm_topk_prob", ours.family == "mixtral")
    assert (ours.layers, ours.heads, ours.kv_heads) == (
        theirs.num_hidden_layers,
        theirs.num_attention_heads,
        theirs.num_key_value_heads,
    )
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads)
    assert (ours.vocab_size, ours.context_length) == (theirs.vocab_size, theirs.max_position_embeddings)
    assert (ours.tied_head, ours.norm_epsilon) == (theirs.tie_word_embeddings, theirs.rms_norm_eps)
    scalar = getattr(theirs, "query_pre_attn_scalar", ours.head_dim)
    assert ours.attention_scale == pytest.approx(1 / math.sqrt(scalar))
    assert ours.logit_softcap == (getattr(theirs, "final_logit_softcapping", None) or 0)
    window = getattr(theirs, "sliding_window", None) or 0
    windowed = [kind == "sliding_attention" for kind in getattr(theirs, "layer_types", None) or []] or [window > 0] * ours.layers
    assert ours.window_of_layer == tuple(window if limited else 0 for limited in windowed)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_ropes_are_those_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    theirs = transformers.AutoConfig.for_model(**json.loads(json.dumps(PUBLISHED[name]))).get_text_config().rope_parameters
    expected = [theirs["full_attention"], theirs["sliding_attention"]] if "full_attention" in theirs else [theirs]
    ours = read_architecture(PUBLISHED[name])
    assert [rope.theta for rope in ours.ropes] == [rope["rope_theta"] for rope in expected]
    assert [rope.scaling.get("rope_type", "default") for rope in ours.ropes] == [rope["rope_type"] for rope in expected]
    assert [rope.dim for rope in ours.ropes] == [int(ours.head_dim * rope.get("partial_rotary_factor", 1)) for rope in expected]
    for rope, reference in zip(ours.ropes, expected, strict=True):
        assert {key: reference[key] for key in rope.scaling if key in reference} == {
            key: value for key, value in rope.scaling.items() if key in reference
        }


def test_old_and_new_spellings_agree() -> None:
    old = PUBLISHED["gemma-3-4b"]["text_config"] | {"architectures": ["Gemma3ForCausalLM"]}
    new = {key: value for key, value in old.items() if key != "rope_scaling"} | {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        "layer_types": ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(34)],
    }
    assert read_architecture(old) == read_architecture(new)
    old = PLAIN
    scaling = {"rope_parameters": PLAIN["rope_scaling"] | {"rope_theta": PLAIN["rope_theta"]}}
    new = {key: value for key, value in old.items() if key not in ("rope_scaling", "rope_theta")} | scaling
    assert read_architecture(old) == read_architecture(new)


@pytest.mark.parametrize("spelling", ["su", "yarn"])
def test_early_spellings_of_longrope(spelling: str) -> None:
    config = PUBLISHED["Phi-3 with longrope"]
    early = config | {"rope_scaling": config["rope_scaling"] | {"type": spelling}}
    assert read_architecture(early) == read_architecture(config)


def test_windowed_qwen_layers_without_layer_types() -> None:
    architecture = read_architecture(PUBLISHED["Qwen2.5-7B with YaRN"])
    assert architecture.window_of_layer == (0,) * 20 + (131072,) * 8


def test_every_family_names_itself() -> None:
    for name, family in FAMILIES.items():
        assert family.name == name
        for architecture in family.architectures:
            assert family_of({"architectures": [architecture]}) is family
        for model_type in family.model_types:
            assert family_of({"model_type": model_type}) is family


@pytest.mark.parametrize("config", [{"architectures": ["BloomForCausalLM"], "model_type": "llama"}, {"model_type": "bloom"}])
def test_unknown_family_is_named_with_the_known_ones(config: dict[str, Any]) -> None:
    with pytest.raises(UnknownFamilyError, match=r"(?i)bloom.*known: LlamaForCausalLM.*Phi3ForCausalLM"):
        read_architecture(config)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no family": ({"architectures": [], "model_type": None}, "neither"),
    "architectures no list": ({"architectures": "LlamaForCausalLM"}, "list of strings"),
    "missing size": ({"hidden_size": None}, "lacks 'hidden_size'"),
    "zero": ({"num_hidden_layers": 0}, "whole number"),
    "negative": ({"num_attention_heads": -4}, "whole number"),
    "true for 1": ({"num_hidden_layers": True}, "whole number"),
    "text": ({"vocab_size": "128256"}, "whole number"),
    "float": ({"hidden_size": 2048.0}, "whole number"),
    "enormous": ({"intermediate_size": 10**30}, "whole number"),
    "heads": ({"num_key_value_heads": 3}, "cannot share"),
    "head_dim": ({"head_dim": None, "hidden_size": 2050}, "state 'head_dim'"),
    "odd head_dim": ({"head_dim": 63}, "pairs"),
    "activation": ({"hidden_act": "relu"}, "unknown hidden_act 'relu'; known: silu"),
    "activation no text": ({"hidden_act": ["silu"]}, "unknown hidden_act"),
    "epsilon": ({"rms_norm_eps": 0}, "above 0"),
    "epsilon infinite": ({"rms_norm_eps": math.inf}, "above 0"),
    "epsilon nan": ({"rms_norm_eps": math.nan}, "above 0"),
    "theta": ({"rope_theta": "10000"}, "above 0"),
    "tied": ({"tie_word_embeddings": "yes"}, "true or false"),
    "partial": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "rope no object": ({"rope_scaling": "linear"}, "must be an object"),
    "rope kind": ({"rope_scaling": {"type": "magic", "factor": 2}}, "unknown rope scaling 'magic'; known: default"),
    "rope factor": ({"rope_scaling": {"type": "linear"}}, "'factor' must be a number"),
    "rope factor enormous": ({"rope_scaling": {"type": "linear", "factor": 10**400}}, "'factor' must be a number"),
    "rope nested": ({"rope_scaling": None, "rope_parameters": {"full_attention": {}}}, "one rope for all layers"),
    "quantized": ({"quantization_config": {"bits": 4}}, "quantized already.*original weights"),
    "experts": ({"num_local_experts": 8}, "llama with a mixture of experts is not supported"),
    "mlp bias": ({"mlp_bias": True}, "biases in the MLP"),
    "both ways": ({"use_bidirectional_attention": True}, "attends both ways"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_configs_are_refused_in_one_line(fault: str) -> None:
    changes, message = BROKEN[fault]
    with pytest.raises(ModelConfigError, match=message) as caught:
        read_architecture(PLAIN | changes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gemma-2-2b", {"sliding_window": None}, "lacks 'sliding_window'"),
        ("Qwen3-30B-A3B", {"num_experts": None}, "lacks 'num_experts'"),
        ("Qwen3-30B-A3B", {"num_experts": 1 << 40}, "'num_experts' must be a whole number"),
        ("Qwen3-30B-A3B", {"num_local_experts": 64}, "one number in two spellings"),
        ("Qwen3-30B-A3B", {"num_experts_per_tok": 100, "num_experts": 99}, "100 of 99 experts"),
        ("Qwen3-30B-A3B", {"num_experts_per_tok": 129, "num_experts": 256}, "'num_experts_per_tok' must be a whole number"),
        ("Qwen3-30B-A3B", {"norm_topk_prob": 1}, "true or false"),
        ("Qwen3-30B-A3B", {"mlp_only_layers": [0]}, "layers without experts"),
        ("Qwen3-30B-A3B", {"decoder_sparse_step": 2}, "layers without experts"),
        ("Qwen3-30B-A3B", {"use_sliding_window": True}, "sliding windows are not supported in qwen3_moe"),
        ("Mixtral-8x7B-v0.1", {"n_routed_experts": "8", "num_local_experts": None}, "lacks 'num_experts'"),
        ("gemma-2-2b", {"layer_types": ["full_attention"]}, "'layer_types' must name"),
        ("gemma-2-2b", {"layer_types": ["linear_attention"] * 26}, "'layer_types' must name"),
        ("gemma-3-1b", {"rope_parameters": {"rope_type": "linear", "factor": 8}}, "one object per layer type"),
        ("Qwen3-0.6B", {"layer_types": ["sliding_attention"] * 28}, "not in use"),
        ("Phi-3 with longrope", {"partial_rotary_factor": 1.0}, "list of 16 numbers"),
        ("gemma-3-4b", {"text_config": [1]}, "'text_config' must be an object"),
    ],
)
def test_faults_of_one_family(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        read_architecture(PUBLISHED[name] | changes)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_any_value_in_any_field_is_read_or_refused(data: st.DataObject) -> None:
    config = dict(data.draw(st.sampled_from(list(PUBLISHED.values()))))
    field = data.draw(st.sampled_from([*config, "rope_scaling", "rope_parameters", "layer_types", "text_config", "head_dim"]))
    value = config.get(field)
    if isinstance(value, dict) and value:
        inner = data.draw(st.sampled_from(list(value)))
        config[field] = value | {inner: data.draw(ANYTHING)}
    else:
        config[field] = data.draw(ANYTHING)
    try:
        read_architecture(config)
    except BitwrightError as fault:
        assert "\n" not in str(fault)
