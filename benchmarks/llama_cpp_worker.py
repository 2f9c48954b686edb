"""llama.cpp behind the protocol of `worker.py`. Run by the interpreter that llama_cpp_build.py builds.

Calls the C functions directly, so that nothing of llama-cpp-python's own Python is timed: a step is llama_decode and a
look at the logits, as it is for the other engine.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp as api
import numpy as np
import numpy.typing as npt

from worker import Floats, Tokens, serve

TYPES = {
    name.removeprefix("LLAMA_FTYPE_MOSTLY_"): value for name, value in vars(api).items() if name.startswith("LLAMA_FTYPE_MOSTLY_")
}


@api.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(level: int, text: bytes, data: object) -> None:
    """llama.cpp reports every tensor it loads."""


class LlamaCpp:
    """One loaded GGUF with one context. All sizes are tokens. `look`, a C callback, is shown each step of the computation."""

    def __init__(self, path: str, threads: int, context: int, look: Any = None) -> None:
        self.model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
        settings = api.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = context
        settings.n_threads = settings.n_threads_batch = threads
        if look is not None:
            settings.cb_eval = look
        self.context = api.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))

    def prefill(self, tokens: Tokens) -> Floats:
        """Logits of the last token, on an empty cache."""
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        return self._step((ctypes.c_int32 * len(tokens))(*tokens))

    def decode(self, token: int) -> Floats:
        return self._step((ctypes.c_int32 * 1)(token))

    def logits(self, tokens: Tokens) -> Floats:
        """(tokens, vocabulary), on an empty cache."""
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        batch = api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for position, token in enumerate(tokens):
            batch.token[position], batch.pos[position] = token, position
            batch.n_seq_id[position], batch.seq_id[position][0], batch.logits[position] = 1, 0, True
        self._run(batch)
        api.llama_batch_free(batch)
        return np.ctypeslib.as_array(api.llama_get_logits(self.context), (len(tokens), self.vocabulary))

    def _step(self, tokens: ctypes.Array[ctypes.c_int32]) -> npt.NDArray[np.float32]:
        self._run(api.llama_batch_get_one(tokens, len(tokens)))
        return np.ctypeslib.as_array(api.llama_get_logits_ith(self.context, -1), (self.vocabulary,))

    def _run(self, batch: api.llama_batch) -> None:
        code = api.llama_decode(self.context, batch)
        if code:
            raise SystemExit(f"llama_decode failed with code {code}")


def quantize(source: str, target: str, kind: str) -> None:
    """llama.cpp's own quantizer at its defaults: `source` f16 GGUF to `target` of a type such as Q4_0."""
    settings = api.llama_model_quantize_default_params()
    settings.ftype = TYPES[kind]
    if api.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings)):
        raise SystemExit(f"llama.cpp cannot quantize {source} to {kind}")


def silence() -> None:
    """Starts llama.cpp, without its log."""
    api.llama_log_set(_silent, ctypes.c_void_p(0))
    api.llama_backend_init()


if __name__ == "__main__":
    silence()
    serve(lambda model, threads, context, _: LlamaCpp(model, threads, context), quantize, api.llama_print_system_info().decode())
