"""A run for one length of requests from two others, which measured the same for all between."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from memacct.dry_run.arguments import number_of, value_of, with_option
from memacct.dry_run.fingerprint import BETWEEN
from memacct.dry_run.result import Count
from memacct.planning.pool import ceil_div

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.dry_run.request import Request
    from memacct.dry_run.result import DryRun

UTILIZATION, KV_BYTES, LENGTH = BETWEEN
#: Lengths with which an engine chooses its own, by what is left.
CHOSEN = frozenset({"-1", "auto"})
# Of each rank.
_MEASURED = (
    "kv_room_bytes",
    "kv_block_bytes",
    "weights",
    "activation_peak",
    "non_torch",
    "graphs_estimated",
    "graphs",
    "free_at_start_bytes",
)


def between(request: Request, runs: Sequence[DryRun]) -> list[DryRun]:
    """A run of the wanted length that two others determine: one shorter and one longer.

    They must agree in all that they measured, and have one kind of layers, of which a request takes
    as many blocks as its length does; a length in between cannot measure anything else, since
    nothing in an engine shrinks when requests may be longer.
    """
    length = number_of(request.arguments, LENGTH)
    if length is None or length < 1:
        return []
    pairs = (
        (low, high)
        for low in runs
        for high in runs
        if _length(low) < length < _length(high) and _agree(low, high)
    )
    return [_at_length(high, length, request) for _, high in pairs][:1]


def _length(run: DryRun) -> int:
    length = run.settings.get("max_model_len")
    chosen = value_of(run.request.arguments, LENGTH) in CHOSEN
    return length if isinstance(length, int) and not chosen else 0


def _agree(low: DryRun, high: DryRun) -> bool:
    """Whether two runs measured the same, whatever their lengths."""
    block = low.settings.get("block_size")
    if not isinstance(block, int) or not _length(low):
        return False
    same_asked = all(
        value_of(low.request.arguments, name) == value_of(high.request.arguments, name)
        for name in (UTILIZATION, KV_BYTES)
    )
    plain = all(run.kv_request_blocks_count == ceil_div(_length(run), block) for run in (low, high))
    neighbours = low.request.machine.neighbours_bytes == high.request.machine.neighbours_bytes
    return same_asked and plain and neighbours and _measured(low) == _measured(high)


def _measured(run: DryRun) -> tuple[object, ...]:
    settings = {name: each for name, each in run.settings.items() if name != "max_model_len"}
    return settings, [[getattr(rank, name) for name in _MEASURED] for rank in run.ranks]


def _at_length(run: DryRun, length: int, request: Request) -> DryRun:
    """The longer run, told of requests of this length; its tables are the longer ones."""
    block = run.settings["block_size"]
    arguments = with_option(run.request.arguments, LENGTH, value_of(request.arguments, LENGTH))
    blocks = ceil_div(length, int(str(block)))
    times, before = (run.kv_request_blocks_count or 0) / blocks, run.concurrency
    return replace(
        run,
        request=replace(run.request, arguments=arguments),
        kv_request_blocks_count=blocks,
        concurrency=before
        and Count(value=before.value * times, low=before.low * times, high=before.high * times),
    )
