"""A device's reading as metrics: the terms of its equation, and who holds what of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct.report.prometheus_types import NOBODY, OTHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct._core import DeviceMemory
    from memacct.report.prometheus_types import Families, Reading, Watched

_TERMS = {
    "total": "Memory of the device.",
    "free": "Memory of the device that is free.",
    "reserved": "What the driver keeps of the device.",
    "own": "What the watched processes hold (the exporter itself without --pid).",
    "tree": "What the descendants of the watched processes hold.",
    "foreign": "What all other listed processes hold.",
    "unattributed": "In use, and in no listed process's number. May be negative.",
}
_SHARED_TERMS = {
    "host_processes": "Of an integrated GPU: anonymous and shared memory of all processes.",
    "page_cache": "Of an integrated GPU: the page cache, which is nobody's.",
    "withheld": "Of an integrated GPU: physically free, but not to a GPU.",
}
_MOVES = {
    "allocations": ("allocations_count", "Moves up of a foreign process between two scrapes."),
    "allocated_bytes": ("allocated_bytes", "Bytes of the moves up of foreign processes."),
    "releases": ("releases_count", "Moves down of a foreign process between two scrapes."),
    "released_bytes": ("released_bytes", "Bytes of the moves down of foreign processes."),
}
_PROCESS = "What a process holds of the device; they add up to own + tree + foreign."
_HIDDEN = "the driver's list hides a process's number"
_NOT_TOLD = "the driver does not tell"
_NUMBERS = "the driver's process numbers are of another pid namespace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What a process holds of a device, and whose that is; ``pid`` may be ``other``."""

    owner: str
    pid: str
    process_used_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """A device's listed memory by owner; None is unknown, for the reason ``why``."""

    own_bytes: int | None
    tree_bytes: int | None
    foreign_bytes: int | None
    holders: tuple[Holder, ...]
    why: str


def shares_of(device: DeviceMemory, watched: Watched | None) -> Shares:
    """Returns who holds what, as the watched processes see it."""
    rows = _merged(device, watched)
    if watched is None:
        own, tree, foreign = device.own_bytes, device.tree_bytes, device.foreign_bytes
        why = _numberless(device.attribution.reason) or _HIDDEN
    elif not watched.pids_known:
        own, tree, foreign, why = None, None, None, _NUMBERS
    else:
        own, tree = _sum_of(rows, "own"), _sum_of(rows, "tree")
        # Of the device's own sum, which holds in a torn reading too.
        foreign = _less(_total((device.own_bytes, device.tree_bytes, device.foreign_bytes)), own)
        foreign, why = _less(foreign, tree), _HIDDEN
    return Shares(own_bytes=own, tree_bytes=tree, foreign_bytes=foreign, holders=rows, why=why)


def bounded(shares: Shares, most_count: int) -> tuple[Holder, ...]:
    """Returns the holders of the most; the others of an owner are one row, ``other``.

    The rows of an owner add up to its term, wherever that is known.
    """
    known = [holder for holder in shares.holders if holder.process_used_bytes is not None]
    known.sort(key=lambda holder: (-(holder.process_used_bytes or 0), holder.owner, holder.pid))
    shown, rest = known[:most_count], known[most_count:]
    rows = list(shown)
    terms = {
        "own": shares.own_bytes,
        "tree": shares.tree_bytes,
        "foreign": shares.foreign_bytes,
        "unknown": None,
    }
    for owner, term in terms.items():
        left = sum(h.process_used_bytes or 0 for h in rest if h.owner == owner)
        if term is not None:  # torn readings: what the term has beyond the rows
            left = term - sum(h.process_used_bytes or 0 for h in shown if h.owner == owner)
        if left:
            rows.append(Holder(owner=owner, pid=OTHER, process_used_bytes=left))
    return tuple(rows)


