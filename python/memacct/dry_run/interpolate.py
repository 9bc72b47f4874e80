"""Answers reckoned from runs: where an engine's own arithmetic is all that changes, else none.

What an engine finds left for its KV cache is what it asks for less what it measured, and what it
measured does not depend on what it asks for: so one run answers for every utilization, for every
size of the KV cache that is given, and for other neighbours, who matter only to what is free.
Another ``max_model_len`` changes tables and batches; between two runs that agree in all they
measured it can only change the blocks of a request. Whatever is not provably so is left to a run:
growing into memory that the run may have needed for a moment, a length that the engine chooses,
and models of several kinds of layers (whose graphs depend on the blocks) with few blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from memacct.dry_run.arguments import number_of, value_of
from memacct.dry_run.between import CHOSEN, KV_BYTES, LENGTH, UTILIZATION, between
from memacct.dry_run.equation import CACHED, FREE, KV_CACHE, NEIGHBOURS
from memacct.dry_run.moved import amount_by, row_bytes, rows_by
from memacct.dry_run.neighbours import PAGE_BYTES, held_bytes
from memacct.dry_run.result import Amount, Count, DryRun, Rank, Refusal
from memacct.planning.pool import ceil_div

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from memacct.dry_run.request import Request

# With these the KV cache is not what the engine finds left, or each engine has its own.
_NOT_WITH = ("--num-gpu-blocks-override", "--data-parallel-size", "--config")
# Above it no engine cuts its graphs to the blocks that it has.
_MANY_BLOCKS = 1024
_BLOCKS_PER_SEQUENCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """What differs from the run, in bytes of each GPU.

    Attributes:
        requested_bytes: by rank, of the new utilization.
        given_bytes: of the KV cache, where it is given.
        neighbours_bytes: more than in the run.
    """

    requested_bytes: tuple[int, ...]
    given_bytes: int | None
    neighbours_bytes: int


def interpolate(request: Request, runs: Iterable[DryRun]) -> DryRun | None:
    """The answer to a request from runs that differ from it only in `BETWEEN` and in neighbours.

    Args:
        request: what is asked.
        runs: of its family (`memacct.dry_run.cache`); their other options are not compared.

    Returns:
        Its tokens are those of a run, to the token; None where only a run can tell.
    """
    started = [each for each in runs if each.verdict == "starts" and _is_complete(each)]
    if any(value_of(request.arguments, name) is not None for name in _NOT_WITH):
        return None
    if value_of(request.arguments, LENGTH) in CHOSEN:
        return None
    for run in (*_same_length(request, started), *between(request, started)):
        found = _answer(request, run)
        if found is not None:
            return found
    return None


def _is_complete(run: DryRun) -> bool:
    return (
        bool(run.ranks and run.kv_blocks_count and run.kv_request_blocks_count)
        and run.origin != "interpolated"
        and all(
            None not in {each.kv_room_bytes, each.kv_block_bytes, each.requested_bytes}
            and each.free_at_start_bytes is not None
            and each.kv_cache is not None
            for each in run.ranks
        )
    )


def _same_length(request: Request, runs: Sequence[DryRun]) -> list[DryRun]:
    wanted = value_of(request.arguments, LENGTH)
    return [each for each in runs if value_of(each.request.arguments, LENGTH) == wanted]


def _answer(request: Request, run: DryRun) -> DryRun | None:
    change = _change(request, run)
    if change is None:
        return None
    answer = replace(
        run,
        request=request,
        origin="interpolated",
        ranks=_asked(run.ranks, change),
        settings=_settings(request, run),
        notes=(*run.notes, "reckoned from a run: all but the KV cache is that run's"),
    )
    refusal = _refusal(answer)
    if refusal is None:
        return _filled(answer, run)
    return None if refusal == "unknown" else _not_started(answer, refusal)


def _not_started(answer: DryRun, refusal: Refusal) -> DryRun:
    ranks = [replace(each, kv_cache=None, graphs=None, started=()) for each in answer.ranks]
    return replace(
        answer,
        verdict="does not fit",
        refusal=refusal,
        kv_tokens=None,
        concurrency=None,
        kv_blocks_count=None,
        ranks=tuple(ranks),
    )


def _change(request: Request, run: DryRun) -> _Change | None:
    """What the request asks for differently; None if that is not told or not known."""
    ours, theirs = request.arguments, run.request.arguments
    given, was_given = number_of(ours, KV_BYTES), number_of(theirs, KV_BYTES)
    if (given is None) != (was_given is None):
        return None  # an engine that is given its cache does not measure its graphs
    requested = tuple(_requested(ours, theirs, run, rank) for rank in run.ranks)
    if None in requested:
        return None
    held, was_held = (
        sum(map(held_bytes, each.machine.neighbours_bytes)) for each in (request, run.request)
    )
    return _Change(
        requested_bytes=tuple(each for each in requested if each is not None),
        given_bytes=given,
        neighbours_bytes=held - was_held,
    )


def _requested(ours: Sequence[str], theirs: Sequence[str], run: DryRun, rank: Rank) -> int | None:
    """What the engine asks for, as that version rounds it; None where that is not known."""
    if value_of(ours, UTILIZATION) == value_of(theirs, UTILIZATION):
        return rank.requested_bytes
    told, before = _utilization(ours), run.settings.get("gpu_memory_utilization")
    if told is None or not isinstance(before, int | float):
        return None
    for rounded in (math.ceil, math.floor):
        if rounded(rank.total_bytes * before) == rank.requested_bytes:
            return rounded(rank.total_bytes * told)
    return None


def _utilization(arguments: Sequence[str]) -> float | None:
    """What is asked for; None where it is not given, or what only the engine can refuse."""
    value = value_of(arguments, UTILIZATION)
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _settings(request: Request, run: DryRun) -> dict[str, object]:
    """The run's settings with what the request says instead."""
    told: dict[str, object] = dict(run.settings)
    utilization, length = _utilization(request.arguments), number_of(request.arguments, LENGTH)
    if utilization is not None:
        told["gpu_memory_utilization"] = utilization
    if length is not None:
        told["max_model_len"] = length
    return told


