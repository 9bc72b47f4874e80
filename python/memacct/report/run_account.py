"""What a recording tells: who peaked when, who grew, who else moved, the equation at the peak."""

from __future__ import annotations

import bisect
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memacct._trace_events import ForeignEvent
    from memacct.recording import DevicePoint, HostPoint, Run, RunDevice, RunProcess

#: The terms of the device equation, in the order in which they are shown.
EQUATION = ("own", "tree", "foreign", "unattributed", "reserved", "free")
#: In the place of reserved where a GPU's memory is the machine's.
UNIFIED = ("host_processes", "page_cache", "withheld")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One process of the tree, in one line.

    Attributes:
        peak_bytes: the most rss that is known of; ``exact`` if the kernel kept it (VmHWM).
        sampled_at_ns: when the largest sample was taken.
        first_bytes, last_bytes: rss in the first sample that has it and in the last.
        device_peak_bytes: the most that it held on all GPUs at once; None: it is on none.
    """

    process: RunProcess
    peak_bytes: int | None
    exact: bool
    sampled_at_ns: int | None
    first_bytes: int | None
    last_bytes: int | None
    device_peak_bytes: int | None

    @property
    def growth_bytes(self) -> int | None:
        """From its first sample to its last."""
        if self.first_bytes is None or self.last_bytes is None:
            return None
        return self.last_bytes - self.first_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPeak:
    """When the tree held most host memory, and who held it; the largest first."""

    at_ns: int
    total_bytes: int
    holders: tuple[tuple[RunProcess, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePeak:
    """When the recorded tree (or, if it held nothing, anybody) held most of a GPU."""

    device: RunDevice
    of_tree: bool
    point: DevicePoint

    def equation(self) -> dict[str, int | None]:
        """Returns the terms at that moment, in the order in which they are shown."""
        return equation_of(self.point)

    @property
    def holds(self) -> bool | None:
        """Whether they add up to the total; None: one of them is not known."""
        values = list(self.equation().values())
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        return sum(known) == self.point.terms["total_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """A recording in figures; its parts are in the order in which they are shown."""

    run: Run
    host_totals: tuple[int, ...]  # of each sample
    host_peak: HostPeak | None
    device_peaks: tuple[DevicePeak, ...]
    rows: tuple[ProcessRow, ...]  # by peak, the largest first

    def growers(self, count: int) -> list[ProcessRow]:
        """Returns the processes that grew most from their first sample to their last."""
        grew = [row for row in self.rows if (row.growth_bytes or 0) > 0]
        return sorted(grew, key=lambda row: -(row.growth_bytes or 0))[:count]

    def events(self, min_bytes: int = 0) -> list[tuple[RunDevice, ForeignEvent]]:
        """Returns what neighbours did on all GPUs, in order of time."""
        found = [
            (device, event)
            for device in self.run.devices
            for event in device.events
            if abs(event.change_bytes) >= min_bytes
        ]
        return sorted(found, key=lambda pair: pair[1].before_ns)


def account_of(run: Run) -> RunAccount:
    """Returns a recording's account. Pure."""
    totals = host_totals(run)
    on_devices = _device_peaks_of_processes(run)
    rows = [_row(process, on_devices.get(process.number)) for process in run.processes]
    rows.sort(key=lambda row: (-(row.peak_bytes or 0), row.process.number))
    peaks = (_device_peak(device) for device in run.devices)
    return RunAccount(
        run=run,
        host_totals=tuple(totals),
        host_peak=_host_peak(run, totals),
        device_peaks=tuple(peak for peak in peaks if peak is not None),
        rows=tuple(rows),
    )


def equation_of(point: DevicePoint) -> dict[str, int | None]:
    """Returns the terms of a reading that add up to its total when all are known."""
    names: list[str] = [name for name in EQUATION if name != "free"]
    if "page_cache_bytes" in point.terms:
        names = [name for name in names if name != "reserved"] + list(UNIFIED)
    return {name: point.terms.get(f"{name}_bytes") for name in (*names, "free")}


