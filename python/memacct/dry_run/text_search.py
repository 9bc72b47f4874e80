"""Fits, comparisons and the plan beside a run, for people: one screen of at most 80 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from memacct._units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memacct.dry_run.compare import Compared
    from memacct.dry_run.fit import Fit, FitTry
    from memacct.dry_run.result import Amount, DryRun, Rank
    from memacct.dry_run.versus_plan import Term, VersusPlan

_BEST = {
    "max-model-len": "the longest requests",
    "utilization": "the smallest utilization",
    "max-num-seqs": "the most sequences",
    "tp": "the fewest GPUs",
    "gpu": "the smallest card",
}
_OPTION = {
    "max-model-len": "--max-model-len",
    "utilization": "--gpu-memory-utilization",
    "max-num-seqs": "--max-num-seqs",
    "tp": "--tensor-parallel-size",
    "gpu": "--gpu",
}
_LABEL, _WIDTH = 22, 80


def try_line(goal: str, made: FitTry) -> str:
    """One value that was tried, as a line of progress."""
    head = f"{_OPTION[goal]} {made.value}"
    return f"{head}: no engine: {made.why_not}" if made.run is None else f"{head}: {said(made.run)}"


def compared_line(made: Compared) -> str:
    """One card that was tried, as a line of progress."""
    return f"{made.gpu}: {made.why_not if made.run is None else said(made.run)}"


def said(run: DryRun) -> str:
    """A run in half a line."""
    how = "reckoned" if run.origin == "interpolated" else run.origin
    if run.refusal is None:
        tokens = "" if run.kv_tokens is None else f", {run.kv_tokens.value:,.0f} tokens"
        return f"starts{tokens} ({how}, {run.took_s:.1f} s)"
    missing = run.refusal.missing
    by = "" if missing is None else f", {format_bytes(missing.bytes)} missing"
    return f"{run.refusal.kind}{by} ({how}, {run.took_s:.1f} s)"


def fit_text(fit: Fit) -> str:
    """The answer, its numbers, and why nothing better fits."""
    return "\n".join(map(_wrapped, _fit_lines(fit)))


def _fit_lines(fit: Fit) -> Iterator[str]:
    name = fit.goal.name
    starts = f"{fit.starts_count} engine{'' if fit.starts_count == 1 else 's'} started"
    if fit.value is None:
        yield f"No {name} fits ({starts})."
        run = fit.run
        if run is not None and run.refusal is not None:
            missing = run.refusal.missing
            by = "" if missing is None else f"{format_bytes(missing.bytes)} missing, "
            yield f"  nearest: {by}{run.refusal.kind}: {run.refusal.message}"
        return
    yield f"{_BEST[name]}: {_OPTION[name]} {fit.value}   ({starts})"
    if fit.run is not None:
        yield from _numbers(fit.run)
    yield f"nothing better: {fit.beyond}"
    if fit.rising is not None:
        low, high = fit.rising
        yield (
            f"not sure: more memory is left at {high} than at {low}, though it asks for more; "
            "of what was tried this is the best"
        )


def _wrapped(line: str) -> str:
    """A line of words in the width of the screen; rows of a table are shorter anyway."""
    return line if len(line) <= _WIDTH else textwrap.fill(line, _WIDTH, subsequent_indent="  ")


def _numbers(run: DryRun) -> Iterator[str]:
    rank = run.ranks[0] if run.ranks else None
    if run.kv_tokens is not None:
        low, high = run.kv_tokens.low, run.kv_tokens.high
        around = "" if low == high else f"   {low:,.0f} to {high:,.0f}"
        yield f"{'KV cache, tokens':{_LABEL}}{run.kv_tokens.value:>14,.0f}{around}"
    if run.concurrency is not None:
        yield f"{'longest requests':{_LABEL}}{run.concurrency.value:>14.2f}"
    if rank is not None:
        for name, amount in (
            ("weights", rank.weights),
            ("activation peak", rank.activation_peak),
            ("KV cache", rank.kv_cache),
        ):
            yield f"{name:{_LABEL}}{_size(amount):>14}"


def compare_text(compared: Sequence[Compared]) -> str:
    """A table of the cards."""
    heads = ("GPU", "fits", "KV tokens", "range", "requests", "weights", "peak", "graphs")
    rows = [heads, *(_card(each) for each in compared)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = []
    for row in rows:
        cells = (
            text.ljust(width) if column < 2 else text.rjust(width)  # noqa: PLR2004 (words first)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    lines += [
        f"{each.gpu}: {each.why_not if each.run is None else _why(each.run)}"
        for each in compared
        if each.run is None or each.run.refusal is not None
    ]
    return "\n".join(lines)


def _card(each: Compared) -> tuple[str, ...]:
    run = each.run
    if run is None:
        return (each.gpu, "?", *("–",) * 6)
    rank = run.ranks[0] if run.ranks else None
    tokens, requests = run.kv_tokens, run.concurrency
    around = "–"
    if tokens is not None:
        around = "exact" if tokens.low == tokens.high else f"{tokens.low:,.0f}-{tokens.high:,.0f}"
    return (
        each.gpu,
        "yes" if run.verdict == "starts" else "no",
        "–" if tokens is None else f"{tokens.value:,.0f}",
        around,
        "–" if requests is None else f"{requests.value:.2f}",
        *(("–",) * 3 if rank is None else map(_size, _parts(rank))),
    )


def _parts(rank: Rank) -> tuple[Amount | None, ...]:
    return rank.weights, rank.activation_peak, rank.graphs or rank.graphs_estimated


def _why(run: DryRun) -> str:
    refusal = run.refusal
    if refusal is None:
        return ""
    by = "" if refusal.missing is None else f", {format_bytes(refusal.missing.bytes)} missing"
    return f"{refusal.kind}{by}: {refusal.message}"


def _size(amount: Amount | None) -> str:
    return "–" if amount is None else format_bytes(amount.bytes)


def versus_text(versus: VersusPlan) -> str:
    """The plan beside the run: one line if they agree, else a table with the reasons."""
    return "\n".join(map(_wrapped, _versus_lines(versus)))


def _versus_lines(versus: VersusPlan) -> Iterator[str]:
    if versus.unknown is not None:
        yield f"memacct plan: nothing to set beside it: {versus.unknown}"
        return
    verdict = "it fits" if versus.fits else "it does not fit"
    if versus.differs is not None:
        yield f"memacct plan says that {verdict}, the engine says otherwise: {versus.differs}"
    elif not versus.terms:
        yield f"memacct plan says the same: {verdict}; nothing was measured to set beside its terms"
    if not versus.terms:
        return
    if versus.agrees:
        tokens = "" if versus.plan_tokens is None else f" ({versus.plan_tokens:,} tokens by it)"
        yield f"memacct plan agrees: every term is within its range{tokens}"
        return
    yield f"{'memacct plan beside it':{_LABEL}}{'dry run':>11}{'planned':>11}   range"
    for term in versus.terms:
        yield _term_line(term)
    if versus.run_tokens is not None and versus.run_tokens != versus.tokens_of_room:
        by_plan = "none" if versus.tokens_of_room is None else f"{versus.tokens_of_room:,}"
        yield (
            f"tokens: of the same bytes plan makes {by_plan}, the engine {versus.run_tokens:,}: "
            "it groups its layers in another way"
        )
    for term in versus.terms:
        if term.why is not None:
            yield f"{term.name}: {term.why}"


def _term_line(term: Term) -> str:
    planned = "?" if term.plan_bytes is None else format_bytes(term.plan_bytes)
    around = ""
    if term.low_bytes is not None and term.high_bytes is not None:
        around = f"{format_bytes(term.low_bytes)} to {format_bytes(term.high_bytes)}"
    mark = {True: "", False: "  outside", None: "  unknown"}[term.agrees]
    run = format_bytes(term.run_bytes)
    return f"{term.name:{_LABEL}}{run:>11}{planned:>11}   {around}{mark}".rstrip()