def _asked(ranks: Sequence[Rank], change: _Change) -> tuple[Rank, ...]:
    """The ranks until the KV cache is made: what they ask for, find free, and have left."""
    found = []
    for rank, requested in zip(ranks, change.requested_bytes, strict=True):
        more = requested - (rank.requested_bytes or 0)
        room = (
            (rank.kv_room_bytes or 0) + more if change.given_bytes is None else change.given_bytes
        )
        deltas = {NEIGHBOURS: change.neighbours_bytes, FREE: -change.neighbours_bytes}
        found.append(
            replace(
                rank,
                requested_bytes=requested,
                free_at_start_bytes=(rank.free_at_start_bytes or 0) - change.neighbours_bytes,
                kv_room_bytes=room,
                peak=rows_by(rank.peak, deltas),
                started=rows_by(rank.started, deltas),
            )
        )
    return tuple(found)


def _refusal(answer: DryRun) -> Refusal | Literal["unknown"] | None:
    """Why the engine would refuse; "unknown" between what older and newer versions need."""
    for rank in answer.ranks:
        short = (rank.requested_bytes or 0) - (rank.free_at_start_bytes or 0)
        if short > 0:
            return _refused("free below requested", short)
    wanted = answer.kv_request_blocks_count or 0
    for rank in answer.ranks:
        room, block = rank.kv_room_bytes or 0, rank.kv_block_bytes or 0
        missing = (wanted + 1) * block - room
        if room <= 0:
            return _refused("no room for KV cache", missing)
        if room < wanted * block:
            return _refused("KV cache below one request", missing)
        # Newer engines keep one block for themselves and count it here, older ones do not.
        if missing > 0:
            return "unknown"
    return None


def _refused(kind: str, missing_bytes: int) -> Refusal:
    missing = Amount(
        bytes=missing_bytes,
        low_bytes=missing_bytes,
        high_bytes=missing_bytes,
        source="reckoned from a run with other settings",
    )
    return Refusal(kind=kind, message="(reckoned, so without the engine's words)", missing=missing)


