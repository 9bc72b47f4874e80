"""What a sleeping engine's allocator will map again, told by the tags that are woken.

Source: ``vllm.device_allocator.cumem.CuMemAllocator`` (0.11.0 to 0.33.0).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

_MODULE = "vllm.device_allocator.cumem"


def addresses(ordinal: int, tags: Any = None) -> frozenset[int]:
    """Returns the addresses of what the allocator serves on a device and ``tags`` name."""
    return frozenset(p.handle[2] for p in _pieces(ordinal) if _is_named(p.tag, tags))


def sleeping_bytes(ordinal: int, tags: Any, asleep: Collection[int]) -> int:
    """Returns what ``wake_up(tags)`` takes of the device.

    Args:
        ordinal: CUDA's.
        tags: as of ``wake_up``; None: all.
        asleep: addresses that are taken to sleep, where the allocator does not tell (before
            it kept ``is_asleep``).
    """
    return sum(
        piece.handle[1]
        for piece in _pieces(ordinal)
        if getattr(piece, "is_asleep", piece.handle[2] in asleep) and _is_named(piece.tag, tags)
    )


def _pieces(ordinal: int) -> list[Any]:
    allocator = getattr(getattr(sys.modules.get(_MODULE), "CuMemAllocator", None), "instance", None)
    if allocator is None:
        return []
    # A copy: other threads allocate meanwhile.
    return [p for p in [*allocator.pointer_to_data.values()] if p.handle[0] == ordinal]


def _is_named(tag: str, tags: Any) -> bool:
    # What may not be put off is woken with whatever is (0.33.0).
    deferrable = getattr(sys.modules.get(_MODULE), "DEFERRABLE_TAGS", None)
    return tags is None or tag in tags or (deferrable is not None and tag not in deferrable)
