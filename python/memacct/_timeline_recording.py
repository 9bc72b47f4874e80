"""One process's part of a timeline: takes readings, makes lines of them, keeps and writes them."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from memacct import _core
from memacct._core import host_terms_json, snapshot
from memacct._errors import MemacctError
from memacct._timeline_baseline import quiet_reading, read_baseline
from memacct._timeline_file import LineFile, warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from memacct._timeline_baseline import PartsKind

T = TypeVar("T")

# A line takes about 0.5 KiB, and measuring must not become what is measured.
KEPT_LINES = 50_000

_DEVICE_FIELDS = (
    "uuid",
    "total_bytes",
    "free_bytes",
    "device_used_bytes",
    "reserved_bytes",
    "own_bytes",
    "tree_bytes",
    "foreign_bytes",
    "unattributed_bytes",
)


class Recording:
    """The lines of a timeline in one process, from a baseline on.

    Nothing here is locked: a number is taken, a line is kept and a line is written in one step
    each, so threads and signal handlers may come in between; readers sort lines by time.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        is_folder: bool,
        name: str | None,
        host: _core.HostTier,
        devices: Any,
        parts_kind: PartsKind,
        parent_id: str | None = None,
    ) -> None:
        snapshot(host, devices)  # what cannot be read leaves no file behind
        self.id = os.urandom(8).hex()
        self.pid = os.getpid()
        self.lines: list[bytes] = []
        self.unkept_count = 0
        self.missed_count = 0
        self._has_warned = False
        self.file: LineFile | None = None
        self._host = host
        self._devices = devices
        self._indices = itertools.count()
        # Half a line of another process must not swallow one of ours, in a file that is shared.
        is_shared = path is not None and not is_folder
        self._before = "\n" if is_shared else ""
        self._prefix = f'{self._before}{{"id":"{self.id}","index":'
        header = self._header(name, parent_id)
        self.lines.append(header)
        if path is not None:
            own = path / f"timeline-{self.pid}-{self.id}.jsonl" if is_folder else path
            self.file = LineFile(own, header, exclusive=is_folder)
        try:
            baseline, parts = read_baseline(host, devices, parts_kind)
        except BaseException:
            if self.file is not None:
                self.file.close()
            raise
        more = "".join(f",{quoted(key)}:{_json(value)}" for key, value in parts.items())
        self.add(baseline, "baseline", quoted("baseline"), more=more)

    def _header(self, name: str | None, parent_id: str | None) -> bytes:
        before_ns = _core.monotonic_ns()
        wall_ns = time.time_ns()
        started_ns = (before_ns + _core.monotonic_ns()) // 2
        content = {
            "id": self.id,
            "kind": "start",
            "schema": 1,
            "pid": self.pid,
            "start_ticks": _start_ticks(),
            "started_ns": started_ns,
            "started_wall_ns": wall_ns,
            "name": name,
            "command": _text("/proc/self/comm"),
            "machine": os.uname().nodename,
            "boot_id": _text("/proc/sys/kernel/random/boot_id"),
            "parent_id": parent_id,
            "parent_pid": os.getppid(),
            "host": self._host,
            "python": sys.version.split()[0],
            "memacct": _core.__version__,
        }
        return f"{self._before}{_json(content)}\n".encode()

    def read_devices(self, devices: Any) -> None:
        """Changes which devices are read from the next entry on."""
        self._devices = devices

    def read(self) -> _core.Snapshot | None:
        """Returns a reading; None, logged once, if its source failed."""
        return self._read(snapshot)

    def _read(self, reader: Callable[[_core.HostTier, Any], T]) -> T | None:
        try:
            return reader(self._host, self._devices)
        except (MemacctError, OSError) as error:
            self._miss(error)
        if self._devices is None:
            return None
        # A driver that fails takes only its own part of the entry with it.
        try:
            return reader(self._host, None)
        except (MemacctError, OSError):
            return None

    def add(
        self,
        reading: _core.Snapshot,
        kind: str,
        quoted_name: str,
        *,
        place: tuple[int, int | None] = (0, None),
        more: str = "",
    ) -> int:
        """Keeps and writes an entry; returns its index.

        Args:
            reading: what was read.
            kind: of entry.
            quoted_name: the name as JSON.
            place: how many spans are open around it, and the index of the innermost one, or
                of the one that it ends.
            more: further fields, each after a comma.
        """
        depth, span = place
        index = next(self._indices)
        if self._devices is not None:
            more += _devices_text(reading)
        line = (
            f'{self._prefix}{index},"kind":"{kind}","name":{quoted_name},"depth":{depth},'
            f'"span":{"null" if span is None else span},"thread":{threading.get_native_id()},'
            f'"taken_ns":{reading.taken_ns},"host":{{{host_terms_json(reading)}}}{more}}}\n'
        ).encode()
        if kind == "end" or len(self.lines) <= KEPT_LINES:
            self.lines.append(line)
        else:
            self.unkept_count += 1
        if self.file is not None:
            self.file.write(line)
        return index

    def check(
        self,
        kind: str,
        quoted_name: str,
        *,
        place: tuple[int, int | None] = (0, None),
        more: str = "",
    ) -> None:
        """Adds an entry with an independent reading, by which the identity can be checked."""
        found = self._read(quiet_reading)
        if found is not None:
            reading, now_bytes = found
            more = f',"now_bytes":{now_bytes}{more}'
            self.add(reading, kind, quoted_name, place=place, more=more)

    def end(self) -> None:
        """Adds the last entry, with an independent reading, and closes the file."""
        self.check("end", '"end"')
        if self.file is not None:
            self.file.close()

    def _miss(self, error: MemacctError | OSError) -> None:
        self.missed_count += 1
        if not self._has_warned:
            self._has_warned = True
            self._has_warned = warn("the timeline misses what could not be read: %s", error)


def _json(content: object) -> str:
    return json.dumps(content, separators=(",", ":"))


def _devices_text(reading: _core.Snapshot) -> str:
    if reading.devices is None:
        return ""
    torch = {each.uuid: each for each in reading.torch or ()}
    listed = []
    for device in reading.devices:
        terms: dict[str, Any] = {name: getattr(device, name) for name in _DEVICE_FIELDS}
        if device.uuid in torch:
            terms["allocator_reserved_bytes"] = torch[device.uuid].reserved_bytes
            terms["allocator_allocated_bytes"] = torch[device.uuid].allocated_bytes
            terms["non_torch_bytes"] = device.non_torch_bytes
        listed.append(terms)
    return ',"devices":' + _json(listed)


def _start_ticks() -> int | None:
    found = _core._parse_stat(_text("/proc/self/stat") or "")  # noqa: SLF001 (ours)
    return None if found is None else found[2]


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
