"""The allocator of one device, as ``profile_pass`` asks it."""

from __future__ import annotations

import torch


class TorchAllocator:
    """PyTorch's allocator of one device, in bytes."""

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
