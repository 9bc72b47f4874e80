"""One consistent reading of this machine a scrape; what has to be kept between scrapes."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from memacct import _core
from memacct._container import container_id
from memacct._errors import DriverError, SourceError, SourceUnavailableError
from memacct.accounting.foreign import foreign_changes
from memacct.accounting.siblings import Sibling
from memacct.report.prometheus_types import Moves, Person, Reading, Watched

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from memacct._core import DeviceMemory, ProcessMemory, Snapshot


class Reader:
    """Reads all that the metrics tell; safe to call from several threads.

    NVML is initialised by the first reading and stays open: see ``_core.close_devices``.

    Args:
        pids: the processes to watch; they must run. Empty: this one.
        tree: with their descendants.
        most_processes_count: processes a device whose names and containers are looked up.

    Raises:
        ValueError: there is no such process.
        SourceUnavailableError: a process may not be looked at.
    """

    def __init__(
        self, pids: Sequence[int] = (), *, tree: bool = False, most_processes_count: int = 64
    ) -> None:
        self._tree = tree
        self._named = bool(pids)
        self._most_count = most_processes_count
        roots = _core.snapshot_tree(list(pids) or None, host="counters").processes
        self._start_ticks = {root.pid: root.start_ticks for root in roots if root.depth == 0}
        # The lists of the driver have the machine's numbers: elsewhere ours mean other processes.
        process = _core.driver_diagnosis()["process"]
        self._pids_known = bool(process["initial_pid_namespace"])
        self._lock = threading.Lock()
        self._before: dict[str, DeviceMemory] = {}
        self._moves: dict[str, Moves] = {}
        self._errors_count = 0

    def read(self) -> Reading:
        """Returns a new reading.

        Raises:
            SourceReadError, SourceFormatError: the host's memory could not be read.
        """
        with self._lock:
            begin_s = time.perf_counter()
            snapshot, problems = self._snapshot()
            processes, ended = self._processes()
            watched = self._watched(processes)
            devices = snapshot.devices or ()
            ours = set() if watched is None else watched.own_pids | watched.tree_pids
            for device in devices:
                self._count_moves(device, ours)
            shown = {pid for device in devices for pid in self._largest(device)}
            people = _people(shown if self._pids_known else (), processes)
            return Reading(
                snapshot=snapshot,
                processes=processes,
                ended_pids=ended,
                watched=watched,
                people=people,
                moves=dict(self._moves),
                problems=problems,
                duration_s=time.perf_counter() - begin_s,
                version=_core.__version__,
                errors_count=self._errors_count,
            )

    def _snapshot(self) -> tuple[Snapshot, tuple[tuple[str, str], ...]]:
        try:
            snapshot = _core.snapshot(devices="all", limits=True)
        except (DriverError, SourceError) as error:
            if isinstance(error, SourceError) and error.source.startswith("/"):
                raise  # a file of the kernel: the host's part cannot be read either
            self._errors_count += 1
            return _core.snapshot(devices=None, limits=True), (("devices", str(error)),)
        if snapshot.devices is None:
            reason = str(_core.driver_diagnosis()["nvml"]["reason"])
            return snapshot, (("devices", reason or "there is no NVIDIA driver"),)
        return snapshot, ()

    def _processes(self) -> tuple[tuple[ProcessMemory, ...], tuple[int, ...]]:
        """The watched processes, and the numbers of those that have ended."""
        found = _tree_of(self._start_ticks, "breakdown")
        same = {
            process.pid
            for process in found
            if process.start_ticks == self._start_ticks.get(process.pid)
            and process.state not in {"gone", "zombie"}
        }
        ended = tuple(pid for pid in self._start_ticks if pid not in same)
        # A number that was given to another process: its children are nobody's.
        if ended and self._tree:
            found = _tree_of(same, "breakdown")
        kept = (p for p in found if p.pid in same or (self._tree and p.depth > 0))
        return tuple(kept), ended

    def _watched(self, processes: Sequence[ProcessMemory]) -> Watched | None:
        if not self._named:
            return None
        roots = frozenset(p.pid for p in processes if p.pid in self._start_ticks)
        tree = frozenset(p.pid for p in processes) - roots
        return Watched(own_pids=roots, tree_pids=tree, pids_known=self._pids_known)

    def _count_moves(self, device: DeviceMemory, ours: Iterable[int]) -> None:
        total = self._moves.get(device.uuid, Moves())
        before = self._before.get(device.uuid)
        if not device.consistent:  # it may have lists of two instants
            self._moves[device.uuid] = total
            return
        siblings = [Sibling(pid=pid, role="watched") for pid in ours]
        changes = () if before is None else foreign_changes(before, device, siblings)
        for change in changes:
            moved = change.delta_bytes or 0
            if moved > 0:
                total = replace(
                    total,
                    allocations_count=total.allocations_count + 1,
                    allocated_bytes=total.allocated_bytes + moved,
                )
            elif moved < 0:
                total = replace(
                    total,
                    releases_count=total.releases_count + 1,
                    released_bytes=total.released_bytes - moved,
                )
        self._before[device.uuid] = device
        self._moves[device.uuid] = total

    def _largest(self, device: DeviceMemory) -> list[int]:
        rows = sorted(device.processes, key=lambda p: -(p.process_used_bytes or 0))
        return [row.pid for row in rows[: self._most_count]]


def _tree_of(
    pids: Collection[int], tier: Literal["counters", "breakdown"]
) -> tuple[ProcessMemory, ...]:
    """Reads those that run, with their descendants; one may end at any time."""
    if not pids:
        return ()
    with contextlib.suppress(ValueError, SourceUnavailableError):
        return _core.snapshot_tree(list(pids), host=tier).processes
    found: dict[int, ProcessMemory] = {}
    for pid in pids:
        with contextlib.suppress(ValueError, SourceUnavailableError):
            found.update({p.pid: p for p in _core.snapshot_tree(pid, host=tier).processes})
    return tuple(found.values())


def _people(shown: Collection[int], watched: Sequence[ProcessMemory]) -> dict[int, Person]:
    wanted = set(shown) - {process.pid for process in watched}
    others = (p for p in _tree_of(wanted, "counters") if p.pid in wanted)
    return {process.pid: _person(process) for process in (*watched, *others)}


def _person(process: ProcessMemory) -> Person:
    text = ""
    with contextlib.suppress(OSError):  # it has ended
        text = Path(f"/proc/{process.pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    return Person(name=process.name, role=process.role or "", container=container_id(text) or "")
