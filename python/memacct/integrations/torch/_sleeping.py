"""Pools that sleep: vLLM's cumem allocator unmaps their memory, and torch still counts it.

Source: ``vllm.device_allocator.cumem.CuMemAllocator``, its handles (device, bytes, address, …)
and ``is_asleep``; versions that do not keep that leave unknown what is unmapped.
"""

from __future__ import annotations

import sys
from typing import Any

from memacct.accounting.allocator import SleepingPools


def sleeping_pools(index: int) -> SleepingPools | None:
    """Returns what that allocator serves on a device; None where it is not in use."""
    pieces = _pieces(index)
    if pieces is None:
        return None
    tells = all(hasattr(piece, "is_asleep") for piece in pieces)
    return SleepingPools(
        claimed_bytes=sum(piece.handle[1] for piece in pieces),
        unmapped_bytes=sum(p.handle[1] for p in pieces if p.is_asleep) if tells else None,
    )


def sleeping_addresses(index: int) -> set[int]:
    """Returns the addresses of the segments of a device that are known to sleep."""
    pieces = _pieces(index) or []
    return {piece.handle[2] for piece in pieces if getattr(piece, "is_asleep", False)}


def _pieces(index: int) -> list[Any] | None:
    module = sys.modules.get("vllm.device_allocator.cumem")
    allocator = getattr(getattr(module, "CuMemAllocator", None), "instance", None)
    if allocator is None:
        return None
    # A copy: other threads allocate meanwhile.
    return [piece for piece in [*allocator.pointer_to_data.values()] if piece.handle[0] == index]
