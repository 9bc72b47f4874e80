"""What a sequence of tensors takes of PyTorch's caching allocator, which rounds each of them up.

Engines print what the allocator counts as allocated. It hands out whole blocks: what is left over
of one is split off only if it is large enough, so a matrix of 27.5 MiB may count as 28. On models
of a few GiB this is up to 1 %. Source: the allocator's published constants (c10/cuda).
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from memacct._units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable

_STEP_BYTES = 512
_SMALL_BYTES = MIB  # up to this a tensor is small
_SMALL_SEGMENT_BYTES = 2 * MIB
_LARGE_SEGMENT_BYTES = 20 * MIB
_OWN_SEGMENT_BYTES = 10 * MIB  # from this on a tensor has a segment of its own
_SEGMENT_STEP_BYTES = 2 * MIB
# vLLM tells the allocator to split no larger block (max_split_size_mb) while it loads a model.
_UNSPLIT_BYTES = 20 * MIB


def allocated_bytes(tensors_bytes: Iterable[int]) -> int:
    """What the allocator counts for tensors that are allocated in this order and stay."""
    small, large = _Pool(is_small=True), _Pool(is_small=False)
    total = 0
    for size in tensors_bytes:
        rounded = _round_up(size, _STEP_BYTES)
        if rounded:
            total += (small if rounded <= _SMALL_BYTES else large).take(rounded)
    return total


class _Pool:
    """Free blocks of one of the allocator's two pools, by size."""

    def __init__(self, *, is_small: bool) -> None:
        self._is_small = is_small
        self._free: list[int] = []

    def take(self, size_bytes: int) -> int:
        """Allocates; returns the block's size, which is what counts."""
        fitting = bisect.bisect_left(self._free, size_bytes)
        block = self._free.pop(fitting) if fitting < len(self._free) else self._segment(size_bytes)
        rest = block - size_bytes
        if not self._is_small and size_bytes >= _UNSPLIT_BYTES:
            return block
        if rest >= _STEP_BYTES if self._is_small else rest > _SMALL_BYTES:
            bisect.insort(self._free, rest)
            return size_bytes
        return block

    def _segment(self, size_bytes: int) -> int:
        if self._is_small:
            return _SMALL_SEGMENT_BYTES
        if size_bytes < _OWN_SEGMENT_BYTES:
            return _LARGE_SEGMENT_BYTES
        return _round_up(size_bytes, _SEGMENT_STEP_BYTES)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
