"""Which sections a page has, in which order: those the document has something for."""

from __future__ import annotations

from bitwright.analysis.report import figures, heat, sentences, tables
from bitwright.analysis.report.document import WORST, Document
from bitwright.analysis.report.parts import Browser, Chart, Map, Note, Part, Section

ROW = 30  # pixels that one bar of a chart takes


def sections(document: Document) -> list[Section]:
    makers = (_budget, _frontier, _map, _worst, _cumulative, _tokens, _predicted, _roofline, _tensors)
    return [section for make in makers if (section := make(document)) is not None]


def _budget(document: Document) -> Section | None:
    if not document.budget:
        return None
    return Section("budget", "What was asked for", sentences.budget(document), (tables.budget(document),))


def _frontier(document: Document) -> Section | None:
    if not document.frontier:
        return None
    table = tables.frontier(document)
    chart = Chart("frontier", "Size against KL of every recipe", figures.frontier(document), height=420, table=table)
    return Section("frontier", "Size and quality", sentences.frontier(document), (chart,))


def _map(document: Document) -> Section | None:
    found = heat.cells(document)
    if not found:
        return None
    layers, kinds = {layer for layer, _ in found}, {kind for _, kind in found}
    heights = (90 + 34 * len(kinds), 110 + max(18 * len(layers), 160))
    label = "layers by tensor kinds; the table of all tensors has the same figures"
    whose = "Estimated share" if document.estimated else "Share"
    share = Chart(
        "heat-share", f"{whose} of the loss, {label}", heat.by_share(document, False), heat.by_share(document, True), *heights
    )
    bits = Chart("heat-bits", f"Bits a weight, {label}", heat.by_bits(document, False), heat.by_bits(document, True), *heights)
    outside = tuple(position for position, tensor in enumerate(document.tensors) if tensor.layer < 0)
    parts: list[Part] = [Map((share, bits) if document.cost > 0 else (bits,), outside)]
    if said := sentences.additivity(document) or sentences.trust(document):
        parts.append(Note(said))
    if document.kinds:
        parts.append(tables.kinds(document))
    return Section("map", "Where the loss arises", sentences.map_(document), tuple(parts))


def _worst(document: Document) -> Section | None:
    ranked = sentences.costliest(document)[:WORST]
    if not ranked and not document.fixes:
        return None
    parts: list[Part] = []
    if ranked:
        height = 70 + ROW * len(ranked)
        chart = Chart("worst", "The costliest tensors", figures.worst(ranked), height=height, table=tables.worst(ranked))
        parts.append(chart)
    if document.fixes:
        parts.append(tables.fixes(document))
    return Section("worst", "Worst tensors and what helps", sentences.worst(document), tuple(parts))


def _cumulative(document: Document) -> Section | None:
    if not document.cumulative:
        return None
    table = tables.cumulative(document)
    chart = Chart("cumulative", "KL by block", figures.cumulative(document.cumulative), height=300, table=table)
    return Section("cumulative", "How the loss builds up", sentences.cumulative(document), (chart,))


def _tokens(document: Document) -> Section | None:
    kinds = document.token_kinds
    if not kinds:
        return None
    height = 90 + 2 * ROW * len(kinds) * 2 // 3
    chart = Chart("tokens", "Shares of tokens and of loss", figures.token_kinds(kinds), height=height)
    return Section("tokens", "Which tokens suffer", sentences.tokens(document), (chart, tables.token_kinds(document)))


def _predicted(document: Document) -> Section | None:
    parts: list[Part] = []
    if document.predicted:
        height = 90 + ROW * len(document.predicted)
        parts.append(Chart("predicted", "True against predicted", figures.predicted(document.predicted), height=height))
        parts.append(tables.predicted(document))
    if said := sentences.swaps(document):
        parts.append(Note(said))
    if said := sentences.estimate(document):
        parts.append(Note(said))
    if document.judged:
        chart, label = figures.estimates(document.judged), f"Estimated against measured KL of {len(document.judged)} tensors"
        table = tables.judged(document) if document.estimated else None
        parts.append(Chart("estimates", label, chart, height=360, table=table))
    if not parts:
        return None
    return Section("predicted", "Predicted and true", sentences.predicted(document), tuple(parts))


def _roofline(document: Document) -> Section | None:
    roof, energy = document.roofline, sentences.energy(document)
    parts: list[Part] = []
    if roof is not None:
        parts.append(Chart("roofline", "Roofline of this machine", figures.roofline(roof), height=400))
        if any(point.seconds_share is not None or point.bytes is not None for point in roof.points):
            height = 90 + 2 * ROW * len(roof.points) * 2 // 3
            parts.append(Chart("shares", "Shares of time and bytes", figures.shares(roof), height=height))
        parts.append(tables.roofline(document))
    if energy and roof is not None:
        parts.append(Note(energy))
    if not energy and roof is None:
        return None
    opening = sentences.roofline(document) if roof is not None else energy or ""
    return Section("roofline", "Where time and bytes go", opening, tuple(parts))


def _tensors(document: Document) -> Section | None:
    if not document.tensors:
        return None
    order = sorted(range(len(document.tensors)), key=lambda position: -(document.tensors[position].cost or 0))
    kinds = tuple(dict.fromkeys(tensor.kind for tensor in document.tensors))
    browser = Browser(tables.tensors(document, order), tuple(order), kinds)
    return Section("tensors", "All tensors", sentences.tensors(document), (browser,))
