"""Reads a recording, whatever became of its recorder."""

from __future__ import annotations

import bisect
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct._errors import SourceFormatError, SourceReadError, SourceUnavailableError
from memacct._printable import printable
from memacct._trace_events import FOREIGN, Held, ProcessKey, Sample, foreign_events
from memacct.recording._frames import PREFIX_BYTES, parse_frames
from memacct.recording._types import (
    HOST_TERMS,
    SCHEMA,
    DevicePoint,
    HostPoint,
    ListedProcess,
    MachinePoint,
    Run,
    RunDevice,
    RunProcess,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST = b'{"kind":"run",'
_OURS = ("own", "tree")
_OWNERS = ("own", "tree", "foreign", "unknown")  # as Held.owner numbers them


def is_run_file(path: Path) -> bool:
    """Returns whether a file begins as a recording does, or is one that was not begun yet."""
    try:
        with path.open("rb") as file:
            begin = file.read(PREFIX_BYTES + len(_FIRST))
    except OSError:
        return False
    return begin[PREFIX_BYTES:] == _FIRST


def is_being_written(path: Path) -> bool:
    """Returns whether the recorder that writes the file is alive: it holds its lock."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # a file system without locks
    return False


def read_run(source: str | os.PathLike[str], *, min_event_bytes: int = 0) -> Run:
    """Returns what a recording holds, up to its last whole record.

    Args:
        source: the file.
        min_event_bytes: smaller moves of a foreign process are added up until they are as large.

    Raises:
        SourceUnavailableError: there is no such file.
        SourceReadError: it cannot be read.
        SourceFormatError: it is no recording, or one of a later memacct.
    """
    path = Path(source)
    name = printable(str(path))
    try:
        # First: what is written after this look is in the data, or the recorder lives.
        writing = is_being_written(path)
        data = path.read_bytes()
    except FileNotFoundError:
        raise SourceUnavailableError(name, "no such file or folder") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceReadError(name, reason, error.errno or 0) from None
    records, whole_bytes = parse_frames(data)
    if not records or records[0].get("kind") != "run":
        raise SourceFormatError(name, "this file is no recording of memacct record", "")
    if records[0].get("schema_version") != SCHEMA:
        reason = f"is of schema {records[0].get('schema_version')!r}; this memacct reads {SCHEMA}"
        raise SourceFormatError(name, reason, "")
    parts = _Parts(str(path))
    for record in records:
        parts.add(record)
    state: State = "running" if writing else "finished" if parts.end is not None else "died"
    return parts.run(state, len(data) - whole_bytes, max(1, min_event_bytes))


class _Parts:
    """What the records said so far."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.header: dict[str, Any] = {}
        self.driver: dict[str, Any] = {"devices": [], "reason": None, "driver_version": None}
        self.samples_ns: list[int] = []
        self.processes: list[dict[str, Any]] = []
        self.host: list[list[HostPoint]] = []
        self.ended_ns: dict[int, int] = {}
        self.alive: dict[int, int] = {}  # number by pid
        self.devices: list[list[DevicePoint]] = []
        self.machine: list[MachinePoint] = []
        self.foreign: dict[int, dict[str, Any]] = {}
        self.errors: list[dict[str, Any]] = []
        self.end: dict[str, Any] | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Takes in the next record; one of a kind that is not known here says nothing."""
        kind = record.get("kind")
        if kind == "run":
            self.header = record
        elif kind == "devices":
            self.driver = record
            self.devices = [[] for _ in record["devices"]]
        elif kind == "process":
            self._add_process(record)
        elif kind == "sample":
            self._add_sample(record)
        elif kind == "foreign":
            self.foreign[record["pid"]] = record
        elif kind == "error":
            self.errors.append(record)
        elif kind == "end":
            self.end = record

    def _add_process(self, record: dict[str, Any]) -> None:
        number = record["process"]
        if number == len(self.processes):
            self.processes.append(record)
            self.host.append([])
            self.alive[record["pid"]] = number
        else:  # it has another name or parent now; it was first seen when it was
            self.processes[number] = {**record, "at_ns": self.processes[number]["at_ns"]}

    def _add_sample(self, record: dict[str, Any]) -> None:
        at_ns = record["at_ns"]
        self.samples_ns.append(at_ns)
        for number, *values in record["host"]:
            known = [*values, *[None] * (len(HOST_TERMS) - len(values))][: len(HOST_TERMS)]
            self.host[number].append(HostPoint(at_ns, *known))
        for each in record.get("devices", ()):
            self.devices[each["device"]].append(self._device_point(at_ns, each))
        # After the devices: what ended just now may still be listed.
        for number in record["ended"]:
            self.ended_ns[number] = at_ns
            pid = self.processes[number]["pid"]
            if self.alive.get(pid) == number:
                del self.alive[pid]
        if "machine" in record:
            self.machine.append(MachinePoint(at_ns, record["machine"], record.get("cgroup")))

    def _device_point(self, at_ns: int, each: dict[str, Any]) -> DevicePoint:
        terms = {name: value for name, value in each.items() if name.endswith("_bytes")}
        listed = tuple(
            # Numbers of the driver that may be another namespace's are nobody's here.
            ListedProcess(pid, value, owner, self.alive.get(pid) if owner in _OURS else None)
            for pid, value, owner in each["processes"]
        )
        return DevicePoint(at_ns, each["span_ns"], each["consistent"], terms, listed)

    def run(self, state: State, torn_bytes: int, min_event_bytes: int) -> Run:
        """Returns all of it."""
        return Run(
            source=self.source,
            header=self.header,
            driver={name: value for name, value in self.driver.items() if name != "kind"},
            samples_ns=tuple(self.samples_ns),
            processes=tuple(self._processes()),
            devices=tuple(self._devices(min_event_bytes)),
            machine=tuple(self.machine),
            names={pid: record["name"] for pid, record in self.foreign.items()},
            errors=tuple(self.errors),
            end=self.end,
            state=state,
            torn_bytes=torn_bytes,
        )

    def _processes(self) -> Iterator[RunProcess]:
        fields = ("pid", "start_ticks", "parent_pid", "depth", "name", "title", "role", "rank")
        for number, record in enumerate(self.processes):
            yield RunProcess(
                number=number,
                first_ns=record["at_ns"],
                ended_ns=self.ended_ns.get(number),
                points=tuple(self.host[number]),
                **{name: record[name] for name in fields},
            )

    def _devices(self, min_event_bytes: int) -> Iterator[RunDevice]:
        for number, record in enumerate(self.driver["devices"]):
            points = self.devices[number]
            samples = self._device_samples(points)
            yield RunDevice(
                number=number,
                uuid=record["uuid"],
                index=record["index"],
                name=record["name"],
                parent_uuid=record["parent_uuid"],
                points=tuple(points),
                events=tuple(foreign_events(samples, min_event_bytes)),
            )

    def _device_samples(self, points: list[DevicePoint]) -> Iterator[Sample]:
        last: Sample | None = None
        for point in points:
            if point.terms.get("foreign_bytes") is None:
                continue
            if last is not None:
                # What is not written did not change: the sample just before says the same.
                place = bisect.bisect_left(self.samples_ns, point.at_ns)
                yield last._replace(taken_ns=self.samples_ns[place - 1], span_ns=0)
            last = self._sample(point)
            yield last

    def _sample(self, point: DevicePoint) -> Sample:
        processes: dict[ProcessKey, Held] = {}
        for each in point.processes:
            known = self.foreign.get(each.pid, {})
            owner = _OWNERS.index(each.owner)
            key = ProcessKey(each.pid, known.get("start_ticks") if owner == FOREIGN else None)
            processes[key] = Held(owner, each.process_used_bytes, known.get("name", ""))
        return Sample(point.at_ns, point.span_ns, processes)
