"""Tiny models of every family, made on the spot with random weights, and what transformers says about them.

    FAMILY_CASES                        names of all cases: every family, each rope scaling, tied and untied heads
    make_tiny(case, directory) -> Path  writes a Hugging Face directory (config.json, model.safetensors, tokenizer)
    make_tokenizer(directory) -> Path   writes only the tokenizer: byte-level BPE of VOCABULARY tokens, a chat template,
                                        <|start|> before every text, <|end|> after every message
    tokens(n) -> list[int]              n fixed random tokens
    reference_logits(directory, ids)    (n, vocabulary) float32 by transformers, eager attention, fp32

Hidden size 64, MLP 128, 4 query and 2 key-value heads, 2 to 6 layers, vocabulary 320, weights fp32: all rows divide by 64.
Windows are of 16 tokens and rope scalings stretch 32 trained positions, so that 40 tokens and more reach everything.
Making a case needs torch and transformers; importing this file does not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

VOCABULARY = 320
WINDOW = 16
TRAINED = 32  # positions before a rope scaling stretches them

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "dtype": "float32",
}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.05 * i for i in range(8)],
    "long_factor": [1.5 + 0.5 * i for i in range(8)],
}


def _rope(**parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10000.0} | parameters}


_QWEN3_MOE = {"head_dim": 32, "moe_intermediate_size": 64, "num_experts": 6, "num_experts_per_tok": 3}

# case -> (config class, what it sets beside _SIZES)
_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _rope(rope_type="default")),
    "llama-bias": ("LlamaConfig", {"attention_bias": True, "num_key_value_heads": 4}),
    "llama-linear": ("LlamaConfig", _rope(rope_type="linear", factor=4.0)),
    "llama-dynamic": ("LlamaConfig", _rope(rope_type="dynamic", factor=4.0) | {"max_position_embeddings": TRAINED}),
    "llama-llama3": ("LlamaConfig", _rope(**_LLAMA3, original_max_position_embeddings=TRAINED)),
    "llama-yarn": ("LlamaConfig", _rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=TRAINED)),
    "smollm2": ("LlamaConfig", {"tie_word_embeddings": True, "num_attention_heads": 8, "num_key_value_heads": 2}),
    "mistral": ("MistralConfig", {"sliding_window": WINDOW, "head_dim": 32}),
    "mistral-full": ("MistralConfig", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2-window": ("Qwen2Config", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen3": ("Qwen3Config", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3-yarn": (
        "Qwen3Config",
        {"head_dim": 32} | _rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=TRAINED),
    ),
    "gemma2": ("Gemma2Config", {"head_dim": 32, "num_hidden_layers": 4, "query_pre_attn_scalar": 24, "sliding_window": WINDOW}),
    "gemma3": (
        "Gemma3TextConfig",
        {"head_dim": 32, "num_hidden_layers": 6, "query_pre_attn_scalar": 24, "sliding_window": WINDOW},
    ),
    "gemma3-linear": (
        "Gemma3TextConfig",
        {
            "head_dim": 32,
            "num_hidden_layers": 3,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "gemma3-vision": ("Gemma3Config", {"head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 6}),
    "phi3": ("Phi3Config", {"sliding_window": WINDOW}),
    "phi3-longrope": ("Phi3Config", {"original_max_position_embeddings": TRAINED} | _rope(**_LONGROPE)),
    "phi3-partial": ("Phi3Config", {"tie_word_embeddings": True, "partial_rotary_factor": 0.75}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW}),
    "qwen3-moe": ("Qwen3MoeConfig", _QWEN3_MOE | {"norm_topk_prob": True}),
    "qwen3-moe-unnormalized": ("Qwen3MoeConfig", _QWEN3_MOE | {"norm_topk_prob": False, "tie_word_embeddings": True}),
}
FAMILY_CASES = list(_CASES)

_TEXT = """The quick brown fox jumps over the lazy dog. A model reads words and guesses the next one, and the next one after that.
Numbers such as 12, 345 and 6789 are words too; so are names, places and the small signs between them."""
_SPECIAL = ["<|start|>", "<|end|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tiny(case: str, directory: str | Path) -> Path:
    """Write the case's model and tokenizer into `directory`, which is made where missing. The same every time."""
    import transformers

    name, changes = _CASES[case]
    sizes = _SIZES | changes
    if name == "Gemma3Config":
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
        config = transformers.Gemma3Config(text_config=sizes, vision_config=vision, mm_tokens_per_image=4)
        model = transformers.Gemma3ForConditionalGeneration(config)
    else:
        model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**sizes))
    _randomize(model)
    model.save_pretrained(directory)
    return make_tokenizer(directory)


def make_tokenizer(directory: str | Path) -> Path:
    """Write tokenizer.json and tokenizer_config.json into `directory`, which is made where missing."""
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([_TEXT], trainer)
    start = (_SPECIAL[0], backend.token_to_id(_SPECIAL[0]))
    backend.post_processor = tokenizers.processors.TemplateProcessing(f"{start[0]} $A", None, [start])
    Path(directory).mkdir(parents=True, exist_ok=True)
    backend.save(str(Path(directory) / "tokenizer.json"))
    settings = {"bos_token": "<|start|>", "eos_token": "<|end|>", "chat_template": CHAT_TEMPLATE}
    (Path(directory) / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return Path(directory)


def tokens(n: int) -> list[int]:
    """N random tokens, the same every time; a shorter list is the beginning of a longer one."""
    return [int(token) for token in np.random.default_rng(7).integers(0, VOCABULARY, n)]


def reference_logits(directory: str | Path, ids: list[int]) -> npt.NDArray[np.float32]:
    """(n, vocabulary): what transformers computes after each of `ids`."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(directory)
    kind = transformers.AutoModelForCausalLM if config.model_type != "gemma3" else transformers.Gemma3ForConditionalGeneration
    model = kind.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
    return logits


def _randomize(model: Any) -> None:
    """Weights that keep activations near 1 and leave nothing at its neutral value: norm gains and biases vary, too."""
    import torch

    generator = torch.Generator().manual_seed(20240607)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.3 * noise + (parameter.mean().round() if "norm" in name else 0))
            else:
                embedding = "embed_tokens" in name
                parameter.copy_(noise * (0.3 if embedding else 1.2 / parameter.shape[1] ** 0.5))
