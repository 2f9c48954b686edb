"""The sentence that opens each section: what there is to see, with the figure that matters most; all from the document."""

from __future__ import annotations

from itertools import accumulate

from bitwright.analysis.report.document import Document, Estimate, Tensor, mean_kl
from bitwright.analysis.report.quantities import change, number, percent, scaled, size, with_unit


def called(tensor: Tensor) -> str:
    return f"{tensor.kind} of block {tensor.layer}" if tensor.layer >= 0 else f"the {tensor.kind}"


def costliest(document: Document) -> list[Tensor]:
    """Tensors whose loss is known, the costliest first."""
    return sorted((tensor for tensor in document.tensors if tensor.cost is not None), key=lambda tensor: -(tensor.cost or 0))


def budget(document: Document) -> str:
    missed = [limit.quantity for limit in document.budget if not limit.met]
    if not missed:
        return "Every limit that was asked for is kept." if len(document.budget) > 1 else "The limit that was asked for is kept."
    return f"{len(missed)} of {len(document.budget)} limits cannot be kept: {', '.join(missed)}."


def frontier(document: Document) -> str:
    chosen = next((point for point in document.frontier if point.chosen), None)
    opening = "Lower is closer to the original, further left is smaller: nothing useful lies above the line."
    if chosen is None:
        return opening
    uniform = [p for p in document.frontier if p.uniform and p.kl > 0 and p.size_bytes <= 1.02 * chosen.size_bytes]
    best = min(uniform, key=lambda point: point.kl, default=None)
    if best is None or chosen.uniform:
        return f"{opening} The star is what was chosen: {size(chosen.size_bytes)} at KL {number(chosen.kl)}."
    known = "" if best.measured else ", as predicted"
    versus = f"{change(best.kl, chosen.kl)} against {best.label}{known}, the best single scheme of at most its size"
    return f"{opening} The star is what was chosen: {size(chosen.size_bytes)} at KL {number(chosen.kl)}, {versus}."


def map_(document: Document) -> str:
    ranked, total = costliest(document), document.cost
    how = "Choose a cell, or walk with the arrow keys, to see that tensor below."
    if not ranked or total <= 0:
        return f"The bits that each tensor got. {how}"
    shares = list(accumulate(max(tensor.cost or 0, 0) / total for tensor in ranked))
    half = next((count for count, share in enumerate(shares, 1) if share >= 0.5), len(shares))
    first = f"{called(ranked[0])} alone makes {percent(shares[0])}"
    come = f"{half} of {len(ranked)} tensors make" if half > 1 else f"One tensor of {len(ranked)} makes"
    return f"{come} half of the {'estimated ' if document.estimated else ''}loss, {first}. {how}"


def additivity(document: Document) -> str | None:
    parts = document.additivity
    if parts is None or parts.sum_of_parts <= 0:
        return None
    ratio = parts.together / parts.sum_of_parts
    verdict = "so the shares can be trusted" if 0.8 <= ratio <= 1.25 else "so the shares rank tensors but do not add up"
    figures = f"Quantized one by one the tensors lose {number(parts.sum_of_parts)} nats in sum, together {number(parts.together)}"
    return f"{figures} ({number(ratio, 2)} times), {verdict}."


def trust(document: Document) -> str | None:
    """What estimated shares are worth, as measured."""
    if not document.estimated or document.estimate is None:
        return None
    return f"The loss of each tensor is estimated from one backward pass, not measured. {_ranked(document.estimate)}"


def _ranked(judged: Estimate) -> str:
    if judged.rank_correlation is None:
        return "How well was not measured: fewer than two tensors lose anything."
    order = f"rank correlation {number(judged.rank_correlation)}, where 1 is the same order"
    return f"Estimated against measured losses of {judged.tensors} tensors: {order}."


