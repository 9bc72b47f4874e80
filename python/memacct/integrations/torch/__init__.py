"""PyTorch's caching allocator: its own account of each device, joined to a snapshot."""

from __future__ import annotations

from memacct.integrations.torch._account import allocator_of, device_uuid, read_allocators
from memacct.integrations.torch._allocator import TorchAllocator
from memacct.integrations.torch._segments import fragmentation

__all__ = ["TorchAllocator", "allocator_of", "device_uuid", "fragmentation", "read_allocators"]
