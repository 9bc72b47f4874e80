"""A dry run's exact numbers turned into ranges: what the costs and the card leave open."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memacct._units import MIB

from .equation import CONTEXT, FREE, GRAPHS, KV_CACHE, NON_TORCH
from .flashinfer import without_flashinfer
from .machine import cuda_total_range_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .costs import Costs
    from .request import Machine
    from .result import Amount, Count, DryRun, Rank, Refusal, Row

# Kernels that do nothing feed back no sizes and tune nothing: what the engine itself allocates
# on a GPU is not quite what it allocates here. Of the size of a few of PyTorch's segments.
ENGINE_BYTES = 64 * MIB

# vLLM's own and PyTorch's, where several GPUs share a layer.
_COMMUNICATORS = 2


def with_ranges(run: DryRun, costs: Costs) -> DryRun:
    """The dry run with what its costs leave open.

    Of a term only its distance to the central value matters here: that value is in the exact
    numbers already, since the simulated GPU was told it. Each byte of a cost within the engine's
    budget is one byte less of KV cache. Terms add up in quadrature: their causes are different
    (a card's kernels, the driver's graphs, the topology, the card's total), so that all
    of them are hardly at the same end at once; what has one cause adds up linearly.
    """
    machine = run.request.machine
    ranks = tuple(widen(rank, costs, machine=machine) for rank in run.ranks)
    rooms = [rank.kv_cache for rank in ranks if rank.kv_cache is not None]
    refused = _refusal(run, costs)
    notes = (*run.notes, *(note for note in costs.notes if note not in run.notes))
    return replace(
        run,
        ranks=ranks,
        refusal=refused,
        kv_tokens=_count(run.kv_tokens, rooms),
        concurrency=_count(run.concurrency, rooms),
        notes=(*notes, *without_flashinfer(run), *_doubts(refused, ranks)),
    )


def widen(rank: Rank, costs: Costs, *, machine: Machine) -> Rank:
    """One worker's numbers with their ranges."""
    graphs = _graph_offsets(rank, costs)
    inside = _inside(costs)
    below, above = _room(rank, costs, machine)
    context = _quadrature([_offsets(costs.context), _offsets(costs.wsl)])
    outside = _quadrature([context, _communicator(costs)])
    amounts: dict[str, Any] = {
        "non_torch": _around(rank.non_torch, *_quadrature(inside)),
        "activation_peak": _around(rank.activation_peak, ENGINE_BYTES, ENGINE_BYTES),
        "graphs_estimated": _around(rank.graphs_estimated, *graphs),
        "graphs": _around(rank.graphs, *graphs),
        # What costs less leaves more room, and the other way round.
        "kv_cache": _around(rank.kv_cache, above, below),
        "context": _around(rank.context, *context),
    }
    by_row = {
        CONTEXT: context,
        NON_TORCH: _quadrature([*inside, _communicator(costs)]),
        GRAPHS: graphs,
        KV_CACHE: (above, below),
        FREE: _swapped(_quadrature([outside, graphs])),
    }
    return replace(
        rank,
        **amounts,
        peak=_rows(rank.peak, {**by_row, FREE: _swapped(_quadrature([outside, *inside]))}),
        started=_rows(rank.started, by_row),
    )


Offsets = tuple[int, int]  # by how much it may be less, and more


def _offsets(amount: Amount) -> Offsets:
    return amount.bytes - amount.low_bytes, amount.high_bytes - amount.bytes


def _inside(costs: Costs) -> list[Offsets]:
    """Terms within the engine's budget; kernels and Windows have one cause, the driver."""
    kernels, windows = _offsets(costs.kernels), _offsets(costs.wsl_later)
    driver = (kernels[0] + windows[0], kernels[1] + windows[1])
    return [driver, _offsets(costs.collectives), _offsets(costs.cublas)]


def _room(rank: Rank, costs: Costs, machine: Machine) -> Offsets:
    """By how much what an engine's budget loses to all but its KV cache may be less, and more."""
    engine = (ENGINE_BYTES, ENGINE_BYTES)
    graphs, requested = _graph_offsets(rank, costs), _requested(rank, machine)
    return _quadrature([*_inside(costs), graphs, requested, engine])


def _communicator(costs: Costs) -> Offsets:
    """Communicators with their first collective: the engine's own and PyTorch's are alike."""
    made, first = _offsets(costs.nccl), _offsets(costs.nccl_first)
    return _COMMUNICATORS * (made[0] + first[0]), _COMMUNICATORS * (made[1] + first[1])


def _graph_offsets(rank: Rank, costs: Costs) -> Offsets:
    """What instantiated graphs may take less and more, in proportion to what they took here."""
    taken = rank.graphs_driver_bytes
    central = costs.graph.bytes + costs.graph_node.bytes
    if not taken or not central:
        return 0, 0
    less, more = (
        sum(each) / central
        for each in zip(_offsets(costs.graph), _offsets(costs.graph_node), strict=True)
    )
    return round(taken * less), round(taken * more)


def _requested(rank: Rank, machine: Machine) -> Offsets:
    """What the card's total leaves open of what the engine asks for: a part of CUDA's total.

    As a cost: a larger total is more room, so less taken.
    """
    if not rank.requested_bytes or not rank.total_bytes:
        return 0, 0
    low, high = cuda_total_range_bytes(machine)
    part = rank.requested_bytes / rank.total_bytes
    less, more = max(rank.total_bytes - low, 0), max(high - rank.total_bytes, 0)
    return round(part * more), round(part * less)


def _quadrature(each: Iterable[Offsets]) -> Offsets:
    both = list(each)
    return (
        math.ceil(math.hypot(*(less for less, _ in both))),
        math.ceil(math.hypot(*(more for _, more in both))),
    )


def _swapped(offsets: Offsets) -> Offsets:
    return offsets[1], offsets[0]


def _around(amount: Amount | None, less: int, more: int) -> Amount | None:
    if amount is None:
        return None
    return replace(
        amount,
        low_bytes=max(amount.bytes - less, min(amount.bytes, 0)),
        high_bytes=amount.bytes + more,
    )


def _rows(rows: tuple[Row, ...], offsets: Mapping[str, Offsets]) -> tuple[Row, ...]:
    return tuple(
        replace(row, amount=_around(row.amount, *offsets[row.name]) or row.amount)
        if row.name in offsets
        else row
        for row in rows
    )


def _count(count: Count | None, rooms: Iterable[Amount]) -> Count | None:
    """Tokens and requests are in proportion to the room of the worker that loses most of it.

    Of several, as all have as many blocks: stages of a pipeline have blocks of different sizes.
    """
    kept = [
        (room.low_bytes / room.bytes, room.high_bytes / room.bytes)
        for room in rooms
        if room.bytes > 0
    ]
    if count is None or not kept:
        return count
    low, high = (min(each) for each in zip(*kept, strict=True))
    return replace(count, low=count.value * low, high=count.value * high)


def _refusal(run: DryRun, costs: Costs) -> Refusal | None:
    """Why it does not start, with the range of what is missing."""
    found = run.refusal
    if found is None or found.missing is None or not run.ranks:
        return found
    offsets = _room(run.ranks[0], costs, run.request.machine)
    return replace(found, missing=_around(found.missing, *offsets))


def _doubts(refused: Refusal | None, ranks: tuple[Rank, ...]) -> tuple[str, ...]:
    """Where the verdict itself is within the ranges."""
    if refused is not None:
        sure = refused.missing is None or refused.missing.low_bytes > 0
        may = "it may start after all: what is missing is within the range of the costs"
        return () if sure else (may,)
    least = min((rank.kv_cache.low_bytes for rank in ranks if rank.kv_cache), default=None)
    if least is not None and least <= 0:
        return ("it may not start: at the low end of the range nothing is left for the KV cache",)
    return ()
