"""Verdicts of the contest: each bar against the peer that is hardest to beat."""

from __future__ import annotations

from typing import Any

import engines_report


def ratio(engine: str, theirs: str, prefill: float, decode: float, **more: Any) -> dict[str, Any]:
    common = {"group": "best", "threads": 1, "ours": "int4-g64", "bits": 4, "engine": engine, "theirs": theirs}
    return common | {"prefill": prefill, "decode": decode} | more


RUN = {
    "group": "best",
    "engine": "Bitwright",
    "kind": "int4-g64",
    "threads": 1,
    "weight_bytes": 10,
    "decode_fraction_of_bandwidth": 0.7,
    "prefill_fraction_of_peak": 0.15,
    "matrix_instruction": "amx tdpbssd",
}


def test_tables_are_held_against_even_levels() -> None:
    speeds = {"decode_tokens_per_s": 90.0, "prefill_tokens_per_s": 100.0}
    table = RUN | speeds | {"kind": "kmeans4-g64", "decode_tokens_per_s": 70.0, "prefill_tokens_per_s": 80.0}
    runs = [RUN | speeds, table, table | {"threads": 2}, table | {"group": "avx2"}]
    lines = engines_report.verdicts({"llama_cpp_build": "native", "runs": runs, "ratios": []})
    assert [line for line in lines if " over int4-g64" in line] == [
        "- decode, kmeans4-g64 over int4-g64, 1 thread(s): 0.7778 (bar: at least 0.8): **not met**",
        "- prefill, kmeans4-g64 over int4-g64, 1 thread(s): 0.8 (bar: at least 0.8): met",
    ]


def test_each_bar_is_held_against_the_hardest_peer() -> None:
    ratios = [
        ratio("llama.cpp", "Q4_0", 5.5, 2.9),
        ratio("llama.cpp", "Q4_1", 4.5, 3.1),
        ratio("OpenVINO GenAI", "int4", 2.5, 4.0),
        ratio("ONNX Runtime GenAI", "int4", 0.1, 0.1),
        ratio("llama.cpp", "Q8_0", 6.0, 1.4, ours="int8-channel", bits=8),
        ratio("llama.cpp", "Q4_0", 1.2, 3.5, group="avx2"),
        ratio("llama.cpp", "Q4_1", 1.4, 2.5, group="avx2"),
    ]
    forced = RUN | {"group": "avx2", "matrix_instruction": "avx2 vpmaddubsw"}
    lines = engines_report.verdicts({"llama_cpp_build": "native", "runs": [RUN, forced], "ratios": ratios})
    assert lines == [
        "- decode, share of read bandwidth, int4-g64, 1 thread(s): 0.7 (bar: at least 0.65): met",
        "- prefill, share of the peak of amx tdpbssd, int4-g64, 1 thread(s): 0.15 (bar: at least 0.2): **not met**",
        "- decode, share of read bandwidth, int4-g64 (avx2), 1 thread(s): 0.7 (bar: at least 0.65): met",
        "- prefill, share of the peak of avx2 vpmaddubsw, int4-g64 (avx2), 1 thread(s): 0.15 (bar: at least 0.2): **not met**",
        "- decode, int4-g64 over llama.cpp Q4_0, 1 thread(s): 2.9 (bar: at least 3): **not met**",
        "- decode, int8-channel over llama.cpp Q8_0, 1 thread(s): 1.4 (bar: at least 1.35): met",
        "- decode, int4-g64 (avx2) over llama.cpp Q4_1, 1 thread(s): 2.5 (bar: at least 3): **not met**",
        "- prefill, int4-g64 over llama.cpp Q4_1, 1 thread(s): 4.5 (bar: at least 5): **not met**",
        "- prefill, int4-g64 over OpenVINO GenAI int4, 1 thread(s): 2.5 (bar: at least 2): met",
        "- prefill, int8-channel over llama.cpp Q8_0, 1 thread(s): 6 (bar: at least 5): met",
        "- prefill, int4-g64 (avx2) over llama.cpp Q4_0, 1 thread(s): 1.2 (bar: at least 1.3): **not met**",
    ]


def test_with_amx_llama_cpp_has_a_bar_as_it_is_mended_and_one_as_it_builds() -> None:
    ratios = [
        ratio("llama.cpp", "Q4_0", 5.5, 1.8),
        ratio("llama.cpp without AMX", "Q4_0", 9.0, 3.2),
        ratio("llama.cpp without AMX", "IQ4_NL", 9.0, 2.9),
        ratio("llama.cpp", "Q4_0", 1.5, 2.5, group="avx2"),
    ]
    lines = engines_report.verdicts({"llama_cpp_build": "amx", "runs": [], "ratios": ratios})
    assert [line for line in lines if line.startswith("- decode")] == [
        "- decode, int4-g64 over llama.cpp Q4_0, 1 thread(s): 1.8 (bar: at least 1.7): met",
        "- decode, int4-g64 over llama.cpp without AMX IQ4_NL, 1 thread(s): 2.9 (bar: at least 3): **not met**",
        "- decode, int4-g64 (avx2) over llama.cpp Q4_0, 1 thread(s): 2.5 (bar: at least 3): **not met**",
    ]