def worst(document: Document) -> str:
    by = ", by estimate" if document.estimated else ""
    if not document.fixes:
        return f"These tensors cost most when they alone are quantized{by}: they are the first to give more bits."
    best = max(document.fixes, key=lambda fix: fix.kl_before - fix.kl_after)
    won = f"{change(best.kl_before, best.kl_after)} KL for {scaled(best.extra_bytes, 'B')} more"
    untried = "is foretold, none was tried" + (" (bitwright analyze --recipe tries them)" if document.kind == "plan" else "")
    tried = "was tried and measured" if all(fix.measured for fix in document.fixes) else untried
    return f"These tensors cost most{by}. Each fix below {tried}; {best.to_scheme} for {best.tensor} does most: {won}."


def cumulative(document: Document) -> str:
    steps = document.cumulative
    rises = [(after.kl - before.kl, after.block) for before, after in zip(steps, steps[1:], strict=False)]
    opening = "The loss as block after block is quantized: it arises where the line is steep."
    if not rises or max(rises)[0] <= 0 or steps[-1].kl <= 0:
        return opening
    rise, block = max(rises)
    return f"{opening} Block {block} adds most, {percent(rise / steps[-1].kl)} of the whole."


def tokens(document: Document) -> str:
    total = mean_kl(document.token_kinds)
    opening = "Where the bar of the loss is the longer one, that kind of token suffers more than its number explains."
    if total <= 0:
        return opening
    most = max(document.token_kinds, key=lambda kind: kind.kl)
    made = f"{percent(most.share)} of the tokens and {percent(most.share * most.kl / total)} of the loss"
    return f"{opening} Worst off: {most.kind}, {made}."


def predicted(document: Document) -> str:
    misses = [(abs(one.true / one.predicted - 1), one.quantity) for one in document.predicted if one.predicted]
    if not misses:
        return "What was estimated, against what was measured: a dot on the line is an estimate that holds."
    opening = (
        "What was promised, untouched by what was measured of any plan, against what was measured: a dot on the line is a "
        "promise kept. Speeds are promised by a stand-in of the plan, at the pace that the machine had then."
    )
    miss, quantity = max(misses)
    return f"{opening} The largest miss is {percent(miss)}, in {quantity}."


def swaps(document: Document) -> str | None:
    said = [
        f"{step.swapped} tensors {'swapped' if step.kept else 'would have swapped'} schemes, KL {number(step.before)} to "
        f"{number(step.after)} on text for comparing plans{'' if step.kept else ', so the swap was undone'}"
        for step in document.swaps
    ]
    return f"After the first plan, measured from its inside: {'; then '.join(said)}." if said else None


def estimate(document: Document) -> str | None:
    if document.estimate is None:
        return None
    sample = " They are a sample over kinds and blocks; no other was measured." if document.estimate.sample else ""
    return f"{_ranked(document.estimate)}{sample} On the line an estimate is exact."


def roofline(document: Document) -> str:
    roof = document.roofline
    assert roof is not None
    limits = f"{scaled(roof.bandwidth_bytes_per_s, 'B/s')} of memory and {scaled(roof.peak_operations_per_s, 'op/s')}"
    timed = [point for point in roof.points if point.seconds_share is not None]
    opening = f"A dot on the line runs as fast as this machine's {limits} allow; larger dots take more of the time."
    if not timed:
        return opening
    most = max(timed, key=lambda point: point.seconds_share or 0)
    ridge = roof.peak_operations_per_s / roof.bandwidth_bytes_per_s
    bound = "memory" if most.operations_per_byte < ridge else "arithmetic"
    rest = 1 - sum(point.seconds_share or 0 for point in timed)
    beside = f" What is not shown takes {percent(rest)}." if rest > 0.01 else ""
    return f"{opening} {most.name} takes most of these, {percent(most.seconds_share)}, and is bound by {bound}.{beside}"


def energy(document: Document) -> str | None:
    if document.energy is None:
        return None
    return f"A token takes {with_unit(document.energy.joules_per_token, 'J')} ({document.energy.how})."


def tensors(document: Document) -> str:
    schemes = {tensor.scheme for tensor in document.tensors}
    count = f"All {len(document.tensors)} tensors in {len(schemes)} scheme{'s' if len(schemes) > 1 else ''}"
    return f"{count}: choose a heading to sort, type to filter, choose a name to see its histograms."