def host_totals(run: Run) -> list[int]:
    """Returns what the tree held in each sample: the sum of pss, or of rss, of its processes."""
    changes: dict[int, int] = defaultdict(int)
    for process in run.processes:
        before = 0
        for point in process.points:
            now = point.counted_bytes or 0
            changes[point.at_ns] += now - before
            before = now
        if process.ended_ns is not None:
            changes[process.ended_ns] -= before
    totals, total = [], 0
    for at_ns in run.samples_ns:
        total += changes.get(at_ns, 0)
        totals.append(total)
    return totals


def host_at(process: RunProcess, at_ns: int) -> HostPoint | None:
    """Returns a process's host memory at a moment; None: it was not there."""
    if process.ended_ns is not None and at_ns >= process.ended_ns:
        return None
    place = bisect.bisect_right(process.points, at_ns, key=lambda point: point.at_ns)
    return process.points[place - 1] if place else None


def device_at(device: RunDevice, at_ns: int) -> DevicePoint | None:
    """Returns a device at a moment; None: it was not read yet."""
    place = bisect.bisect_right(device.points, at_ns, key=lambda point: point.at_ns)
    return device.points[place - 1] if place else None


def called(process: RunProcess) -> str:
    """Returns how a process is called: its role with its rank, its script, or its name."""
    if process.role == "python":
        return f"{process.name} {_script(process.title.split()[1:])}".rstrip()
    if process.role in {None, "shell"}:
        return process.name
    return f"{process.role} {process.rank or ''}".rstrip()


def _script(words: Sequence[str]) -> str:
    """Returns what a Python runs, of its arguments: a file's name, ``-m module`` or ``-c``."""
    for at, word in enumerate(words):
        if word == "-m":
            return " ".join(words[at : at + 2])
        if word == "-c" or not word.startswith("-"):
            return PurePath(word).name
    return ""


def _host_peak(run: Run, totals: Sequence[int]) -> HostPeak | None:
    if not totals or max(totals) == 0:
        return None
    place = max(range(len(totals)), key=totals.__getitem__)
    at_ns = run.samples_ns[place]
    found = [(process, host_at(process, at_ns)) for process in run.processes]
    holders = [(process, point.counted_bytes or 0) for process, point in found if point]
    holders.sort(key=lambda pair: (-pair[1], pair[0].number))
    return HostPeak(at_ns=at_ns, total_bytes=totals[place], holders=tuple(holders))


def _device_peak(device: RunDevice) -> DevicePeak | None:
    if not device.points:
        return None
    of_tree = any(point.terms.get("tree_bytes") for point in device.points)
    term = "tree_bytes" if of_tree else "device_used_bytes"
    point = max(device.points, key=lambda each: each.terms.get(term) or 0)
    return DevicePeak(device=device, of_tree=of_tree, point=point)


def _device_peaks_of_processes(run: Run) -> dict[int, int]:
    """The most that each process held on all GPUs together, by its number."""
    held: dict[int, dict[int, int]] = defaultdict(dict)
    peaks: dict[int, int] = {}
    points = [
        (point.at_ns, device.number, point) for device in run.devices for point in device.points
    ]
    for _, number, point in sorted(points, key=lambda each: each[:2]):
        listed = _held_by(point)
        for process in {*listed, *(n for n, on in held.items() if number in on)}:
            held[process][number] = listed.get(process, 0)
            peaks[process] = max(peaks.get(process, 0), sum(held[process].values()))
    return peaks


def _held_by(point: DevicePoint) -> Mapping[int, int]:
    return {
        each.number: each.process_used_bytes
        for each in point.processes
        if each.number is not None and each.process_used_bytes is not None
    }


def _row(process: RunProcess, device_peak_bytes: int | None) -> ProcessRow:
    known = [point for point in process.points if point.rss_bytes is not None]
    exact = [point.peak_rss_bytes for point in known if point.peak_rss_bytes is not None]
    largest = max(known, key=lambda point: point.rss_bytes or 0, default=None)
    sampled = None if largest is None else largest.rss_bytes
    return ProcessRow(
        process=process,
        peak_bytes=max(exact) if exact else sampled,
        exact=bool(exact),
        sampled_at_ns=None if largest is None else largest.at_ns,
        first_bytes=known[0].rss_bytes if known else None,
        last_bytes=known[-1].rss_bytes if known else None,
        device_peak_bytes=device_peak_bytes,
    )
