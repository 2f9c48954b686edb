"""One engine in a process of its own, asked over pipes: peers are timed in turns by the same code, each with its own memory.

Requests and answers are one line of JSON each. `Worker` asks, `serve` answers; an engine is any object with `Session`'s face.

    load      model, threads, context, activations   -> seconds, weight_bytes (that a token reads; null if unknown)
    prefill   tokens                                 -> seconds
    decode    prompt, steps                          -> seconds for all steps (greedy: each token is the last one's best)
    reference tokens, path                           -> writes the log-probabilities at all positions to a .npy file
    compare   tokens, reference                      -> the fields of analysis/scores.py by position, against such a file
    quantize  source, target, kind                   -> seconds, and what else the peer says of it
    memory                                           -> peak_rss_bytes

An engine may have verbs of its own: bitwright_worker.py has.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Tokens = Sequence[int]


class Session(Protocol):
    """A loaded model."""

    def prefill(self, tokens: Tokens) -> Floats: ...  # (vocabulary,)

    def decode(self, token: int) -> Floats: ...  # (vocabulary,)

    def logits(self, tokens: Tokens) -> Floats: ...  # (tokens, vocabulary)


Load = Callable[[str, int, int, str], Any]
Quantize = Callable[[str, str, str], dict[str, Any] | None]
Verb = Callable[..., dict[str, Any]]


class Worker:
    """The asking side. A context manager: leaving it ends the process. `log` takes what the engine prints, stderr by default."""

    def __init__(self, python: Path, script: str, variables: Mapping[str, str] | None = None, log: Any = None) -> None:
        command = [str(python), str(Path(__file__).parent / script)]
        environment = dict(os.environ) | dict(variables or {})
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment)
        self.name = str(self._answer()["ready"])

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request. Raises RuntimeError where the process died."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do} | request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def bitwright_worker(isa: str = "") -> Worker:
    """`isa` forces an instruction set."""
    return Worker(Path(sys.executable), "bitwright_worker.py", {"BITWRIGHT_ISA": isa} if isa else None)


def llama_cpp_worker(build: str = "native") -> Worker:
    """`build` is one of llama_cpp_build.py's, or `best`: the one that is fastest here."""
    from llama_cpp_build import best, interpreter

    return Worker(interpreter(best() if build == "best" else build), "llama_cpp_worker.py")


def openvino_worker() -> Worker:
    from peers import openvino_interpreter

    return Worker(openvino_interpreter(), "openvino_worker.py")


def onnxruntime_worker() -> Worker:
    from peers import onnxruntime_interpreter

    return Worker(onnxruntime_interpreter(), "onnxruntime_worker.py")


def serve(load: Load, quantize: Quantize, name: str, verbs: Mapping[str, Verb] | None = None) -> None:
    """Answer requests from stdin until it ends. Whatever the engine prints goes to stderr.

    `verbs` are an engine's own, in place of those for `Session`'s face.
    """
    answers, sys.stdout = sys.stdout, sys.stderr
    known = VERBS if verbs is None else verbs
    session: Any = None
    print(json.dumps({"ready": name}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        begin = time.perf_counter()
        answer: dict[str, Any] = {}
        if do == "load":
            session = None  # the old one goes first
            session = load(request["model"], request["threads"], request["context"], request["activations"])
            answer = {"weight_bytes": getattr(session, "weight_bytes", None)}
        elif do == "quantize":
            answer = quantize(request["source"], request["target"], request["kind"]) or {}
        elif do != "memory":
            answer = known[do](session, **request)
        answer.setdefault("seconds", time.perf_counter() - begin)
        answer["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(answer), file=answers, flush=True)


def prefill(session: Session, tokens: Tokens) -> dict[str, Any]:
    begin = time.perf_counter()
    session.prefill(tokens).argmax()
    return {"seconds": time.perf_counter() - begin}


def decode(session: Session, prompt: Tokens, steps: int) -> dict[str, Any]:
    token = int(session.prefill(prompt).argmax())
    begin = time.perf_counter()
    for _ in range(steps):
        token = int(session.decode(token).argmax())
    return {"seconds": time.perf_counter() - begin}


def reference(session: Session, tokens: Tokens, path: str) -> dict[str, Any]:
    np.save(path, np.array([_log_softmax(row) for row in session.logits(tokens)], np.float32))
    return {}


def compare(session: Session, tokens: Tokens, reference: str) -> dict[str, Any]:
    """Scores of positions 1.. of a window: what each model said of token t after those before it."""
    expected, found = np.load(reference, mmap_mode="r"), session.logits(tokens)
    scores = [_score(np.array(expected[t]), np.array(found[t]), tokens[t + 1]) for t in range(len(tokens) - 1)]
    return {name: [score[name] for score in scores] for name in scores[0]}


def _score(p: Floats, logits: Floats, target: int) -> dict[str, float]:
    q = _log_softmax(logits)
    kl = float(np.dot(np.exp(p.astype(np.float64)), p - q))
    p_best, q_best = int(p.argmax()), int(q.argmax())
    return {
        "kl": kl,
        "nll": -float(q[target]),
        "nll_reference": -float(p[target]),
        "confidence_reference": float(np.exp(p[p_best])),
        "agree": p_best == q_best,
        "right": q_best == target,
        "right_reference": p_best == target,
    }


def _log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


VERBS: dict[str, Verb] = {
    "prefill": prefill,
    "decode": decode,
    "reference": reference,
    "compare": compare,
}
