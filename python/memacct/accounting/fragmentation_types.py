"""What a caching allocator's reserve is made of, and what of it could be given back.

reserved = live + returnable + pinned + private, to the byte: of each segment, each group and
the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["", "live blocks", "shared pages", "private pool", "not told"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceTerms:
    """The terms of the sum, all in bytes.

    Attributes:
        reserved_bytes: held from the driver.
        live_bytes: in blocks that the program holds.
        returnable_bytes: what ``torch.cuda.empty_cache()`` would give back now.
        pinned_bytes: in no block, but in segments (of expandable ones: pages) of live blocks.
        private_bytes: in free segments of private pools, which stay until the pool's owner (a
            graph, a MemPool) is gone, whatever is emptied.
        waiting_bytes: of all but live, freed by the program and still in use by a stream;
            emptying the cache waits for it.
        asleep_bytes: of all, with no memory behind it (an engine's sleeping pools).
    """

    reserved_bytes: int
    live_bytes: int
    returnable_bytes: int
    pinned_bytes: int
    private_bytes: int
    waiting_bytes: int
    asleep_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentUse(PieceTerms):
    """One piece of memory that the allocator holds from the driver.

    Attributes:
        address: of its first byte.
        pool: "" for the default pool, or the private pool's id, "0_1".
        stream: the handle of the stream whose requests it serves; 0 is the default one.
        size_class: "small" serves requests of up to 1 MiB, "large" all others.
        expandable: it grows and shrinks by pages.
        live_count: its live blocks.
        largest_free_bytes: its largest block that is free at once.
        reason: why not all of its cache is returnable; "" if it is.
    """

    address: int
    pool: str
    stream: int
    size_class: str
    expandable: bool
    live_count: int
    largest_free_bytes: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGroup(PieceTerms):
    """The segments among which a request may choose: of one pool, stream and size class.

    Attributes:
        segments_count: how many there are.
        largest_request_bytes: the largest request that needs nothing more from the driver.
    """

    pool: str
    stream: int
    size_class: str
    segments_count: int
    largest_request_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PinningBlock:
    """A live block that keeps free memory from being given back.

    Attributes:
        address: of its first byte.
        size_bytes: what it takes of its segment.
        requested_bytes: what was asked for.
        pins_bytes: its share of the pinned bytes. A segment's are divided evenly among its live
            blocks; of an expandable one's each page belongs to the live blocks beside it. The
            shares of all blocks add up to ``pinned_bytes``.
        beside_count: the other live blocks of its segment; 0: its end alone gives all back.
        where: where it was allocated, innermost first, if that was recorded
            (``torch.cuda.memory._record_memory_history``).
    """

    address: int
    size_bytes: int
    requested_bytes: int
    pins_bytes: int
    beside_count: int
    pool: str
    stream: int
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragmentation:
    """What one device's allocator holds and could give back; ``str()`` is a table.

    Attributes:
        uuid: the device's.
        backend: the allocator's; only of "native" are the segments known.
        reserved_bytes: as the sum of the segments; of other backends by their counters.
        returnable_bounds_bytes: (low, high). They differ where a private pool has no owner that
            could be found: it may be one that is gone, whose segments are returnable as well.
        fragmentation_ratio: pinned / (reserved - live); None if nothing is cached.
        largest_request_bytes: the largest request that the default pool serves on some stream
            without more from the driver.
        pinning_blocks: those that pin most, most first.
    """

    uuid: str
    backend: str
    reserved_bytes: int
    live_bytes: int
    returnable_bytes: int | None
    pinned_bytes: int | None
    private_bytes: int | None
    waiting_bytes: int | None
    asleep_bytes: int | None
    returnable_bounds_bytes: tuple[int, int]
    fragmentation_ratio: float | None
    largest_request_bytes: int | None
    groups: tuple[CacheGroup, ...]
    segments: tuple[SegmentUse, ...]
    pinning_blocks: tuple[PinningBlock, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data that JSON can hold."""
        from memacct._convert import to_dict

        return to_dict(self)

    def __str__(self) -> str:
        from memacct.accounting.fragmentation_text import render

        return render(self)
