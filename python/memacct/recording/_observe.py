"""Turns readings into records that say what changed since the last ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct.recording._types import DEVICE_TERMS, HOST_TERMS, UNIFIED_TERMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from memacct._core import CgroupMemory, DeviceMemory, ProcessMemory, SystemMemory, TreeSnapshot

_MACHINE_TERMS = ("total_bytes", "free_bytes", "available_bytes", "swap_free_bytes")
_CGROUP_TERMS = (
    *("path", "limit_bytes", "high_bytes", "usage_bytes", "working_set_bytes"),
    "swap_usage_bytes",
)
_ENDED = ("gone", "zombie")  # they hold nothing any more
_NO_HOST = (None,) * len(HOST_TERMS)


class Changes:
    """What each reading adds to the ones before it. Pure: it reads nothing.

    Attributes:
        peaks: by number of the process: the most that was seen of it, and when.
        host_peak: the largest sum over the tree, and when.
    """

    def __init__(self) -> None:
        self.peaks: dict[int, tuple[int, int]] = {}
        self.exact_peaks: dict[int, int] = {}
        self.host_peak: tuple[int, int] | None = None
        self.device_peaks: dict[int, tuple[int, int]] = {}
        self.labels: dict[int, tuple[int, str]] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._named: dict[int, tuple[Any, ...]] = {}
        self._host: dict[int, tuple[int | None, ...]] = {}
        self._devices: dict[int, tuple[Any, ...]] = {}
        self._foreign: dict[int, int | None] = {}

    def new_foreign(self, devices: Iterable[DeviceMemory]) -> list[int]:
        """Returns the listed foreign processes whose names were not told yet."""
        listed = {p.pid for d in devices for p in d.processes if p.owner == "foreign"}
        for pid in set(self._foreign) - listed:
            del self._foreign[pid]  # its number may become another's
        return sorted(listed - set(self._foreign))

    def foreign(self, pids: Sequence[int], named: TreeSnapshot | None) -> list[dict[str, Any]]:
        """Returns the records of new foreign processes.

        Args:
            pids: of ``new_foreign()``.
            named: a reading of them; None, or without one of them: procfs does not have it.
        """
        found = {} if named is None else {p.pid: p for p in named.processes if p.state != "gone"}
        records = []
        for pid in pids:
            process = found.get(pid)
            start_ticks = None if process is None else process.start_ticks
            self._foreign[pid] = start_ticks
            records.append(
                {
                    "kind": "foreign",
                    "pid": pid,
                    "start_ticks": start_ticks,
                    "name": "" if process is None else process.name,
                }
            )
        return records

    def sample(
        self,
        tree: TreeSnapshot,
        devices: Sequence[DeviceMemory],
        machine: tuple[SystemMemory, CgroupMemory | None] | None,
    ) -> list[dict[str, Any]]:
        """Returns the records of one sample: new and renamed processes, then what changed."""
        at_ns = tree.taken_ns
        records, rows, seen = [], [], {}
        for process in tree.processes:
            if process.state in _ENDED:
                continue
            number, told = self._number(process, at_ns)
            records += told
            values = _host_values(process)
            seen[number] = values
            if values != self._host.get(number):
                rows.append([number, *values])
                self._keep_peak(number, values, at_ns)
        ended = [number for number in self._host if number not in seen]
        self._host = seen
        self._keep_host_peak(at_ns)
        record = {
            "kind": "sample",
            "at_ns": at_ns,
            "span_ns": tree.span_ns,
            "complete": tree.complete,
            "host": rows,
            "ended": ended,
        }
        if changed := self._changed_devices(devices, at_ns):
            record["devices"] = changed
        if machine is not None:
            record["machine"] = _plain(machine[0], _MACHINE_TERMS)
            record["cgroup"] = None if machine[1] is None else _plain(machine[1], _CGROUP_TERMS)
        return [*records, record]

    def _number(self, process: ProcessMemory, at_ns: int) -> tuple[int, list[dict[str, Any]]]:
        key = (process.pid, process.start_ticks)
        number = self._numbers.setdefault(key, len(self._numbers))
        named = (process.parent_pid, process.name, process.title, process.role, process.rank)
        if self._named.get(number) == named:
            return number, []
        self._named[number] = named
        self.labels[number] = (process.pid, process.name)
        fields = ("pid", "start_ticks", "parent_pid", "depth", "name", "title", "role", "rank")
        told = {name: getattr(process, name) for name in fields}
        return number, [{"kind": "process", "at_ns": at_ns, "process": number, **told}]

    def _keep_peak(self, number: int, values: tuple[int | None, ...], at_ns: int) -> None:
        terms = dict(zip(HOST_TERMS, values, strict=True))
        rss_bytes, peak_bytes = terms["rss_bytes"], terms["peak_rss_bytes"]
        if rss_bytes is not None and rss_bytes > self.peaks.get(number, (-1, 0))[0]:
            self.peaks[number] = (rss_bytes, at_ns)
        if peak_bytes is not None:
            self.exact_peaks[number] = max(peak_bytes, self.exact_peaks.get(number, 0))

    def _keep_host_peak(self, at_ns: int) -> None:
        pss = HOST_TERMS.index("pss_bytes")
        counted = [v[0] if v[pss] is None else v[pss] for v in self._host.values()]
        total_bytes = sum(value for value in counted if value is not None)
        if counted and (self.host_peak is None or total_bytes > self.host_peak[0]):
            self.host_peak = (total_bytes, at_ns)

    def _changed_devices(self, devices: Sequence[DeviceMemory], at_ns: int) -> list[dict[str, Any]]:
        changed = []
        for number, device in enumerate(devices):
            terms = {name: getattr(device, name) for name in DEVICE_TERMS}
            if device.unified is not None and device.unified.kind == "integrated":
                terms |= {name: getattr(device.unified, name) for name in UNIFIED_TERMS}
            listed = [[p.pid, p.process_used_bytes, p.owner] for p in device.processes]
            tree_bytes = terms["tree_bytes"]
            if tree_bytes is not None and tree_bytes > self.device_peaks.get(number, (-1, 0))[0]:
                self.device_peaks[number] = (tree_bytes, at_ns)
            now = (terms, listed, device.consistent)
            if now == self._devices.get(number):
                continue
            self._devices[number] = now
            span_ns = max(0, device.taken_ns + device.span_ns - at_ns)
            about = {"device": number, "span_ns": span_ns, "consistent": device.consistent}
            changed.append({**about, **terms, "processes": listed})
        return changed


def _host_values(process: ProcessMemory) -> tuple[int | None, ...]:
    host = process.host
    return _NO_HOST if host is None else tuple(getattr(host, name) for name in HOST_TERMS)


def _plain(reading: Any, names: Iterable[str]) -> dict[str, Any]:
    plain = {name: getattr(reading, name) for name in names}
    pressure, events = reading.pressure, getattr(reading, "events", None)
    plain["full_stalled_ns"] = None if pressure is None else pressure.full_stalled_ns
    if isinstance(reading, _core.CgroupMemory):
        plain["oom_kill_count"] = None if events is None else events.oom_kill_count
    return plain
