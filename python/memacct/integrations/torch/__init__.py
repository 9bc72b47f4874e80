"""PyTorch's caching allocator: its own account of each device, joined to a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct.integrations.torch._account import allocator_of, device_uuid, read_allocators
from memacct.integrations.torch._allocator import TorchAllocator

if TYPE_CHECKING:
    from memacct.integrations.torch._segments import fragmentation

__all__ = ["TorchAllocator", "allocator_of", "device_uuid", "fragmentation", "read_allocators"]


def __getattr__(name: str) -> object:
    # Every snapshot in a process with torch imports this module; few ask for fragmentation,
    # whose classes take ten times as long to import as all the rest.
    if name != "fragmentation":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from memacct.integrations.torch._segments import fragmentation

    return fragmentation
