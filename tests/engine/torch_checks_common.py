"""What the checks of PyTorch's allocator share: sizes of the machine, readings of its account."""

from __future__ import annotations

from typing import Any

import memacct
from memacct import _core

MIB = 1 << 20
GIB = 1 << 30
CONTEXT_BYTES = 400 * MIB
CUBLAS_BYTES = 8 * MIB
GRAPH_BYTES = 16 * MIB


def take(size_bytes: int, device: int = 0) -> Any:
    import torch

    return torch.empty(size_bytes, dtype=torch.uint8, device=f"cuda:{device}")


def account(device: int = 0) -> _core.AllocatorMemory:
    (found,) = [a for a in memacct.snapshot().torch or () if a.cuda_ordinal == device]
    return found


def reading(device: int = 0) -> _core.DeviceMemory:
    (found,) = [d for d in memacct.snapshot().devices or () if d.cuda_ordinal == device]
    return found
