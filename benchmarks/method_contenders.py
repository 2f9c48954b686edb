"""Who runs in methods.py: each method of each system at the three budgets, and how each peer is started."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import bitwright
import llama_cpp_build
import peers

OURS = "bitwright"
BUDGETS = (4.25, 3.25, 2.25)


@dataclass(frozen=True)
class Contender:
    """`kind` is what the worker is asked for; of ours it is a method, a scheme, and `unrotated` and `distilled` where it is that;
    `v_proj=int6-g64` and its like give matrices of one kind a scheme of their own, and `mixed4.25` each matrix its own.

    `bits` is the budget, `stored` the bits a weight that the peer's own file takes, computed from its layout; 0 where that is
    read from what was made.
    """

    system: str
    kind: str
    bits: float
    stored: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.system} {self.kind}"


@dataclass(frozen=True)
class Peer:
    """A system in an environment of its own. `script` answers `quantize` there."""

    version: str
    interpreter: Callable[[], Path]
    script: str


PEERS = {
    "llm-compressor": Peer(peers.LLM_COMPRESSOR_VERSION, peers.llm_compressor_interpreter, "llm_compressor_worker.py"),
    "gptqmodel": Peer(peers.GPTQMODEL_VERSION, peers.gptqmodel_interpreter, "gptqmodel_worker.py"),
    "auto-round": Peer(peers.AUTO_ROUND_VERSION, peers.auto_round_interpreter, "auto_round_worker.py"),
    "nncf": Peer(peers.NNCF_VERSION, peers.openvino_interpreter, "nncf_worker.py"),
    "hqq": Peer(peers.HQQ_VERSION, peers.hqq_interpreter, "hqq_worker.py"),
    "llama.cpp": Peer(llama_cpp_build.VERSION, llama_cpp_build.interpreter, "llama_cpp_methods_worker.py"),
}


def with_zero_points(bits: int, group: int, zero_bits: int) -> float:
    """Bits a weight with an fp16 scale and a zero point a group."""
    return bits + (16 + zero_bits) / group


WIDER_V = ("guided int4-g32-srow5 v_proj=int6-g64", "guided kmeans4-g96 v_proj=int6-g64")  # v takes 4 % of the body


def _ours() -> list[Contender]:
    kinds = {
        4.25: ("refine int4-g64", "guided int4-g64", "refine int4-g96-affine", "guided kmeans4-g64", *WIDER_V),
        3.25: ("refine kmeans3-g64", "guided kmeans3-g64", "refine int3-g96-affine"),
        2.25: ("refine kmeans2-g64", "guided kmeans2-g64"),
    }
    mixed = [
        (f"{method} mixed{bits}{end}", bits) for bits in kinds for method in ("gptq", "guided") for end in ("", " distilled")
    ]
    mixed += [(f"guided mixed{bits} unrotated{end}", bits) for bits in (4.25, 3.25) for end in ("", " distilled")]
    plain = [Contender(OURS, f"{kind} unrotated", bits) for bits, names in kinds.items() for kind in names]
    return plain + [Contender(OURS, kind, bits) for kind, bits in mixed]


def _llama_cpp() -> list[Contender]:
    """Files hold the types that llama.cpp chooses; where they take far more bits than the budget, no bar counts them."""
    types = {
        4.25: ("IQ4_XS imatrix", "Q4_K_M imatrix", "IQ4_XS joined", "Q4_K joined"),
        3.25: ("IQ3_S imatrix", "IQ3_S joined", "Q3_K joined"),
        2.25: ("IQ2_XS imatrix", "IQ2_XS joined", "Q2_K joined"),
    }
    return [Contender("llama.cpp", kind, bits) for bits, kinds in types.items() for kind in kinds]


def _grouped() -> list[Contender]:
    """Groups of 64 with a scale of 16 bits. `affine` ones have a zero point, of as many bits as a weight's in most files."""
    found = []
    for bits in (4, 3, 2):
        scheme, zero_points = f"int{bits}-g64-affine", with_zero_points(bits, 64, bits)
        found.append(Contender("hqq", f"int{bits}-g64", bits + 0.25, with_zero_points(bits, 64, 16)))
        for system, kind in (("llm-compressor", "gptq {}"), ("gptqmodel", "gptq {}"), ("auto-round", "{} 50 steps")):
            found.append(Contender(system, kind.format(scheme), bits + 0.25, zero_points))
    for bits in (4, 3):
        found.append(Contender("llm-compressor", f"gptq int{bits}-g64", bits + 0.25, bits + 0.25))
    four = with_zero_points(4, 64, 4)
    found.append(Contender("llm-compressor", "awq int4-g64-affine", 4.25, four))
    found.append(Contender("gptqmodel", "gptaq int4-g64-affine", 4.25, four))
    found += [Contender("nncf", f"int4-g64-affine {ways}", 4.25, four) for ways in ("awq scale", "gptq scale")]
    found.append(Contender("nncf", "nf4-g64 awq scale", 4.25, 4.25))
    return found


CONTENDERS = (*_ours(), *_grouped(), *_llama_cpp())


def chosen(only: str, budgets: str) -> list[Contender]:
    """`only` holds systems and names of contenders, `budgets` numbers, both with commas between; empty means all.

    Raises SystemExit for a name that nobody has.
    """
    wanted, bits = {name for name in only.split(",") if name}, {float(text) for text in budgets.split(",") if text}
    unknown = wanted - {contender.system for contender in CONTENDERS} - {contender.name for contender in CONTENDERS}
    if unknown:
        raise SystemExit(f"nobody is called {', '.join(sorted(unknown))}; name a system or one of its contenders")
    found = [contender for contender in CONTENDERS if not wanted or wanted & {contender.system, contender.name}]
    return [contender for contender in found if not bits or contender.bits in bits]


@cache
def version(system: str) -> str:
    """A peer's release; of ours, the last commit of the sources."""
    if system in PEERS:
        return PEERS[system].version
    command = ["git", "-C", str(Path(__file__).parent.parent), "log", "-1", "--format=%h", "--", "src", "native"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return found or bitwright.__version__
