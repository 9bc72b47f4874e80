"""A dry run's answer for people: one screen of at most 80 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from memacct._units import GIB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from memacct.dry_run.result import Amount, Count, DryRun, Rank, Refusal

_WIDTH = 80
_LABEL, _NUMBER, _RANGE = 30, 11, 14
_STEPS_COUNT = 8  # of the time line: the longest


def dryrun_text(run: DryRun) -> str:
    """The answer: what it is for, each byte of a GPU, the KV cache, the host, the time line."""
    return "\n".join(line.rstrip() for line in _lines(run))


def _lines(run: DryRun) -> Iterator[str]:
    yield from _head(run)
    if run.refusal is not None:
        yield ""
        yield from _refused(run, run.refusal)
    first = run.ranks[0] if run.ranks else None
    if first is not None and (first.peak or first.started):
        yield ""
        yield from _table(first)
    if run.kv_tokens is not None:
        yield ""
        yield from _cache(run)
    for rank in run.ranks[1:]:
        yield _other_rank(rank)
    yield ""
    yield from _host(run)
    yield from _timeline(run)
    for note in run.notes:
        yield from _wrapped(f"Note: {note}.".replace("..", "."))


def _head(run: DryRun) -> Iterator[str]:
    machine, versions, settings = run.request.machine, run.versions, run.settings
    several = f"{machine.count} x " if machine.count > 1 else ""
    verdict = "starts" if run.verdict == "starts" else "DOES NOT FIT"
    total = format_bytes(machine.cuda_total_bytes)
    yield f"{run.request.model.name} on {several}{machine.title} ({total}): {verdict}"
    known = [f"{name} {versions[name]}" for name in ("vllm", "torch") if name in versions]
    labels = {
        "architecture": "{}",
        "dtype": "{}",
        "quantization": "{}",
        "attention_backend": "{}",
        "model_runner": "runner {}",
        "max_model_len": "{} tokens a request",
        "max_num_seqs": "{} requests",
        "max_num_batched_tokens": "batches of {} tokens",
        "gpu_memory_utilization": "utilization {}",
    }
    told = [text.format(settings[name]) for name, text in labels.items() if settings.get(name)]
    sizes = {"tp": "tensor", "pp": "pipeline", "dp": "data"}
    for short, long in sizes.items():
        if int(str(settings.get(f"{long}_parallel_size") or 1)) > 1:
            told.append(f"{short} {settings[f'{long}_parallel_size']}")
    yield from _wrapped(", ".join([*known, *told]))
    if run.origin != "run":
        how = "from an earlier start" if run.origin == "cache" else "reckoned from earlier starts"
        yield f"({how}, in {run.took_s:.1f} s)"


def _refused(run: DryRun, refused: Refusal) -> Iterator[str]:
    yield f"Why: {refused.kind}."
    if refused.missing is not None:
        yield from _wrapped(
            f"Missing: {format_bytes(refused.missing.bytes)}{_span(refused.missing)} of one GPU "
            f"({refused.missing.source})."
        )
    yield from _wrapped(f"vLLM: {refused.message}")
    for suggestion in refused.suggestions:
        yield from _wrapped(f"Try: {suggestion}")
    for rank in run.ranks[:1]:
        facts = {
            "free at the start": rank.free_at_start_bytes,
            "asked for": rank.requested_bytes,
            "weights": None if rank.weights is None else rank.weights.bytes,
            "left for KV cache": rank.kv_room_bytes,
        }
        known = [f"{name} {format_bytes(size)}" for name, size in facts.items() if size is not None]
        if known:
            yield from _wrapped(f"GPU {rank.device}: {', '.join(known)}.")


def _table(rank: Rank) -> Iterator[str]:
    """Both moments beside each other."""
    moments = [rows for rows in (rank.peak, rank.started) if rows]
    titles = [
        title for title, rows in (("at the peak", rank.peak), ("serving", rank.started)) if rows
    ]
    head = "".join(f"{title:>{_NUMBER}}{' range (GiB)':{_RANGE}}" for title in titles)
    yield f"{f'GPU {rank.device}, rank {rank.rank}':{_LABEL}}{head}"
    names = list(dict.fromkeys(row.name for rows in reversed(moments) for row in rows))
    if len(moments) > 1:  # what only the first has comes after the weights
        own = [row.name for row in moments[0] if row.name not in {r.name for r in moments[1]}]
        names = [names[0], *own, *[name for name in names[1:] if name not in own]]
    by_name = [{row.name: row.amount for row in rows} for rows in moments]
    for name in names:
        cells = [_cell(amounts.get(name)) for amounts in by_name]
        yield f"  {name:{_LABEL - 2}}" + "".join(cells)
    totals = [sum(row.amount.bytes for row in rows) for rows in moments]
    yield f"  {'total':{_LABEL - 2}}" + "".join(
        f"{format_bytes(total):>{_NUMBER}}{'':{_RANGE}}" for total in totals
    )


def _cell(amount: Amount | None) -> str:
    if amount is None:
        return f"{'-':>{_NUMBER}}{'':{_RANGE}}"
    return f"{format_bytes(amount.bytes):>{_NUMBER}}{_of(amount):{_RANGE}}"


def _of(amount: Amount) -> str:
    """The range, in GiB; nothing where there is none."""
    if amount.low_bytes == amount.high_bytes:
        return ""
    return f" {amount.low_bytes / GIB:.2f}-{amount.high_bytes / GIB:.2f}"


def _span(amount: Amount) -> str:
    """The range in a sentence; nothing where there is none."""
    if amount.low_bytes == amount.high_bytes:
        return ""
    return f" ({amount.low_bytes / GIB:.2f} to {amount.high_bytes / GIB:.2f} GiB)"


def _cache(run: DryRun) -> Iterator[str]:
    tokens, concurrency = run.kv_tokens, run.concurrency
    if tokens is None:
        return
    text = f"KV cache: {_number(tokens, ',.0f')} tokens"
    if concurrency is not None:
        length = run.settings.get("max_model_len")
        text += f", {_number(concurrency, '.2f')} requests of {length} tokens at once"
    yield from _wrapped(f"{text}.")
    rank = run.ranks[0] if run.ranks else None
    if rank is not None and rank.requested_bytes is not None and rank.kv_room_bytes is not None:
        parts = [
            ("weights", rank.weights),
            ("activation", rank.activation_peak),
            ("graphs estimated", rank.graphs_estimated),
        ]
        told = [f"{name} {format_bytes(part.bytes)}" for name, part in parts if part]
        rest = rank.requested_bytes - rank.kv_room_bytes
        rest -= sum(part.bytes for _, part in parts if part)
        yield from _wrapped(
            f"Budget: {format_bytes(rank.requested_bytes)} asked for, less {', '.join(told)} and "
            f"{format_bytes(rest)} besides, leaves {format_bytes(rank.kv_room_bytes)}."
        )


def _number(count: Count, form: str) -> str:
    if count.low == count.high:
        return f"{count.value:{form}}"
    return f"{count.value:{form}} ({count.low:{form}} to {count.high:{form}})"


def _other_rank(rank: Rank) -> str:
    rows = {row.name: row.amount.bytes for row in rank.started or rank.peak}
    parts = [f"GPU {rank.device}, rank {rank.rank}:"]
    if rank.weights is not None:
        parts.append(f"weights {format_bytes(rank.weights.bytes)},")
    if rank.kv_cache is not None:
        parts.append(f"KV cache {format_bytes(rank.kv_cache.bytes)},")
    if "free" in rows:
        parts.append(f"free {format_bytes(rows['free'])}")
    return " ".join(parts)


def _host(run: DryRun) -> Iterator[str]:
    host = run.host
    if host is None:
        return
    several = "" if host.processes_count == 1 else "es"
    yield from _wrapped(
        f"Host memory at start: {format_bytes(host.held.bytes)}{_span(host.held)} held by "
        f"{host.processes_count} process{several}, {format_bytes(host.reclaimable.bytes)}"
        f"{_span(host.reclaimable)} page cache of the weights that the kernel may take back."
    )


def _timeline(run: DryRun) -> Iterator[str]:
    """The steps of rank 0 and of the process that starts it, in their order."""
    steps = [phase for phase in run.timeline if phase.rank in {None, 0}]
    inner = {"engine"}  # the sum of what follows it
    longest = sorted(
        (phase for phase in steps if phase.name not in inner), key=lambda phase: -phase.seconds
    )[:_STEPS_COUNT]
    told = [f"{phase.name} {phase.seconds:.0f} s" for phase in steps if phase in longest]
    if told:
        yield from _wrapped(f"Time line, here and not on a GPU: {', '.join(told)}.")


def _wrapped(text: str) -> Iterable[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
