"""The document's parts as tables: beside charts for those who cannot see them, and by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitwright.analysis.report.document import Counts, Document, Histogram, Tensor
from bitwright.analysis.report.parts import Cell, Column, Table
from bitwright.analysis.report.quantities import change, number, percent, scaled, size, whole, with_unit

Number = float | int | None


def _cell(value: Number, say: Callable[[Number], str] = number) -> Cell:
    return Cell(say(value), value)


def frontier(document: Document) -> Table:
    columns = (Column("recipe"), Column("size", True), Column("KL", True), Column("how", minor=True), Column("", minor=True))
    rows = [
        (
            Cell(point.label),
            _cell(point.size_bytes, size),
            _cell(point.kl),
            Cell("measured" if point.measured else "predicted"),
            Cell("chosen" if point.chosen else ""),
        )
        for point in sorted(document.frontier, key=lambda point: point.size_bytes)
    ]
    return Table("Size and KL of every recipe", columns, tuple(rows))


def budget(document: Document) -> Table:
    columns = (Column("what"), Column("limit", True), Column("reached", True), Column("kept"))
    rows = [
        (
            Cell(limit.quantity),
            Cell(with_unit(limit.limit, limit.unit)),
            Cell(with_unit(limit.reached, limit.unit)),
            Cell("yes" if limit.met else "no", good=limit.met),
        )
        for limit in document.budget
    ]
    return Table("What was asked for and what is reached", columns, tuple(rows))


def fixes(document: Document) -> Table:
    tried = all(fix.measured for fix in document.fixes)
    columns = (
        Column("tensor"),
        Column("from", minor=True),
        Column("to"),
        Column("KL before", True, True),
        Column("KL after" if tried else "KL after, foretold", True, True),
        Column("change" if tried else "change, foretold", True),
        Column("bytes", True),
    )
    rows = [
        (
            Cell(fix.tensor),
            Cell(fix.from_scheme),
            Cell(fix.to_scheme),
            _cell(fix.kl_before),
            _cell(fix.kl_after),
            Cell(change(fix.kl_before, fix.kl_after), fix.kl_after - fix.kl_before, fix.kl_after < fix.kl_before),
            Cell(("+" if fix.extra_bytes > 0 else "") + size(fix.extra_bytes), fix.extra_bytes),
        )
        for fix in sorted(document.fixes, key=lambda fix: fix.kl_after - fix.kl_before)
    ]
    caption = "Fixes that were tried" if tried else "Fixes to try, with the KL of the whole model that is foretold"
    return Table(f"{caption}, the one that wins most first", columns, tuple(rows))


def worst(tensors: Sequence[Tensor]) -> Table:
    measured = any(one.kl_alone is not None for one in tensors)
    columns = [Column("tensor"), Column("scheme"), Column("KL alone" if measured else "KL alone, estimated", True)]
    rows: list[tuple[Cell, ...]] = [(Cell(one.name), Cell(one.scheme), _cell(one.cost)) for one in tensors]
    if any(one.kl_alone_interval for one in tensors):
        columns.append(Column("95 % interval", True, True))
        rows = [(*row, Cell(_between(one.kl_alone_interval))) for row, one in zip(rows, tensors, strict=True)]
    return Table("The costliest tensors", tuple(columns), tuple(rows))


def kinds(document: Document) -> Table:
    columns = (
        Column("kind"),
        Column("of the weights", True),
        Column("KL, estimated" if document.estimated else "KL", True, True),
        Column("of the loss", True),
        Column("loss for its size", True),
    )
    rows = [
        (
            Cell(one.kind),
            _cell(one.weights_share, percent),
            _cell(one.kl),
            _cell(one.kl_share, percent),
            _cell(one.kl_share / one.weights_share if one.weights_share else None, lambda value: f"{number(value, 2)} times"),
        )
        for one in document.kinds
    ]
    return Table("Kinds of tensors, the one that loses most for its size first", columns, tuple(rows))


def judged(document: Document) -> Table:
    columns = (Column("tensor"), Column("estimated", True), Column("measured", True), Column("difference", True))
    rows = [
        (Cell(one.tensor), _cell(one.estimated), _cell(one.measured), Cell(change(one.estimated, one.measured)))
        for one in sorted(document.judged, key=lambda one: -one.measured)
    ]
    return Table("KL alone of the tensors that were measured as well", columns, tuple(rows))


def cumulative(document: Document) -> Table:
    rows = [(_cell(step.block, lambda block: f"{block:.0f}"), _cell(step.kl)) for step in document.cumulative]
    return Table("KL with the blocks up to this one quantized", (Column("block", True), Column("KL", True)), tuple(rows))


def token_kinds(document: Document) -> Table:
    columns = (
        Column("tokens"),
        Column("share", True),
        Column("KL", True),
        Column("surprise before, nats", True, True),
        Column("added", True),
    )
    rows = [
        (
            Cell(one.kind),
            _cell(one.share, percent),
            _cell(one.kl),
            _cell(one.nll_reference),
            _cell(one.nll_added),
        )
        for one in document.token_kinds
    ]
    return Table("Loss by kind of token", columns, tuple(rows))


def predicted(document: Document) -> Table:
    columns = (Column("quantity"), Column("predicted", True), Column("true", True), Column("difference", True))
    rows = [
        (
            Cell(one.quantity),
            Cell(with_unit(one.predicted, one.unit)),
            Cell(with_unit(one.true, one.unit)),
            Cell(change(one.predicted, one.true)),
        )
        for one in document.predicted
    ]
    return Table("Predicted and true", columns, tuple(rows))


def roofline(document: Document) -> Table:
    assert document.roofline is not None
    columns = (
        Column("part"),
        Column("of the time", True),
        Column("bytes", True),
        Column("op/byte", True, True),
        Column("op/s", True, True),
        Column("of its limit", True),
    )
    roof = document.roofline
    rows = []
    for point in document.roofline.points:
        limit = min(roof.peak_operations_per_s, roof.bandwidth_bytes_per_s * point.operations_per_byte)
        rows.append(
            (
                Cell(point.name),
                _cell(point.seconds_share, percent),
                _cell(point.bytes, size),
                _cell(point.operations_per_byte),
                _cell(point.operations_per_s, lambda value: scaled(value, "")),
                _cell(point.operations_per_s / limit if limit else None, percent),
            )
        )
    return Table("Where a token's time goes", columns, tuple(rows))


def tensors(document: Document, order: Sequence[int]) -> Table:
    """Columns that no tensor has a figure for are left out."""
    total, share = document.cost, "estimated share of loss" if document.estimated else "share of loss"
    every: list[tuple[Column, Callable[[Tensor], Cell]]] = [
        (Column("tensor"), lambda t: Cell(t.name, f"{t.layer + 1:05d} {t.kind}")),
        (Column("scheme"), lambda t: Cell(t.scheme, t.scheme)),
        (Column("method", minor=True), lambda t: Cell(t.method or "", t.method)),
        (Column("bits", True), lambda t: _cell(t.bits)),
        (Column("bytes", True, True), lambda t: _cell(t.bytes, size)),
        (Column("KL alone", True, True), lambda t: _cell(t.kl_alone)),
        (Column("KL alone, estimated", True, True), lambda t: _cell(t.kl_estimated if document.estimated else None)),
        (Column(share, True), lambda t: _cell(_share(t, total), percent)),
        (Column("KL regained", True, True), lambda t: _cell(t.kl_regained)),
        (Column("SQNR, dB", True, True), lambda t: _cell(t.sqnr_db)),
        (Column("output error", True, True), lambda t: _cell(t.output_error, percent)),
    ]
    kept = [(column, make) for column, make in every if any(make(t).value not in (None, "") for t in document.tensors)]
    rows = [tuple(make(document.tensors[position]) for _, make in kept) for position in order]
    return Table("All tensors", tuple(column for column, _ in kept), tuple(rows))


def facts(tensor: Tensor, total: float) -> list[tuple[str, str]]:
    """All that is known of one tensor, in words, for its details."""
    known = [
        ("scheme", " ".join(filter(None, (tensor.scheme, tensor.method)))),
        ("shape", " × ".join(whole(side) for side in tensor.shape)),
        ("bits a weight", number(tensor.bits)),
        ("bytes", size(tensor.bytes)),
        ("KL alone", _with_interval(tensor)),
        ("share of the loss" if tensor.kl_alone is not None else "estimated share of the loss", percent(_share(tensor, total))),
        ("KL regained", number(tensor.kl_regained)),
        ("KL estimated", number(tensor.kl_estimated)),
        ("SQNR", f"{number(tensor.sqnr_db)} dB" if tensor.sqnr_db is not None else ""),
        ("cosine", number(tensor.cosine, 5)),
        ("largest error", number(tensor.largest_error)),
        ("error of its output", percent(tensor.output_error)),
        ("weights clipped", percent(tensor.clipped_share)),
        ("levels unused", percent(tensor.unused_share)),
        ("why", tensor.reason or ""),
    ]
    return [(label, text) for label, text in known if text not in ("", "–")]


def described(histogram: Histogram) -> str:
    """The histograms in words."""
    return " ".join(
        f"{name}: {_described(counts)}."
        for name, counts in (("Weights", histogram.weights), ("Activations", histogram.activations))
        if counts
    )


def _described(counts: Counts) -> str:
    span = f"{number(counts.edges[0])} to {number(counts.edges[-1])}"
    if not counts.levels:
        return f"{span}, no fixed grid"
    ends = f"from {number(min(counts.levels))} to {number(max(counts.levels))}"
    return f"{span}, {whole(counts.level_count or len(counts.levels))} levels {ends}"


def _share(tensor: Tensor, total: float) -> float | None:
    return max(tensor.cost, 0.0) / total if tensor.cost is not None and total > 0 else None


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def _with_interval(tensor: Tensor) -> str:
    between = _between(tensor.kl_alone_interval)
    return number(tensor.kl_alone) + (f" ({between})" if between and tensor.kl_alone is not None else "")
