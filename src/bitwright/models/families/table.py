"""The table of families. A family listed here is tested by tests/models, and read by HF directories and GGUF files alike.

Sources: the config.json files and modelling code published with each model; reports arXiv:2302.13971 (Llama), 2310.06825
(Mistral), 2407.10671 (Qwen2), 2505.09388 (Qwen3), 2408.00118 (Gemma 2), 2503.19786 (Gemma 3), 2404.14219 (Phi-3),
2401.04088 (Mixtral).
"""

from __future__ import annotations

from bitwright.models.families.family import Family

_LAYER = "model.layers.{layer}."

_COMMON = {
    "embedding": "model.embed_tokens.weight",
    "head": "lm_head.weight",
    "final_norm": "model.norm.weight",
    "attention_norm": _LAYER + "input_layernorm.weight",
    "o": _LAYER + "self_attn.o_proj.weight",
    "o_bias": _LAYER + "self_attn.o_proj.bias",
    "down": _LAYER + "mlp.down_proj.weight",
}
_SEPARATE = {
    "q": _LAYER + "self_attn.q_proj.weight",
    "k": _LAYER + "self_attn.k_proj.weight",
    "v": _LAYER + "self_attn.v_proj.weight",
    "q_bias": _LAYER + "self_attn.q_proj.bias",
    "k_bias": _LAYER + "self_attn.k_proj.bias",
    "v_bias": _LAYER + "self_attn.v_proj.bias",
    "gate": _LAYER + "mlp.gate_proj.weight",
    "up": _LAYER + "mlp.up_proj.weight",
}
_EXPERTS = {
    "gate": _LAYER + "mlp.experts.{expert}.gate_proj.weight",
    "up": _LAYER + "mlp.experts.{expert}.up_proj.weight",
    "down": _LAYER + "mlp.experts.{expert}.down_proj.weight",
    "router": _LAYER + "mlp.gate.weight",
}
_MIXTRAL_EXPERTS = {
    "gate": _LAYER + "block_sparse_moe.experts.{expert}.w1.weight",
    "up": _LAYER + "block_sparse_moe.experts.{expert}.w3.weight",
    "down": _LAYER + "block_sparse_moe.experts.{expert}.w2.weight",
    "router": _LAYER + "block_sparse_moe.gate.weight",
}
_QK_NORMS = {"q_norm": _LAYER + "self_attn.q_norm.weight", "k_norm": _LAYER + "self_attn.k_norm.weight"}
# Hugging Face gives one name to two things: in Llama the norm before the MLP is called what it follows, in Gemma
# the same name is a norm on the attention's output, and the one before the MLP has a name of its own.
_PRE_NORM = {"mlp_norm": _LAYER + "post_attention_layernorm.weight"}
_SANDWICH_NORMS = {
    "post_attention_norm": _LAYER + "post_attention_layernorm.weight",
    "mlp_norm": _LAYER + "pre_feedforward_layernorm.weight",
    "post_mlp_norm": _LAYER + "post_feedforward_layernorm.weight",
}

_LLAMA_TENSORS = _COMMON | _SEPARATE | _PRE_NORM
_GEMMA_DEFAULTS = {
    "head_dim": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
_QWEN_DEFAULTS = {"max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="llama",  # SmolLM2, TinyLlama, Yi and many more are of this family, too
            architectures=("LlamaForCausalLM",),
            model_types=("llama",),
            gguf="llama",
            tensors=_LLAMA_TENSORS,
            defaults={},
        ),
        Family(
            name="mistral",
            architectures=("MistralForCausalLM",),
            model_types=("mistral",),
            gguf="llama",
            tensors=_LLAMA_TENSORS,
            defaults={"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
            windows="all",
        ),
        Family(
            name="qwen2",
            architectures=("Qwen2ForCausalLM",),
            model_types=("qwen2",),
            gguf="qwen2",
            tensors=_LLAMA_TENSORS,
            defaults=_QWEN_DEFAULTS,
            biases=("q_bias", "k_bias", "v_bias"),
            windows="upper",
        ),
        Family(
            name="qwen3",
            architectures=("Qwen3ForCausalLM",),
            model_types=("qwen3",),
            gguf="qwen3",
            tensors=_LLAMA_TENSORS | _QK_NORMS,
            defaults=_QWEN_DEFAULTS | {"head_dim": 128},
            windows="upper",
            qk_norm=True,
        ),
        Family(
            name="gemma2",
            architectures=("Gemma2ForCausalLM",),
            model_types=("gemma2",),
            gguf="gemma2",
            tensors=_COMMON | _SEPARATE | _SANDWICH_NORMS,
            defaults=_GEMMA_DEFAULTS
            | {
                "max_position_embeddings": 8192,
                "sliding_window_pattern": 2,
                "final_logit_softcapping": 30.0,
                "attn_logit_softcapping": 50.0,
            },
            windows="interleaved",
            activation_field="hidden_activation",
            norm_offset=1.0,
            post_norms=True,
            scaled_embedding=True,
            query_scalar=True,
            attention_softcap=True,
            logit_softcap=True,
        ),
        Family(
            name="gemma3",  # the text half; of Gemma3ForConditionalGeneration the vision half is left out
            architectures=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
            model_types=("gemma3_text", "gemma3"),
            gguf="gemma3",
            tensors=_COMMON | _SEPARATE | _SANDWICH_NORMS | _QK_NORMS,
            defaults=_GEMMA_DEFAULTS
            | {
                "vocab_size": 262208,
                "max_position_embeddings": 131072,
                "sliding_window_pattern": 6,
                "final_logit_softcapping": None,
                "rope_theta": 1e6,
                "rope_local_base_freq": 1e4,
            },
            windows="interleaved",
            activation_field="hidden_activation",
            norm_offset=1.0,
            qk_norm=True,
            post_norms=True,
            scaled_embedding=True,
            query_scalar=True,
            logit_softcap=True,
            rope_by_layer_type=True,
        ),
        Family(
            name="phi3",
            architectures=("Phi3ForCausalLM",),
            model_types=("phi3",),
            gguf="phi3",
            tensors=_COMMON | _PRE_NORM,
            fused={
                _LAYER + "self_attn.qkv_proj.weight": ("q", "k", "v"),
                _LAYER + "mlp.gate_up_proj.weight": ("gate", "up"),
            },
            defaults={
                "max_position_embeddings": 4096,
                "original_max_position_embeddings": 4096,
                "rms_norm_eps": 1e-5,
                "sliding_window": None,
            },
            windows="all",
            partial_rotary=True,
        ),
        Family(
            name="mixtral",
            architectures=("MixtralForCausalLM",),
            model_types=("mixtral",),
            gguf="llama",
            tensors=_LLAMA_TENSORS | _MIXTRAL_EXPERTS,
            defaults={
                "max_position_embeddings": 131072,
                "num_experts_per_tok": 2,
                "num_key_value_heads": 8,
                "rms_norm_eps": 1e-5,
                "rope_theta": 1e6,
            },
            windows="all",
            mixture=True,
            normalized_routing=True,
        ),
        Family(
            name="qwen3_moe",
            architectures=("Qwen3MoeForCausalLM",),
            model_types=("qwen3_moe",),
            gguf="qwen3moe",
            tensors=_LLAMA_TENSORS | _QK_NORMS | _EXPERTS,
            defaults={"max_position_embeddings": 32768, "num_experts_per_tok": 8},
            qk_norm=True,
            mixture=True,
            width_field="moe_intermediate_size",
        ),
    )
}

# What a missing field means in every family that does not say otherwise.
DEFAULTS = {
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "sliding_window": None,
    "tie_word_embeddings": False,
}
