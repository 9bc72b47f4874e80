"""The device equation of a moment: every byte of the device's total in exactly one row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The rows, in the order in which they are told.
WEIGHTS = "weights"
KV_CACHE = "KV cache"
ACTIVATION = "activation peak"
OTHER_TENSORS = "other tensors"
CACHED = "PyTorch's cached pages"
GRAPHS = "CUDA graphs"
CONTEXT = "CUDA context"
NON_TORCH = "other non-torch"
SIBLINGS = "the engine's other processes"
NEIGHBOURS = "neighbours"
RESERVED = "driver's reserve"
UNATTRIBUTED = "unattributed"
FREE = "free"

SOURCES = {
    WEIGHTS: "the engine's reading around loading the model",
    KV_CACHE: "the storages that the engine allocated",
    ACTIVATION: "PyTorch's highest allocated bytes in the profiling pass, less those before it",
    OTHER_TENSORS: "allocated by PyTorch besides: the runner's buffers, workspaces",
    CACHED: "held by PyTorch's allocator without a tensor in it",
    GRAPHS: "private pools and what the driver took while graphs were captured",
    CONTEXT: "the CUDA context that was set for this machine",
    NON_TORCH: "the process's memory outside PyTorch and its context: cuBLAS, NCCL, modules",
    SIBLINGS: "other processes of this engine on this device",
    NEIGHBOURS: "as they were asked for",
    RESERVED: "NVML's total less CUDA's, of this card",
    UNATTRIBUTED: "held by nobody who is listed",
    FREE: "the simulated device's own account",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What must be known besides a reading.

    Attributes:
        uuid: of the worker's device.
        pid: of the worker.
        neighbours: processes that are none of the engine's.
        context_bytes: what a context was set to take.
    """

    uuid: str
    pid: int
    context_bytes: int
    neighbours: frozenset[int] = field(default_factory=frozenset)


def device_of(reading: Mapping[str, Any], uuid: str) -> Mapping[str, Any] | None:
    """The device's own account in a reading."""
    devices = (reading.get("machine") or {}).get("devices", ())
    plain = uuid.removeprefix("GPU-")
    return next((one for one in devices if one["uuid"].removeprefix("GPU-") == plain), None)


def process_bytes(device: Mapping[str, Any], pids: Iterable[int]) -> int:
    """What these processes hold of a device."""
    wanted = set(pids)
    return sum(one["process_used_bytes"] for one in device["processes"] if one["pid"] in wanted)


def non_torch_bytes(reading: Mapping[str, Any], known: Known) -> int | None:
    """What the worker holds outside PyTorch's allocator, its context included."""
    device = device_of(reading, known.uuid)
    if device is None:
        return None
    return process_bytes(device, (known.pid,)) - int(reading["reserved_bytes"])


def peak_rows(
    before: Mapping[str, Any], forward: Mapping[str, Any], weights_bytes: int, known: Known
) -> dict[str, int] | None:
    """The profiling pass at its highest: PyTorch's high-water marks over what is true at its end.

    Args:
        before: the reading before the pass.
        forward: the reading after it, before anything is given back.
        weights_bytes: as the engine tells them.
        known: whose device it is.
    """
    rows = _outside(forward, known)
    if rows is None:
        return None
    peak, reserved = int(forward["allocated_peak_bytes"]), int(forward["reserved_bytes"])
    highest = max(int(forward["reserved_peak_bytes"]), reserved, peak)
    held = min(int(before["allocated_bytes"]), peak)
    weights = min(weights_bytes, held)
    rows |= {
        WEIGHTS: weights,
        ACTIVATION: peak - held,
        OTHER_TENSORS: held - weights,
        CACHED: highest - peak,
        # Pages that were given back before the reading: the device was fuller by them.
        FREE: rows[FREE] - (highest - reserved),
    }
    return _ordered(rows)


def started_rows(
    moments: Mapping[str, Any], weights_bytes: int, kv_cache_bytes: int, known: Known
) -> dict[str, int] | None:
    """The engine when it could serve."""
    started = moments["started"]
    rows = _outside(started, known)
    if rows is None:
        return None
    before, captured = moments.get("before capture"), moments.get("captured")
    pools = _grown(before, captured, "reserved_bytes")
    outside = min(graphs_driver_bytes(moments, known) or 0, rows[NON_TORCH])
    tensors = int(started["allocated_bytes"]) - _grown(before, captured, "allocated_bytes")
    weights = min(weights_bytes, tensors)
    caches = min(kv_cache_bytes, tensors - weights)
    rows |= {
        WEIGHTS: weights,
        KV_CACHE: caches,
        OTHER_TENSORS: tensors - weights - caches,
        CACHED: int(started["reserved_bytes"]) - pools - tensors,
        GRAPHS: pools + outside,
        NON_TORCH: rows[NON_TORCH] - outside,
    }
    return _ordered(rows)


def graphs_driver_bytes(moments: Mapping[str, Any], known: Known) -> int | None:
    """What the driver took while graphs were captured; None if they were not, or not read."""
    readings = (moments.get("before capture"), moments.get("captured"))
    before, after = (None if one is None else non_torch_bytes(one, known) for one in readings)
    return None if before is None or after is None else max(after - before, 0)


def _grown(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, name: str) -> int:
    """By how much private pools grew while graphs were captured."""
    if not before or not after or before.get("pools") is None or after.get("pools") is None:
        return 0
    return max(int(after["pools"][name]) - int(before["pools"][name]), 0)


def _outside(reading: Mapping[str, Any], known: Known) -> dict[str, int] | None:
    """All rows but those of PyTorch."""
    device = device_of(reading, known.uuid)
    if device is None:
        return None
    own = process_bytes(device, (known.pid,))
    neighbours = process_bytes(device, known.neighbours)
    everyone = sum(one["process_used_bytes"] for one in device["processes"])
    outside = own - int(reading["reserved_bytes"])
    context = min(known.context_bytes, max(outside, 0))
    return {
        CONTEXT: context,
        NON_TORCH: outside - context,
        SIBLINGS: everyone - own - neighbours,
        NEIGHBOURS: neighbours,
        RESERVED: device["reserved_bytes"],
        UNATTRIBUTED: device["unattributed_bytes"],
        FREE: device["free_bytes"],
    }


def _ordered(rows: Mapping[str, int]) -> dict[str, int]:
    """In the order of SOURCES; what is 0 and need not be told is left out."""
    always = {WEIGHTS, OTHER_TENSORS, CACHED, CONTEXT, NON_TORCH, FREE}
    return {name: rows[name] for name in SOURCES if rows.get(name) or name in always}
