"""An engine's other processes in a device's process list, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memacct._core import DeviceMemory, ProcessUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """A process of the engine that is neither the reader nor below it.

    Attributes:
        pid: as the driver numbers it.
        role: what it is to the engine, such as ``worker`` or ``API server``.
        rank: a worker's; None for the others.
    """

    pid: int
    role: str
    rank: int | None = None

    @property
    def title(self) -> str:
        """For people: its role, with the rank where it has one."""
        return self.role if self.rank is None else f"{self.role} rank {self.rank}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProcess:
    """One of the engine's processes on a device: own, below it (tree), or a sibling.

    ``pid`` is the driver's number. ``since_start_bytes`` is the change since the baseline; both
    are None where the driver hides a number, the change also where there is no baseline.
    """

    pid: int
    owner: Literal["own", "tree", "sibling"]
    role: str
    rank: int | None
    process_used_bytes: int | None
    since_start_bytes: int | None = None


def engine_processes(
    device: DeviceMemory,
    siblings: Iterable[Sibling] = (),
    *,
    own: Sibling | None = None,
    baseline: DeviceMemory | None = None,
) -> tuple[EngineProcess, ...]:
    """Returns the engine's processes that hold memory of a device, the largest first.

    With a baseline, those that held memory then and are gone now have 0 bytes.

    Args:
        device: the reading.
        siblings: the engine's other processes; those that are not listed are left out.
        own: what the reader is; its ``pid`` is not looked at.
        baseline: an earlier reading, for the changes since.
    """
    known = {sibling.pid: sibling for sibling in siblings}
    now = {p.pid: p for p in device.processes if _is_engine(p, known)}
    listed = () if baseline is None else baseline.processes
    then = {p.pid: p for p in listed if _is_engine(p, known)}
    rows = []
    for pid in now.keys() | then.keys():
        owner, role, rank = _place(now.get(pid) or then[pid], known, own)
        held = now[pid].process_used_bytes if pid in now else 0
        before = then[pid].process_used_bytes if pid in then else 0
        since = None if baseline is None or held is None or before is None else held - before
        rows.append(
            EngineProcess(
                pid=pid,
                owner=owner,
                role=role,
                rank=rank,
                process_used_bytes=held,
                since_start_bytes=since,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-(row.process_used_bytes or 0), row.pid)))


def siblings_bytes(device: DeviceMemory, siblings: Iterable[Sibling]) -> int | None:
    """Returns what the siblings hold of a device, by its process list.

    A sibling that is not listed holds nothing. What the list says is this process's tree is
    not counted again. None: the driver hides a sibling's number, or its list says nothing of us
    either, so that a process's absence means nothing.
    """
    pids = {sibling.pid for sibling in siblings}
    if not pids:
        return 0
    if device.own_bytes is None:
        return None
    held = [p.process_used_bytes for p in device.processes if p.pid in pids and is_other(p)]
    known = [value for value in held if value is not None]
    return sum(known) if len(known) == len(held) else None


def is_other(process: ProcessUsage) -> bool:
    """Whether the driver's list alone does not give it to the reader or its tree."""
    return process.owner not in ("own", "tree")


def _is_engine(process: ProcessUsage, known: dict[int, Sibling]) -> bool:
    return not is_other(process) or process.pid in known


def _place(
    process: ProcessUsage, known: dict[int, Sibling], own: Sibling | None
) -> tuple[Literal["own", "tree", "sibling"], str, int | None]:
    if process.owner == "own":
        return ("own", "this process", None) if own is None else ("own", own.role, own.rank)
    if process.owner == "tree":
        return "tree", "child" if own is None else f"child of {own.title}", None
    return "sibling", known[process.pid].role, known[process.pid].rank