def _filled(answer: DryRun, run: DryRun) -> DryRun | None:
    """The answer with its KV cache; None where it could want memory that may not be there."""
    blocks = min((rank.kv_room_bytes or 0) // (rank.kv_block_bytes or 1) for rank in answer.ranks)
    if not _cuts_no_graphs(answer, min(blocks, run.kv_blocks_count or 0)):
        return None
    ranks = []
    for rank, before in zip(answer.ranks, run.ranks, strict=True):
        more = (blocks - (run.kv_blocks_count or 0)) * (rank.kv_block_bytes or 0)
        held = (before.free_at_start_bytes or 0) - (rank.free_at_start_bytes or 0)
        if not _has_room(before, more + held, held):
            return None
        cache = None if rank.kv_cache is None else amount_by(rank.kv_cache, more)
        pages = _pages_bytes(cache) - _pages_bytes(rank.kv_cache)
        deltas = {KV_CACHE: more, CACHED: pages - more, FREE: -pages}
        ranks.append(replace(rank, kv_cache=cache, started=rows_by(rank.started, deltas)))
    return _counted(replace(answer, ranks=tuple(ranks), kv_blocks_count=blocks), run)


def _pages_bytes(cache: Amount | None) -> int:
    """What PyTorch's allocator takes of the device for one storage of that size.

    Of several storages (older engines have one a layer) each is rounded; then what is told of free
    and of cached pages may be a page a layer off.
    """
    return 0 if cache is None else ceil_div(cache.bytes, PAGE_BYTES) * PAGE_BYTES


def _cuts_no_graphs(answer: DryRun, blocks_count: int) -> bool:
    """Whether the engine captures the same graphs: those of states are cut to the blocks there."""
    length, block = (answer.settings.get(name) for name in ("max_model_len", "block_size"))
    sizes = isinstance(length, int) and isinstance(block, int)
    if sizes and answer.kv_request_blocks_count == ceil_div(int(str(length)), int(str(block))):
        return True  # one kind of layers, with attention to all tokens
    sequences = answer.settings.get("max_num_seqs")
    least = sequences * _BLOCKS_PER_SEQUENCE if isinstance(sequences, int) else math.inf
    return blocks_count >= max(_MANY_BLOCKS, least)


def _has_room(rank: Rank, more_bytes: int, held_bytes: int) -> bool:
    """Whether so much more may be taken of the GPU than in the run, at every moment of it.

    After the KV cache is made an engine warms up and captures, for which it may need as much as at
    its peak; how much it needed for a moment is not in the run's answer, so that much is kept free.
    """
    if more_bytes <= 0 and held_bytes <= 0:
        return True
    free, at_peak = row_bytes(rank.started, FREE), row_bytes(rank.peak, FREE)
    if free is None or at_peak is None:
        return False
    kept = sum(each.high_bytes for each in (rank.activation_peak, rank.graphs) if each is not None)
    return free - more_bytes >= kept and at_peak - held_bytes >= 0


def _counted(answer: DryRun, run: DryRun) -> DryRun:
    """Tokens and requests of so many blocks, as the engine counts them."""
    wanted, length = (
        answer.kv_request_blocks_count or 1,
        float(str(answer.settings["max_model_len"])),
    )
    blocks = answer.kv_blocks_count or 0
    low, high = (max(blocks + each, 0) for each in _spread(run))
    return replace(
        answer,
        settings={**answer.settings, "num_gpu_blocks": blocks},
        kv_tokens=Count(
            value=int(blocks / wanted * length),
            low=int(low / wanted * length),
            high=int(high / wanted * length),
        ),
        concurrency=Count(value=blocks / wanted, low=low / wanted, high=high / wanted),
    )


def _spread(run: DryRun) -> tuple[int, int]:
    """Blocks that it may be less and more, by what the run says of its tokens."""
    if run.concurrency is None:
        return 0, 0
    wanted, blocks = run.kv_request_blocks_count or 1, run.kv_blocks_count or 0
    low, high = run.concurrency.low, run.concurrency.high
    return round(low * wanted) - blocks, round(high * wanted) - blocks
