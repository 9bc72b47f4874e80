"""Who holds what on a device: the device equation with each other process by its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memacct._units import format_bytes
from memacct.accounting.equation import EquationRow, device_equation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from memacct._core import DeviceMemory
    from memacct.accounting.siblings import Sibling

_OTHERS_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHolding:
    """What of an engine's own memory is what; None is unknown.

    Attributes:
        weights_bytes: loaded.
        allocated_bytes: in live tensors, the weights among them.
        reserved_bytes: what the allocator holds from the driver.
        pinned_bytes: of what is reserved and in no tensor, what stays if the cache is emptied.
        asleep_bytes: of what is reserved, what has no memory behind it (vLLM's sleep mode).
        activations_peak_bytes, graphs_bytes, kv_cache_bytes: still to be taken.
        requested_bytes: what an engine that has not measured itself yet is to take in all.
    """

    weights_bytes: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    pinned_bytes: int | None = None
    asleep_bytes: int = 0
    activations_peak_bytes: int = 0
    graphs_bytes: int = 0
    kv_cache_bytes: int = 0
    requested_bytes: int = 0

    @property
    def planned_bytes(self) -> int:
        """All that is still to be taken."""
        return (
            self.activations_peak_bytes
            + self.graphs_bytes
            + self.kv_cache_bytes
            + self.requested_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherProcess:
    """What is known of another process on the device: its name, and when it moved last."""

    name: str | None = None
    moved: str = ""


def holder_rows(
    device: DeviceMemory,
    engine: EngineHolding,
    *,
    baseline: DeviceMemory | None = None,
    siblings: Sequence[Sibling] = (),
    others: Mapping[int, OtherProcess] | None = None,
) -> tuple[EquationRow, ...]:
    """Returns a row for each holder; both columns add up to the device's total if all are known.

    Args:
        device: the reading of now.
        engine: what of this process's own memory is what.
        baseline: the reading at the start, for the changes since.
        siblings: the engine's other processes.
        others: of the driver's pids that are foreign.
    """
    own, *rest = device_equation(device, baseline=baseline, siblings=siblings)
    rows: list[EquationRow] = [*_own_rows(own, engine), *_planned_rows(engine)]
    for row in rest:
        if row.name == "foreign":
            ours = {sibling.pid for sibling in siblings}
            then = {} if baseline is None else _listed(baseline, ours)
            rows += _foreign_rows(row, _listed(device, ours), then, others or {})
        elif row.name == "free":
            free = None if row.now_bytes is None else row.now_bytes - engine.planned_bytes
            rows.append(replace(row, planned_bytes=free))
        else:
            rows.append(row)
    return tuple(row for row in rows if _says_something(row))


def _says_something(row: EquationRow) -> bool:
    always = ("free", "non-torch", "this process")
    changed = row.since_start_bytes not in (None, 0)
    return row.name in always or row.now_bytes != 0 or row.planned_bytes != 0 or changed


def _own_rows(own: EquationRow, engine: EngineHolding) -> Iterator[EquationRow]:
    allocated, reserved = engine.allocated_bytes, engine.reserved_bytes
    if allocated is None or reserved is None:
        yield replace(own, name="this process")
        return
    weights = min(engine.weights_bytes or 0, allocated)
    cached = reserved - allocated
    asleep = engine.asleep_bytes
    rest = None if own.now_bytes is None else own.now_bytes - reserved + asleep
    yield _held("weights", weights, "torch, allocated while loading")
    yield _held("other tensors", allocated - weights, "torch, allocated")
    yield _held("torch cached", cached, _cache_source(cached, engine.pinned_bytes))
    yield _held("torch asleep", -asleep, "of torch's, with no memory behind it")
    row = _held("non-torch", rest, f"context, NCCL, graphs, ...: {own.source}, − torch reserved")
    # All that the process took since its start, whatever it is: it has one number at the driver.
    yield replace(row, since_start_bytes=own.since_start_bytes) if reserved == 0 else row


def _cache_source(cached_bytes: int, pinned_bytes: int | None) -> str:
    if pinned_bytes is None:
        return "torch, reserved − allocated: empty_cache() gives back what is not fragmented"
    if pinned_bytes == 0:
        return "torch, reserved − allocated: empty_cache() gives it back"
    if pinned_bytes >= cached_bytes:
        return "torch, reserved − allocated: fragmented, in segments of live tensors"
    pinned = format_bytes(pinned_bytes)
    return f"torch, reserved − allocated: {pinned} fragmented, empty_cache() gives back the rest"


def _planned_rows(engine: EngineHolding) -> Iterator[EquationRow]:
    yield _planned("activations peak", engine.activations_peak_bytes, "torch peak − allocated")
    yield _planned("CUDA graphs", engine.graphs_bytes, "the engine's estimate")
    yield _planned("KV cache", engine.kv_cache_bytes, "what it needs at least")
    yield _planned("requested", engine.requested_bytes, "gpu_memory_utilization, not taken yet")


def _foreign_rows(
    row: EquationRow,
    now: Mapping[int, int | None],
    then: Mapping[int, int | None],
    others: Mapping[int, OtherProcess],
) -> Iterator[EquationRow]:
    if row.now_bytes is None or None in now.values():
        yield row
        return
    shown = _largest(now, then)
    for pid in shown:
        known = others.get(pid, OtherProcess())
        held = now.get(pid, 0)
        before = None if row.since_start_bytes is None else then.get(pid, 0)
        yield EquationRow(
            name=f"pid {pid}" + (f" {known.name}" if known.name else ""),
            now_bytes=held,
            planned_bytes=held,
            source=known.moved or "driver's list",
            since_start_bytes=None if held is None or before is None else held - before,
        )
    # What the list holds beyond those: torn readings keep the sum the driver's.
    left = row.now_bytes - sum(now.get(pid) or 0 for pid in shown)
    yield _held("others", left, f"driver's list, {max(0, len(now) - len(shown))} more")


def _largest(now: Mapping[int, int | None], then: Mapping[int, int | None]) -> Sequence[int]:
    def weight(pid: int) -> tuple[int, int]:
        held, before = now.get(pid) or 0, then.get(pid) or 0
        return (-max(held, before), pid)

    return sorted(now.keys() | then.keys(), key=weight)[:_OTHERS_SHOWN]


def _listed(device: DeviceMemory, ours: set[int]) -> dict[int, int | None]:
    others = (p for p in device.processes if p.owner == "foreign" and p.pid not in ours)
    return {p.pid: p.process_used_bytes for p in others}


def _held(name: str, value: int | None, source: str) -> EquationRow:
    return EquationRow(name=name, now_bytes=value, planned_bytes=value, source=source)


def _planned(name: str, value: int, source: str) -> EquationRow:
    return EquationRow(name=name, now_bytes=0, planned_bytes=value, source=source)
