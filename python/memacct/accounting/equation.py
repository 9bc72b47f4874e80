"""The device equation as rows: every byte of a device, each with its source.

total = free + reserved + own + tree + foreign + unattributed; on an integrated GPU, whose
memory is the machine's, with page cache, host processes and withheld in the place of reserved.
What an engine's other processes hold is a row of its own, taken out of foreign.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memacct.accounting.siblings import siblings_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memacct._core import AllocatorMemory, DeviceMemory
    from memacct.accounting.siblings import Sibling


@dataclass(frozen=True, slots=True, kw_only=True)
class EquationRow:
    """One term of the equation; None is unknown.

    ``planned_bytes`` is the term once the engine serves, ``since_start_bytes`` its change
    since the baseline.
    """

    name: str
    now_bytes: int | None
    planned_bytes: int | None
    source: str
    since_start_bytes: int | None = None


def device_equation(
    device: DeviceMemory,
    *,
    baseline: DeviceMemory | None = None,
    allocator: AllocatorMemory | None = None,
    siblings: Sequence[Sibling] = (),
) -> tuple[EquationRow, ...]:
    """Returns the terms of one reading; they add up to ``total_bytes`` when all are known.

    Args:
        device: the reading.
        baseline: an earlier one, for the changes since.
        allocator: the caching allocator's account of it; ``own`` is then split by it.
        siblings: the engine's other processes; with any, they are a row beside foreign.
    """
    rows = _device_rows(device, baseline)
    if siblings:
        rows = _with_siblings(rows, device, baseline, siblings)
    return rows if allocator is None else (*own_rows(device, allocator), *rows[1:])


def own_rows(device: DeviceMemory, allocator: AllocatorMemory) -> tuple[EquationRow, ...]:
    """Returns ``own`` as what the allocator holds and the rest; they add up to it.

    What is reserved with no memory behind it counts against the rest, which is else too small by
    it, and perhaps negative.
    """
    reserved, unmapped = allocator.reserved_bytes, allocator.unmapped_bytes or 0
    live = allocator.allocated_bytes
    active = live if allocator.active_bytes is None else allocator.active_bytes
    rest = None if device.own_bytes is None else device.own_bytes - reserved + unmapped
    rows = [
        _held("torch live", live, "torch, in blocks that the program holds"),
        _held("torch waiting", active - live, "torch, freed and in use by a stream"),
        _held("torch cached", reserved - active, "torch, in no block"),
        _held("torch asleep", -unmapped, "of torch's, with no memory behind it"),
        _held("non-torch", rest, f"{_own_source(device)}, − torch"),
    ]
    return tuple(r for r in rows if r.now_bytes != 0 or r.name in ("torch live", "non-torch"))


def non_torch_rows(readings: Mapping[str, DeviceMemory]) -> tuple[EquationRow, ...]:
    """Returns what each step added to what this process holds past its allocator.

    The driver has one number for the context, NCCL, cuBLAS, graphs and all else; a reading after
    each step tells them apart.

    Args:
        readings: of one device, by the name of the step before each, in order. The first has
            all that was there by then: the context, and what was done before.

    Returns:
        A row a step; they add up to the last reading's ``non_torch_bytes``.
    """
    rows: list[EquationRow] = []
    before: int | None = 0
    for name, device in readings.items():
        now = device.non_torch_bytes
        change = None if now is None or before is None else now - before
        rows.append(_held(name, change, "change of own − torch reserved"))
        before = now
    return tuple(rows)


def _device_rows(device: DeviceMemory, baseline: DeviceMemory | None) -> tuple[EquationRow, ...]:
    sources = {
        "own": _own_source(device),
        "tree": "driver's list, this process's family",
        "foreign": "driver's list, others",
        "unattributed": "in use, in nobody's number",
        **_kept_sources(device),
        "free": _free_source(device),
    }
    return tuple(
        EquationRow(
            name=name,
            now_bytes=_term(device, name),
            planned_bytes=_term(device, name),
            source=source,
            since_start_bytes=_since(name, device, baseline),
        )
        for name, source in sources.items()
    )


def engine_equation(
    device: DeviceMemory,
    *,
    weights_bytes: int | None,
    allocator_reserved_bytes: int | None,
    activations_peak_bytes: int,
    graphs_bytes: int,
    kv_cache_bytes: int,
    baseline: DeviceMemory | None = None,
    siblings: Sequence[Sibling] = (),
) -> tuple[EquationRow, ...]:
    """Returns the equation with ``own`` split the engine's way, now and once it serves.

    Activations, graphs and the KV cache come out of what is free, so that both columns
    add up to the device's total when all terms are known.

    Args:
        device: the reading of now.
        weights_bytes: what of ``own`` is weights.
        allocator_reserved_bytes: what of ``own`` the engine's allocator holds.
        activations_peak_bytes: what a step takes above what stays.
        graphs_bytes: what graph capture will take.
        kv_cache_bytes: the budget.
        baseline: the reading at the start, for the changes since.
        siblings: the engine's other processes.
    """
    own, *others, free = device_equation(device, baseline=baseline, siblings=siblings)
    planned = activations_peak_bytes + graphs_bytes + kv_cache_bytes
    still_free = None if free.now_bytes is None else free.now_bytes - planned
    return (
        *_own_rows(own, weights_bytes, allocator_reserved_bytes),
        _planned("activations peak", activations_peak_bytes, "torch peak − allocated"),
        _planned("CUDA graphs", graphs_bytes, "the engine's estimate"),
        _planned("KV cache", kv_cache_bytes, "budget"),
        *others,
        replace(free, planned_bytes=still_free),
    )


def _with_siblings(
    rows: tuple[EquationRow, ...],
    device: DeviceMemory,
    baseline: DeviceMemory | None,
    siblings: Sequence[Sibling],
) -> tuple[EquationRow, ...]:
    """Splits ``foreign``, where it is known; both parts add up to it, now and since."""
    at = next(number for number, row in enumerate(rows) if row.name == "foreign")
    foreign = rows[at]
    now = siblings_bytes(device, siblings)
    then = None if baseline is None else siblings_bytes(baseline, siblings)
    since = None if now is None or then is None else now - then
    names = ", ".join(f"{sibling.title} {sibling.pid}" for sibling in siblings)
    row = EquationRow(
        name="siblings",
        now_bytes=now,
        planned_bytes=now,
        source=f"driver's list, the engine's other processes: {names}",
        since_start_bytes=since,
    )
    others = _less(foreign.now_bytes, now)
    foreign = replace(
        foreign,
        now_bytes=others,
        planned_bytes=others,
        since_start_bytes=_less(foreign.since_start_bytes, since),
    )
    return (*rows[:at], row, foreign, *rows[at + 1 :])


def _less(value: int | None, part: int | None) -> int | None:
    return None if value is None or part is None else value - part


def _own_rows(
    own: EquationRow, weights: int | None, reserved: int | None
) -> tuple[EquationRow, ...]:
    other = None if weights is None or reserved is None else reserved - weights
    non_torch = None if own.now_bytes is None or reserved is None else own.now_bytes - reserved
    return (
        _held("weights", weights, "torch allocated while loading"),
        _held("other torch", other, "torch reserved − weights"),
        _held("non-torch", non_torch, f"{own.source}, − torch reserved"),
    )


def _own_source(device: DeviceMemory) -> str:
    return f"driver's list, by {device.attribution.source}"


def _shares_host(device: DeviceMemory) -> bool:
    return device.unified is not None and device.unified.kind == "integrated"


def _kept_sources(device: DeviceMemory) -> dict[str, str]:
    """The terms that are neither free nor a GPU process's."""
    if not _shares_host(device):
        return {"reserved": f"{device.source}, kept by the driver"}
    return {
        "host processes": "meminfo, anonymous and shared memory of all processes",
        "page cache": "meminfo, files' pages: nobody's",
        "withheld": "meminfo, free but not to a GPU",
    }


def _free_source(device: DeviceMemory) -> str:
    if device.unified is None or device.unified.free_source is None:
        return device.source
    sources = {"cuda": "cuMemGetInfo", "host_available": "MemAvailable", "host_free": "MemFree"}
    return f"{sources[device.unified.free_source]}, the least of all sources"


def _term(device: DeviceMemory, name: str) -> int | None:
    field = name.replace(" ", "_") + "_bytes"
    holder = device if hasattr(device, field) else device.unified
    value: int | None = getattr(holder, field)
    return value


def _since(name: str, device: DeviceMemory, baseline: DeviceMemory | None) -> int | None:
    if baseline is None:
        return None
    now, then = _term(device, name), _term(baseline, name)
    return None if now is None or then is None else now - then


def _held(name: str, value: int | None, source: str) -> EquationRow:
    return EquationRow(name=name, now_bytes=value, planned_bytes=value, source=source)


def _planned(name: str, value: int, source: str) -> EquationRow:
    return EquationRow(name=name, now_bytes=0, planned_bytes=value, source=source)
