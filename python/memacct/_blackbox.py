"""What a flight recorder's file says: the last records of a process, and how it ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from memacct import _core
from memacct._errors import SourceFormatError, SourceReadError, SourceUnavailableError
from memacct._trace import Trace, TracedDevice, trace_of

Ending = Literal["running", "finished", "died", "machine_restarted", "unknown"]
Ring = Literal["kept", "host", "devices"]

FILE_PATTERN = "*.box"
#: Of `Blackbox.to_dict()`; raised when a key changes its meaning or goes.
SCHEMA_VERSION = 1
_MAGIC = b"\x89MABOX\r\n"
_LARGEST_BYTES = 1 << 33  # of a file that is read: rings are far smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class RingState:
    """What has become of the records of one ring.

    Attributes:
        capacity: how many it holds.
        records_count: how many are whole.
        last_number: of the last of them, from 1; 0: there is none.
        overwritten_count: older ones, whose room later ones have taken.
        missing_count: between the first and the last that are there.
        torn_count: begun, and not ended: of a killed process at most the last.
        damaged_count: as no writer leaves them: the machine was lost while they went to the disk,
            or the file was changed. While the process runs: written while they were read.
    """

    capacity: int
    records_count: int
    last_number: int
    overwritten_count: int
    missing_count: int
    torn_count: int
    damaged_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackbox:
    """A recording, as it was when it was read.

    Attributes:
        path: the file.
        ending: "running"; "finished": it was closed; "died": the process is gone and has not
            closed it (SIGKILL, the OOM killer, a crash); "machine_restarted": since then the
            machine has booted, so the process ended with it or before; "unknown": written on
            another machine, or a copy.
        pid, start_ticks: of the process, in its own pid namespace.
        command: its command line.
        host, boot_id, memacct_version: where it ran; "" if unknown.
        started_ns, started_wall_ns: the beginning, on CLOCK_MONOTONIC and as Unix time.
        ended_ns, ended_wall_ns: when it was closed; None: it was not.
        last_ns: CLOCK_MONOTONIC of the last record; None: there is none.
        cut_off: the file is shorter than it was made: an unfinished copy.
        unknown_count: records of kinds that this memacct does not know.
        rings: what has become of each ring's records.
        trace: the records as tables, with ``foreign_events()`` and peaks.
    """

    path: str
    ending: Ending
    pid: int
    start_ticks: int | None
    command: str
    host: str
    boot_id: str
    memacct_version: str
    started_ns: int
    started_wall_ns: int
    ended_ns: int | None
    ended_wall_ns: int | None
    last_ns: int | None
    cut_off: bool
    unknown_count: int
    rings: dict[Ring, RingState]
    trace: Trace

    def wall_ns(self, taken_ns: int) -> int:
        """Returns the Unix time of a time on CLOCK_MONOTONIC.

        By both clocks at the start: a clock that was set since, or a machine that slept, is off.
        """
        return self.started_wall_ns + taken_ns - self.started_ns

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as a dict that JSON can hold; unknown is None."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        rings = {
            name: {each.name: getattr(ring, each.name) for each in fields(ring)}
            for name, ring in self.rings.items()
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "blackbox",
            **plain,
            "rings": rings,
            "trace": self.trace.to_dict(),
        }


def read_blackbox(path: str | os.PathLike[str]) -> Blackbox:
    """Returns what is in the file of a flight recorder, also while it is being written.

    Raises:
        SourceUnavailableError: there is no such file, or it may not be read.
        SourceReadError: it could not be read.
        SourceFormatError: it is no recording, or its header is damaged. Damage behind the header
            is counted in ``rings``.

    Cost: reads the whole file (8 MiB by default), some 10 ms.
    """
    name = os.fspath(path)
    running = _core.is_being_recorded(name)
    native = _core.parse_recording(_read(name), name)
    rings = {
        ring: RingState(**counts)
        for ring, counts in zip(get_args(Ring), native["rings"], strict=True)
    }
    trace = _trace(native["rows"])
    return Blackbox(
        path=name,
        ending=_ending(native, running=running),
        command=native["command_line"].rstrip("\0").replace("\0", " "),
        last_ns=_last_ns(trace),
        rings=rings,
        trace=trace,
        **{key: native[key] for key in _AS_READ},
    )


_AS_READ: tuple[str, ...] = (
    "pid",
    "start_ticks",
    "host",
    "boot_id",
    "memacct_version",
    "started_ns",
)
_AS_READ += ("started_wall_ns", "ended_ns", "ended_wall_ns", "cut_off", "unknown_count")


def find_blackboxes(folder: str | os.PathLike[str]) -> Iterator[Blackbox | SourceFormatError]:
    """Yields the recordings in a folder by name, and an error for each that is damaged.

    Files that do not begin as a recording does are passed over.

    Raises:
        SourceUnavailableError: there is no such folder.
    """
    try:
        paths = sorted(path for path in Path(folder).iterdir() if _begins_as_recording(path))
    except OSError as error:
        raise SourceUnavailableError(str(folder), error.strerror or str(error)) from error
    yield from map(_blackbox_or_error, paths)


def _blackbox_or_error(path: Path) -> Blackbox | SourceFormatError:
    try:
        return read_blackbox(path)
    except SourceFormatError as error:
        return error


def _begins_as_recording(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _read(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(_LARGEST_BYTES)
    except OSError as error:
        raise SourceReadError(name, error.strerror or str(error), error.errno or 0) from error


def _trace(rows: dict[str, Any]) -> Trace:
    names: dict[int, list[str]] = {}
    for _, kind, number, _, text in rows["notes"]:
        if kind in (_DEVICE, _DEVICE_NAME):
            names.setdefault(number, ["", ""])[kind - _DEVICE] = text
    # A device whose notes are lost still has its place.
    places = [*rows["devices"]["device"].tolist(), *names]
    listed = [names.get(number, ["", ""]) for number in range(max(places, default=-1) + 1)]
    return trace_of(
        rows,
        device_list=tuple(TracedDevice(uuid=u, name=n, index=None) for u, n in listed),
        host_counts=None,
        device_counts=None,
        error_counts={},
        last_error=None,
    )


_DEVICE, _DEVICE_NAME = 1, 2  # NoteKind's numbers


def _last_ns(trace: Trace) -> int | None:
    last = [int(rows["taken_ns"][-1]) for rows in (trace.host, trace.devices) if len(rows)]
    last += [note[0] for note in trace.notes]
    return max(last, default=None)


def _ending(native: dict[str, Any], *, running: bool) -> Ending:
    if native["ended_ns"] is not None:
        return "finished"
    if running:
        return "running"
    if not native["boot_id"] or native["boot_id"] != _boot_id():
        here = native["host"] == socket.gethostname() and native["boot_id"]
        return "machine_restarted" if here else "unknown"
    if native["pid_namespace"] != _pid_namespace() or native["start_ticks"] is None:
        return "unknown"  # numbers of another namespace
    # A copy of it, or a file system without locks.
    alive = _start_ticks(native["pid"]) == native["start_ticks"]
    return "running" if alive else "died"


def _boot_id() -> str | None:
    text = _text("/proc/sys/kernel/random/boot_id")
    return None if text is None else text.strip()


def _pid_namespace() -> int | None:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def _start_ticks(pid: int) -> int | None:
    stat = _core._parse_stat(_text(f"/proc/{pid}/stat") or "")  # noqa: SLF001 (ours)
    # A zombie runs no more: its parent has only not asked for it yet.
    return None if stat is None or stat[0] == "Z" else int(stat[2])


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None