def add_device(families: Families, device: DeviceMemory, reading: Reading, most_count: int) -> None:
    """Adds all that is told of one device."""
    labels = _labels(device)
    shares = shares_of(device, reading.watched)
    _add_terms(families, device, shares, labels)
    _add_processes(families, device, shares, reading, most_count)
    moves = reading.moves.get(device.uuid)
    for name, (field, text) in _MOVES.items() if moves is not None else ():
        metric = f"memacct_device_foreign_{name}_total"
        families.add(metric, text, getattr(moves, field), labels)
    families.add(
        "memacct_device_consistent",
        "Whether all values of the reading held at one instant.",
        int(device.consistent),
        labels,
    )
    families.add(
        "memacct_device_info",
        "Where the reading is from; parent_uuid is the GPU that a MIG instance is part of.",
        1,
        {
            **labels,
            "parent_uuid": device.parent_uuid or "",
            "source": device.source,
            "attribution": _attribution(device, reading.watched),
            "virtualized": device.virtualized or "",
        },
    )


def _add_terms(
    families: Families, device: DeviceMemory, shares: Shares, labels: dict[str, str]
) -> None:
    for name, text in _TERMS.items():
        holder = shares if name in {"own", "tree", "foreign"} else device
        why = _NOT_TOLD if name == "reserved" else shares.why
        value = getattr(holder, f"{name}_bytes")
        families.add_known(f"memacct_device_{name}_bytes", text, value, labels, why)
    if device.unified is not None and device.unified.kind == "integrated":
        for name, text in _SHARED_TERMS.items():
            value = getattr(device.unified, f"{name}_bytes")
            families.add_known(f"memacct_device_{name}_bytes", text, value, labels, _NOT_TOLD)


def _add_processes(
    families: Families, device: DeviceMemory, shares: Shares, reading: Reading, most_count: int
) -> None:
    if any(holder.process_used_bytes is None for holder in shares.holders):
        families.unknown("device_process_bytes", _HIDDEN, device.uuid)
    for holder in bounded(shares, most_count):
        known = holder.pid != OTHER
        person = reading.people.get(int(holder.pid), NOBODY) if known else NOBODY
        families.add(
            "memacct_device_process_bytes",
            _PROCESS,
            holder.process_used_bytes or 0,
            {
                "uuid": device.uuid,
                "pid": holder.pid,
                "owner": holder.owner,
                "role": person.role,
                "name": person.name,
                "container": person.container,
            },
        )


def _attribution(device: DeviceMemory, watched: Watched | None) -> str:
    if watched is None:
        return device.attribution.source
    return "pid" if watched.pids_known else "none"


def _labels(device: DeviceMemory) -> dict[str, str]:
    index = "" if device.index is None else str(device.index)
    return {"uuid": device.uuid, "index": index, "name": device.name}


def _merged(device: DeviceMemory, watched: Watched | None) -> tuple[Holder, ...]:
    """A row a process: of a GPU in MIG mode one may be listed with several instances."""
    rows: dict[tuple[str, int], int | None] = {}
    for process in device.processes:
        key = (_owner(process.pid, process.owner, watched), process.pid)
        rows[key] = _total((rows.get(key, 0), process.process_used_bytes))
    return tuple(
        Holder(owner=owner, pid=str(pid), process_used_bytes=held)
        for (owner, pid), held in rows.items()
    )


def _owner(pid: int, owner: str, watched: Watched | None) -> str:
    if watched is None:
        return owner
    if not watched.pids_known:
        return "unknown"
    if pid in watched.own_pids:
        return "own"
    return "tree" if pid in watched.tree_pids else "foreign"


def _sum_of(rows: Sequence[Holder], owner: str) -> int | None:
    return _total([row.process_used_bytes for row in rows if row.owner == owner])


def _total(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _less(value: int | None, part: int | None) -> int | None:
    return None if value is None or part is None else value - part


def _numberless(reason: str) -> str:
    """A reason without its numbers: labels are to be few."""
    return re.sub(r"\d+", "N", reason)
