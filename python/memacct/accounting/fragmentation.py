"""Of an allocator's segments: what could be given back, what could not, and which blocks why.

Pure: over the list of dicts that ``torch.cuda.memory_snapshot()`` returns. The rules are those
of PyTorch's native allocator (``release_blocks``): a segment goes back whole, when no live block
is left in it; of an expandable segment each page that no live block touches is unmapped; of a
private pool nothing goes back before its owner is gone.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from memacct._units import MIB
from memacct.accounting.fragmentation_types import (
    CacheGroup,
    Fragmentation,
    PieceTerms,
    PinningBlock,
    SegmentUse,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from memacct.accounting.fragmentation_types import Reason

    Block = dict[str, Any]
    Segment = dict[str, Any]

_PAGE_BYTES = {"small": 2 * MIB, "large": 20 * MIB}  # of expandable segments
_SMALL_REQUEST_BYTES = MIB  # the largest that small segments serve
_TERMS = tuple(field.name for field in fields(PieceTerms))


def examine(
    segments: Sequence[Segment],
    *,
    uuid: str,
    owned_pools: Collection[str] = (),
    asleep: Collection[int] = (),
    blocks_count: int = 20,
) -> Fragmentation:
    """Returns what one device's segments hold and could give back.

    Args:
        segments: of ``torch.cuda.memory_snapshot()``, those of one device.
        uuid: the device's.
        owned_pools: ids of private pools whose owner was found.
        asleep: addresses of segments without memory behind them.
        blocks_count: how many of the blocks that pin most are kept.
    """
    uses = tuple(_use(segment, asleep) for segment in segments)
    whole = {name: sum(getattr(use, name) for use in uses) for name in _TERMS}
    ownerless = sum(use.private_bytes for use in uses if use.pool not in owned_pools)
    groups = _groups(uses)
    pinning = [block for segment in segments for block in _pinning_blocks(segment)]
    pinning.sort(key=lambda block: (-block.pins_bytes, block.address))
    cached = whole["reserved_bytes"] - whole["live_bytes"]
    low = whole["returnable_bytes"]
    return Fragmentation(
        uuid=uuid,
        backend="native",
        **whole,
        returnable_bounds_bytes=(low, low + ownerless),
        fragmentation_ratio=whole["pinned_bytes"] / cached if cached else None,
        largest_request_bytes=max(
            (group.largest_request_bytes for group in groups if not group.pool), default=0
        ),
        groups=groups,
        segments=uses,
        pinning_blocks=tuple(pinning[:blocks_count]),
    )


def without_segments(
    *, uuid: str, backend: str, reserved_bytes: int, live_bytes: int
) -> Fragmentation:
    """Returns what is known where the allocator keeps no blocks: it could give back all or none."""
    cached = reserved_bytes - live_bytes
    return Fragmentation(
        uuid=uuid,
        backend=backend,
        reserved_bytes=reserved_bytes,
        live_bytes=live_bytes,
        returnable_bytes=None if cached else 0,
        pinned_bytes=None if cached else 0,
        private_bytes=None if cached else 0,
        waiting_bytes=None,
        asleep_bytes=None,
        returnable_bounds_bytes=(0, cached),
        fragmentation_ratio=None,
        largest_request_bytes=None,
        groups=(),
        segments=(),
        pinning_blocks=(),
    )


# ---------------------------------------------------------------- one segment


def _is_live(block: Block) -> bool:
    # "active_awaiting_free" and "active_pending_free": the program has freed it, a stream not yet.
    return bool(block["state"] == "active_allocated")


def _pool_of(segment: Segment) -> str:
    pool_id = segment.get("segment_pool_id", (0, 0))
    return "" if tuple(pool_id) == (0, 0) else "_".join(map(str, pool_id))


def _use(segment: Segment, asleep: Collection[int]) -> SegmentUse:
    blocks = segment["blocks"]
    live = [block["size"] for block in blocks if _is_live(block)]
    free = [block["size"] for block in blocks if block["state"] == "inactive"]
    total, pool = segment["total_size"], _pool_of(segment)
    sleeps = segment["address"] in asleep
    loose = _loose_bytes(segment)
    pinned = total - sum(live) - loose
    return SegmentUse(
        address=segment["address"],
        pool=pool,
        stream=segment["stream"],
        size_class=segment["segment_type"],
        expandable=bool(segment.get("is_expandable")),
        live_count=len(live),
        largest_free_bytes=0 if sleeps else max(free, default=0),
        reason=_reason(segment, pinned=pinned > 0, private=loose > 0 and pool != ""),
        reserved_bytes=total,
        live_bytes=sum(live),
        returnable_bytes=0 if pool else loose,
        pinned_bytes=pinned,
        private_bytes=loose if pool else 0,
        waiting_bytes=sum(b["size"] for b in blocks if not _is_live(b)) - sum(free),
        asleep_bytes=total if sleeps else 0,
    )


def _reason(segment: Segment, *, pinned: bool, private: bool) -> Reason:
    if private:
        return "private pool"
    if not pinned:
        return ""
    return "shared pages" if segment.get("is_expandable") else "live blocks"


def _loose_bytes(segment: Segment) -> int:
    """Returns what no live block holds: the whole segment, or whole pages of it."""
    if segment.get("is_expandable"):
        return sum(right - left for _, left, right, _ in _free_runs(segment))
    return 0 if any(map(_is_live, segment["blocks"])) else segment["total_size"]


def _placed(segment: Segment) -> Iterator[tuple[int, Block]]:
    """Yields its blocks with their offsets."""
    offset = 0
    for block in segment["blocks"]:
        yield offset, block
        offset += block["size"]


def _free_runs(segment: Segment) -> Iterator[tuple[int, int, int, int]]:
    """Yields of each run of free blocks: begin, its whole pages' begin and end, end.

    Offsets in the segment, which begins with a page and consists of whole ones.
    """
    page = math.gcd(_PAGE_BYTES[segment["segment_type"]], segment["total_size"])
    live = [(offset, offset + b["size"]) for offset, b in _placed(segment) if _is_live(b)]
    begins = (0, *(end for _, end in live))
    ends = (*(begin for begin, _ in live), segment["total_size"])
    for begin, end in zip(begins, ends, strict=True):
        if begin < end:
            left, right = -(-begin // page) * page, end // page * page
            yield (begin, left, right, end) if left < right else (begin, end, end, end)


# ---------------------------------------------------------------- blocks that pin


def _pinning_blocks(segment: Segment) -> Iterator[PinningBlock]:
    live = [(offset, block) for offset, block in _placed(segment) if _is_live(block)]
    if segment.get("is_expandable"):
        shares = _page_shares(segment, live)
    else:
        free_bytes = segment["total_size"] - sum(block["size"] for _, block in live)
        shares = [(free_bytes + number) // len(live) for number in range(len(live))]
    for (offset, block), share in zip(live, shares, strict=True):
        if share:
            yield PinningBlock(
                address=segment["address"] + offset,
                size_bytes=block["size"],
                requested_bytes=block["requested_size"],
                pins_bytes=share,
                beside_count=len(live) - 1,
                pool=_pool_of(segment),
                stream=segment["stream"],
                where=tuple(_place(frame) for frame in block.get("frames", ())),
            )


def _page_shares(segment: Segment, live: Sequence[tuple[int, Block]]) -> list[int]:
    """Returns for each live block the free bytes of the pages that it ends or begins in."""
    shares = [0] * len(live)
    before = {offset + block["size"]: number for number, (offset, block) in enumerate(live)}
    after = {offset: number for number, (offset, _) in enumerate(live)}
    for begin, left, right, end in _free_runs(segment):
        head, tail = left - begin, end - right
        first, last = before.get(begin), after.get(end)
        if left == right and first is not None and last is not None:
            head, tail = head - head // 2, head // 2  # no whole page: it takes both to go
        elif first is None:
            first, head, tail = last, head + tail, 0
        if first is not None:
            shares[first] += head
        if last is not None:
            shares[last] += tail
    return shares


def _place(frame: dict[str, Any]) -> str:
    return f"{frame['filename']}:{frame['line']} {frame['name']}"


# ---------------------------------------------------------------- groups


def _groups(uses: Sequence[SegmentUse]) -> tuple[CacheGroup, ...]:
    members: dict[tuple[str, int, str], list[SegmentUse]] = {}
    for use in uses:
        members.setdefault((use.pool, use.stream, use.size_class), []).append(use)
    found = [
        CacheGroup(
            pool=pool,
            stream=stream,
            size_class=size_class,
            segments_count=len(segments),
            largest_request_bytes=_largest_request(size_class, segments),
            **{name: sum(getattr(use, name) for use in segments) for name in _TERMS},
        )
        for (pool, stream, size_class), segments in members.items()
    ]
    return tuple(sorted(found, key=lambda group: -group.reserved_bytes))


def _largest_request(size_class: str, segments: Sequence[SegmentUse]) -> int:
    largest = max(use.largest_free_bytes for use in segments)
    if size_class == "small":
        return min(largest, _SMALL_REQUEST_BYTES)
    # What is left of a large segment serves no request that small segments are for.
    return largest if largest > _SMALL_REQUEST_BYTES else 0
