"""From the document to one HTML page that needs nothing else: no network, no other file.

Names of models and tensors are other people's texts. Three walls stand between them and the page: the template escapes all it
is given, JSON is embedded without a `<`, and the page's policy lets only those scripts run whose hashes are in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from bitwright.analysis.report import histograms, tables
from bitwright.analysis.report.document import Document, Interval, Whole
from bitwright.analysis.report.parts import Chart, Map, Section
from bitwright.analysis.report.quantities import SPACE, number, percent, scaled, size, whole
from bitwright.analysis.report.sections import sections
from bitwright.errors import ReportError

Tile = tuple[str, str, list[str]]  # label, value, what it is held against


def page(document: Document) -> str:
    """Raises `ReportError` where plotly is not installed."""
    shown = sections(document)
    scripts = {"library": library(), "script": _file("page.js")}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = breakable
    content = {
        "document": document,
        "title": f"{'Plan for' if document.kind == 'plan' else 'Analysis of'} {document.model.name}",
        "tiles": tiles(document.whole) if document.whole else [],
        "facts": facts(document),
        "sections": shown,
        "style": Markup(_file("style.css")),
        "data": Markup(embeddable(data(document, shown))),
        "download": Markup(embeddable(asdict(document))),
        "policy": " ".join(f"'sha256-{_hash(script)}'" for script in scripts.values()),
    }
    return environment.from_string(_file("template.html")).render(content | {name: Markup(it) for name, it in scripts.items()})


def breakable(text: str) -> Markup:
    """Lines may break behind the dots and underscores of a tensor's name."""
    return escape(text).replace(".", Markup(".<wbr>")).replace("_", Markup("_<wbr>"))


def library() -> str:
    """The JavaScript of plotly, as its Python package brings it."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as fault:
        raise ReportError("the report's charts need plotly; pip install 'bitwright[report]'") from fault
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def embeddable(value: object) -> str:
    """JSON that can stand inside a script element: nothing in it can end that element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")


def data(document: Document, shown: list[Section]) -> dict[str, Any]:
    """What the page's script draws from."""
    charts = [part for section in shown for part in section.parts if isinstance(part, Chart)]
    charts += [chart for section in shown for part in section.parts if isinstance(part, Map) for chart in part.charts]
    drawn = {
        one.name: {
            "weights": one.weights and histograms.histogram(one.weights, "weight"),
            "activations": one.activations and histograms.histogram(one.activations, "activation"),
            "said": tables.described(one),
        }
        for one in document.histograms
    }
    total = document.cost
    return {
        "figures": {chart.name: {"wide": chart.wide, "standing": chart.standing} for chart in charts},
        "tensors": [
            {
                "name": one.name,
                "short": f"{one.layer} {one.kind}",
                "facts": tables.facts(one, total),
                "fixes": _fixes(document, one.name),
            }
            | {"histograms": drawn.get(one.name)}
            for one in document.tensors
        ],
    }


def _fixes(document: Document, name: str) -> list[str]:
    return [
        f"{'Measured' if fix.measured else 'Foretold'}: {fix.to_scheme} instead of {fix.from_scheme}, "
        f"KL {number(fix.kl_before)} → {number(fix.kl_after)} for {size(fix.extra_bytes)} more"
        for fix in document.fixes
        if fix.tensor == name
    ]


def tiles(model: Whole) -> list[Tile]:
    """The figures of the whole model that a reader looks for first."""
    mean = _between(model.kl_mean_interval) or "nats per token"
    floor, most = _noted("noise floor {}", model.noise_floor_kl), _noted("at most {}", model.kl_max)
    flipped = None if model.flips is None else f"{percent(model.flips)} flipped"
    original, own = _noted("original {}", model.perplexity_reference, 4), _noted("the original's own {}", model.loss_reference)
    every: list[tuple[str, float | None, str, tuple[str | None, ...]]] = [
        ("size", model.size_bytes, size(model.size_bytes), (_noted("{} bits a weight", model.bits_per_weight),)),
        ("KL, mean", model.kl_mean, number(model.kl_mean), (mean, floor)),
        ("KL, worst 1 %", model.kl_p99, number(model.kl_p99), (_between(model.kl_p99_interval), most)),
        (
            "same next token",
            model.top1_agreement,
            percent(model.top1_agreement),
            (_between(model.top1_agreement_interval, percent), flipped),
        ),
        (
            "perplexity",
            model.perplexity,
            number(model.perplexity, 4),
            (_between(model.perplexity_interval, lambda value: number(value, 4)), original),
        ),
        ("loss added", model.loss_added, number(model.loss_added), (_between(model.loss_added_interval), own)),
    ]
    return [(label, text, [note for note in notes if note]) for label, value, text, notes in every if value is not None]


def _between(interval: Interval | None, say: Callable[[float], str] = number) -> str | None:
    return None if interval is None else f"{say(interval[0])} to {say(interval[1])} (95{SPACE}%)"


def _noted(words: str, value: float | None, digits: int = 3) -> str | None:
    return None if value is None else words.format(number(value, digits))


def facts(document: Document) -> list[tuple[str, str]]:
    """How the report came about, for its foot."""
    model, text = document.model, document.text
    known = [
        ("model", model.name),
        ("parameters", "" if model.parameters is None else scaled(model.parameters, "").strip()),
        ("blocks", "" if model.blocks is None else whole(model.blocks)),
        ("text", text.name if text else ""),
        ("tokens", "" if text is None or text.tokens is None else f"{whole(text.tokens)} in windows of {whole(text.context)}"),
        ("held out", (text.held_out or "") if text else ""),
        ("activations", document.activations or ""),
        ("KV cache", document.kv_cache or ""),
        ("machine", document.machine or ""),
        ("made by", document.made_by or ""),
        ("Bitwright", document.bitwright or ""),
    ]
    return [(label, value) for label, value in known if value]


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text("utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
