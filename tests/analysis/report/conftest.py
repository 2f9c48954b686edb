"""Pages as a user gets them: what `plan_document` and `analyze` make of a tiny model, written once for all tests here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TEXT = "a quick brown fox jumps over the lazy dog, 12 times or 345. " * 60


@pytest.fixture(scope="session")
def real_pages(tiny_directory: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plan.html, analysis.html, estimated.html and their data, such as plan.json; to be read only."""
    pytest.importorskip("scipy", exc_type=ImportError)
    from bitwright.allocation.budget import Budget
    from bitwright.analysis.analyze import Examined, analyze
    from bitwright.analysis.ceilings import Ceilings
    from bitwright.analysis.documents import Made, plan_document
    from bitwright.analysis.planning import Settings, find_plan
    from bitwright.analysis.report import write
    from bitwright.calibration.text import Source
    from bitwright.models import load

    model, folder = load(tiny_directory("smollm2")), tmp_path_factory.mktemp("pages")
    text = folder / "text.txt"
    text.write_text(TEXT, "utf-8")
    settings = Settings(
        ("int3-g32", "int4-g32", "int8-channel"),
        methods=("nearest",),
        calibration=Source(str(text), windows=4, length=64),
        held_out=TEXT,
        activations=("int8",),
        threads=1,
        context=64,
        swaps=0,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITWRIGHT_CACHE", str(folder / "cache"))
        patch.setattr("bitwright._native.fastest_threads", lambda: 1)
        patch.setattr("bitwright.allocation.sensitivity.LARGE", 128)  # so that the vocabulary is stored in blocks
        found = find_plan(model, Budget(max_drop=0.5, max_size=80_000, objective="loss"), settings)
        plan = plan_document(Made(model, "bitwright plan MODEL"), found, Ceilings.of_this_machine())
        analysis = analyze(Made(model, "bitwright analyze MODEL"), found.recipe, Examined(text, 256, 128), str(text))
        quick = Examined(text, 256, 128, estimate=True)
        estimated = analyze(Made(model, "bitwright analyze MODEL --estimate"), found.recipe, quick, str(text))
    write(plan, folder / "plan.html", folder / "plan.json")
    write(analysis, folder / "analysis.html", folder / "analysis.json")
    write(estimated, folder / "estimated.html", folder / "estimated.json")
    return folder
