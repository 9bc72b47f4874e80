"""The text of a fragmentation report: the sum, its groups, and the blocks that pin most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._printable import printable
from memacct._units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memacct.accounting.fragmentation_types import CacheGroup, Fragmentation, PinningBlock

_GROUPS_SHOWN = 12
_BLOCKS_SHOWN = 10
_NAMES = (
    ("live", "in blocks that the program holds"),
    ("returnable", "empty_cache() would give it back now"),
    ("pinned", "free, in segments or pages of live blocks"),
    ("private", "free, in pools of graphs or of MemPools"),
)


def render(found: Fragmentation) -> str:
    """Returns the report as lines of text."""
    terms = [[f"  {name}", _size(getattr(found, f"{name}_bytes")), t] for name, t in _NAMES]
    return "\n".join(
        [
            f"{found.uuid}, PyTorch's allocator ({found.backend})",
            *_table([["reserved", _size(found.reserved_bytes), "held from the driver"], *terms]),
            *_notes(found),
            *_groups(found.groups),
            *_blocks(found.pinning_blocks),
        ]
    )


def _size(value: int | None) -> str:
    return "?" if value is None else format_bytes(value)


def _notes(found: Fragmentation) -> Iterator[str]:
    low, high = found.returnable_bounds_bytes
    if found.returnable_bytes is None:
        yield f"this backend keeps no blocks: returnable is between 0 and {_size(high)}"
    elif low != high:
        yield f"returnable is up to {_size(high)} if private pools without a known owner are gone"
    if found.waiting_bytes:
        yield f"{_size(found.waiting_bytes)} of it are freed and still in use by a stream"
    if found.asleep_bytes:
        yield f"{_size(found.asleep_bytes)} of it sleep: no memory is behind them"
    if found.fragmentation_ratio is not None:
        yield f"fragmentation {found.fragmentation_ratio:.3f} (pinned / all that is not live)"
    if found.largest_request_bytes is not None:
        yield f"largest request served from the cache: {_size(found.largest_request_bytes)}"


def _groups(groups: Sequence[CacheGroup]) -> Iterator[str]:
    if not groups:
        return
    header = ["pool", "stream", "size", "segments", "reserved", *(name for name, _ in _NAMES)]
    rows = [
        [
            group.pool or "default",
            f"{group.stream:#x}",
            group.size_class,
            str(group.segments_count),
            _size(group.reserved_bytes),
            *(_size(getattr(group, f"{name}_bytes")) for name, _ in _NAMES),
            _size(group.largest_request_bytes),
        ]
        for group in groups[:_GROUPS_SHOWN]
    ]
    yield ""
    yield from _table([[*header, "largest request"], *rows], left=3)
    yield from _more(groups, _GROUPS_SHOWN)


def _blocks(blocks: Sequence[PinningBlock]) -> Iterator[str]:
    if not blocks:
        return
    rows = [
        [
            f"{block.address:#x}",
            _size(block.size_bytes),
            _size(block.pins_bytes),
            str(block.beside_count),
            printable(block.where[0]) if block.where else "not recorded",
        ]
        for block in blocks[:_BLOCKS_SHOWN]
    ]
    yield ""
    yield from _table([["pinning block", "size", "pins", "beside", "allocated at"], *rows])
    yield from _more(blocks, _BLOCKS_SHOWN)


def _more(items: Sequence[object], shown: int) -> Iterator[str]:
    if len(items) > shown:
        yield f"and {len(items) - shown} more"


def _table(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Yields aligned lines: the first columns and the last to the left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number < left or number == len(row) - 1 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
