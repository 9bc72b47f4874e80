"""PyTorch's caching allocator: its own account of each device, joined to a snapshot."""

from __future__ import annotations

from typing import Any

import torch

from memacct import _core


def read_allocators() -> tuple[_core.AllocatorMemory, ...] | None:
    """Returns the allocator's account of each device of this process; None before CUDA's use.

    Never initialises CUDA. Source: ``torch.cuda.memory_stats`` (allocated_bytes.all,
    reserved_bytes.all). Cost: tens of microseconds a device, with the GIL.
    """
    if not torch.cuda.is_initialized():
        return None
    return tuple(
        _read(index)
        for index in range(torch.cuda.device_count())
        if torch.cuda.memory_reserved(index) > 0
    )


def _read(index: int) -> _core.AllocatorMemory:
    stats = torch.cuda.memory_stats(index)
    return _core.AllocatorMemory(
        uuid=device_uuid(index),
        reserved_bytes=stats["reserved_bytes.all.current"],
        allocated_bytes=stats["allocated_bytes.all.current"],
        peak_reserved_bytes=stats["reserved_bytes.all.peak"],
        peak_allocated_bytes=stats["allocated_bytes.all.peak"],
    )


def device_uuid(index: int) -> str:
    """Returns the ``GPU-…`` or ``MIG-…`` identifier of CUDA device ``index``; makes no context.

    torch gives 16 bytes, and of an instance its own; the name alone says which they are.
    """
    properties: Any = torch.cuda.get_device_properties(index)
    return f"{'MIG' if ' MIG ' in properties.name else 'GPU'}-{properties.uuid}"


def allocator_of(device: _core.DeviceKey) -> TorchAllocator | None:
    """Returns the allocator of the device with this CUDA ordinal or UUID; None if there is none."""
    ordinals = range(torch.cuda.device_count())
    if isinstance(device, int):
        return TorchAllocator(device) if device in ordinals else None
    return next((TorchAllocator(n) for n in ordinals if device_uuid(n) == device), None)


class TorchAllocator:
    """The allocator of one device, as ``profile_pass`` asks it."""

    def __init__(self, ordinal: int) -> None:
        self._ordinal = ordinal

    def reserved_bytes(self) -> int:
        """What the allocator holds of the driver."""
        return int(torch.cuda.memory_reserved(self._ordinal))

    def allocated_bytes(self) -> int:
        """What live tensors hold of the allocator."""
        return int(torch.cuda.memory_allocated(self._ordinal))

    def peak_allocated_bytes(self) -> int:
        """The most that live tensors held since the last reset."""
        return int(torch.cuda.max_memory_allocated(self._ordinal))

    def reset_peak(self) -> None:
        """Starts a new window for the peak."""
        torch.cuda.reset_peak_memory_stats(self._ordinal)
