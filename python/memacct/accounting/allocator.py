"""The terms of a caching allocator's account, of the counters that PyTorch keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memacct import _core


@dataclass(frozen=True, slots=True, kw_only=True)
class SleepingPools:
    """What an engine's own allocator serves behind PyTorch's.

    Attributes:
        claimed_bytes: what it has handed out to PyTorch's pools, mapped or not.
        unmapped_bytes: of it, what has no memory behind it now; None where it does not tell.
    """

    claimed_bytes: int
    unmapped_bytes: int | None


def account_terms(stats: dict[str, Any], backend: str, *, expandable: bool) -> dict[str, Any]:
    """Returns the fields of ``AllocatorMemory`` that the counters tell.

    Args:
        stats: ``torch.cuda.memory_stats_as_nested_dict``.
        backend: "native", "cudaMallocAsync", ... Only the native one keeps all counters; the
            others' are the driver's pool's, and what they lack stands there as 0.
        expandable: whether segments may be expandable; they are not in the counter of what
            cannot be given back, which is then unknown.
    """
    reserved = stats["reserved_bytes"]["all"]["current"]
    allocated = stats["allocated_bytes"]["all"]["current"]
    native = backend == "native"
    active = _current(stats, "active_bytes") if native else None
    segments = _current(stats, "segment") if native else None
    cached = reserved - (allocated if active is None else active)
    # All that is reserved, and in no segment: in expandable ones.
    split_is_known = native and not expandable and (segments != 0 or reserved == 0)
    split = _current(stats, "inactive_split_bytes") if split_is_known else None
    return {
        "reserved_bytes": reserved,
        "allocated_bytes": allocated,
        "peak_reserved_bytes": stats["reserved_bytes"]["all"]["peak"],
        "peak_allocated_bytes": stats["allocated_bytes"]["all"]["peak"],
        "backend": backend,
        "active_bytes": active,
        "requested_bytes": _current(stats, "requested_bytes") if native else None,
        "cached_bytes": cached,
        "inactive_split_bytes": split,
        "fragmentation_ratio": split / cached if split is not None and cached > 0 else None,
        "segments_count": segments,
        "retries_count": stats.get("num_alloc_retries"),
        "ooms_count": stats.get("num_ooms"),
        "pools": [_pool(stats, size) for size in ("small", "large")] if native else None,
        "private_pools": _private_pools(stats) if native else None,
    }


def backing_terms(stats: dict[str, Any], sleeping: SleepingPools | None) -> dict[str, int | None]:
    """Returns how much of what is reserved has memory behind it, as far as that can be told.

    A private pool with an allocator of its own may claim what it does not hold. Which have one
    PyTorch does not say; those that captures make for themselves, ids (n, 0), have none.
    """
    reserved = stats["reserved_bytes"]["all"]["current"]
    pools = stats.get("reserved_bytes_by_private_pools")
    doubtful = sum(sizes["all"]["current"] for key, sizes in (pools or {}).items() if key[1] != 0)
    certain = pools is not None and doubtful == 0
    if sleeping is not None:
        doubtful = max(doubtful, sleeping.claimed_bytes)
        unmapped = sleeping.unmapped_bytes
    else:
        unmapped = 0 if certain else None
    return {"unmapped_bytes": unmapped, "backed_bytes": max(reserved - doubtful, 0)}


def _current(stats: dict[str, Any], name: str, size: str = "all") -> int | None:
    counters = stats.get(name)
    current: int | None = None if counters is None else counters[size]["current"]
    return current


def _pool(stats: dict[str, Any], size: str) -> _core.AllocatorPool:
    values = {
        name: _current(stats, name, f"{size}_pool")
        for name in _core.AllocatorPool._fields
        if name.endswith("_bytes")
    }
    return _core.AllocatorPool._make([size, *values.values()])


def _private_pools(stats: dict[str, Any]) -> list[_core.AllocatorPool] | None:
    pools = stats.get("reserved_bytes_by_private_pools")
    if pools is None:
        return None
    return [
        _core.AllocatorPool._make(
            ["_".join(map(str, pool_id)), sizes["all"]["current"], None, None, None, None]
        )
        for pool_id, sizes in pools.items()
    ]
