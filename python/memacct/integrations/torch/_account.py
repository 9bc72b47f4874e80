"""PyTorch's account of each device, as cheap as its counters are: no segment is walked."""

from __future__ import annotations

import os
from typing import Any

import torch

from memacct import _core
from memacct.accounting.allocator import account_terms, backing_terms
from memacct.integrations.torch._allocator import TorchAllocator
from memacct.integrations.torch._sleeping import sleeping_pools

_uuids: dict[int, str] = {}


def read_allocators() -> tuple[_core.AllocatorMemory, ...] | None:
    """Returns the allocator's account of each device of this process; None before CUDA's use.

    Never initialises CUDA, and leaves out devices on which this process has no context.
    Source: the counters behind ``torch.cuda.memory_stats``, which takes several times as long
    to flatten them. Cost: about 40 us a device, half of it torch's, with the GIL.
    """
    if not torch.cuda.is_initialized():
        return None
    used = [index for index in range(torch.cuda.device_count()) if _has_context(index)]
    return tuple(_read(index) for index in used)


def _has_context(index: int) -> bool:
    found: bool = torch._C._cuda_hasPrimaryContext(index)  # noqa: SLF001 (it makes none)
    return found


def _read(index: int) -> _core.AllocatorMemory:
    stats = torch.cuda.memory_stats_as_nested_dict(index)
    backend = torch.cuda.memory.get_allocator_backend()
    values = {
        "uuid": device_uuid(index),
        "cuda_ordinal": index,
        **account_terms(stats, backend, expandable="expandable_segments:True" in _settings()),
        **backing_terms(stats, sleeping_pools(index)),
    }
    names = _core.AllocatorMemory._fields
    return _core.AllocatorMemory._make([values.get(name) for name in names])


def _settings() -> str:
    read = getattr(torch._C, "_accelerator_getAllocatorSettings", None)  # noqa: SLF001 (2.9)
    named = os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or os.environ.get("PYTORCH_ALLOC_CONF")
    return (read() if read else "") or named or ""


def device_uuid(index: int) -> str:
    """Returns the ``GPU-…`` or ``MIG-…`` identifier of CUDA device ``index``; makes no context.

    torch gives 16 bytes, and of an instance its own; the name alone says which they are.
    """
    if index not in _uuids:
        properties: Any = torch.cuda.get_device_properties(index)
        _uuids[index] = f"{'MIG' if ' MIG ' in properties.name else 'GPU'}-{properties.uuid}"
    return _uuids[index]


def allocator_of(device: _core.DeviceKey) -> TorchAllocator | None:
    """Returns the allocator of the device with this CUDA ordinal or UUID; None if there is none."""
    ordinals = range(torch.cuda.device_count())
    if isinstance(device, int):
        return TorchAllocator(device) if device in ordinals else None
    return next((TorchAllocator(n) for n in ordinals if device_uuid(n) == device), None)
