"""PyTorch's segments of one device, examined: what could be given back and what could not."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import torch

from memacct.accounting.fragmentation import examine, without_segments
from memacct.integrations.torch._account import device_uuid
from memacct.integrations.torch._sleeping import sleeping_addresses

if TYPE_CHECKING:
    from memacct import _core
    from memacct.accounting.fragmentation_types import Fragmentation


def fragmentation(device: _core.DeviceKey | None = None) -> Fragmentation:
    """Returns what the allocator of a device holds; see ``memacct.fragmentation``."""
    index = _ordinal(device)
    uuid = device_uuid(index)
    backend = torch.cuda.memory.get_allocator_backend()
    if backend != "native":
        stats = torch.cuda.memory_stats_as_nested_dict(index)
        return without_segments(
            uuid=uuid,
            backend=backend,
            reserved_bytes=stats["reserved_bytes"]["all"]["current"],
            live_bytes=stats["allocated_bytes"]["all"]["current"],
        )
    segments = [s for s in torch.cuda.memory_snapshot() if s["device"] == index]
    private = any(tuple(s.get("segment_pool_id", (0, 0))) != (0, 0) for s in segments)
    return examine(
        segments,
        uuid=uuid,
        owned_pools=_owned_pools() if private else (),
        asleep=sleeping_addresses(index),
    )


def _ordinal(device: _core.DeviceKey | None) -> int:
    if device is None:
        return int(torch.cuda.current_device())
    ordinals = range(torch.cuda.device_count())
    for ordinal in ordinals:
        if device in (ordinal, device_uuid(ordinal)):
            return ordinal
    raise ValueError(f"{device!r} is none of this process's {len(ordinals)} CUDA devices")


def _owned_pools() -> set[str]:
    """Returns the ids of the private pools of all graphs and MemPools that are alive.

    PyTorch counts a pool's users, and tells the count to its owner only; so the owners are
    searched among all objects. C++ users, such as torch.compile's trees of graphs, stay unseen.
    """
    found = set()
    mem_pool = getattr(torch.cuda, "MemPool", ())  # since 2.5
    for item in gc.get_objects():
        kind = type(item)
        if issubclass(kind, mem_pool):
            found.add(_name(item.id))
        elif issubclass(kind, torch.cuda.CUDAGraph):
            pool_id = _pool_of(item)
            if pool_id is not None:
                found.add(_name(pool_id))
    return found


def _pool_of(graph: Any) -> Any:
    try:
        return graph.pool()
    except RuntimeError:  # nothing is captured in it
        return None


def _name(pool_id: Any) -> str:
    return "_".join(map(str, pool_id))
