"""Lines of timelines to values: the one reader, of files and of a running timeline's memory."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from memacct._convert import from_dict
from memacct._core import HostMemory, _parse_stat
from memacct._errors import SourceFormatError, SourceReadError, SourceUnavailableError
from memacct._timeline_records import MergedTimeline, TimelineRecord
from memacct._timeline_types import (
    Baseline,
    BaselinePart,
    DevicePoint,
    EntryKind,
    TimelineEntry,
)
from memacct._types import HostDelta

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SCHEMA = 1
KINDS = get_args(EntryKind)
FILE_PATTERN = "timeline-*.jsonl"


def read_timeline(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> MergedTimeline:
    """Returns what processes wrote of their timelines, also if they live or were killed.

    Args:
        source: a file, a folder (its ``timeline-*.jsonl``), or several of either; what is in
            several of them counts once.

    Raises:
        SourceUnavailableError: there is no such file or folder.
        SourceReadError: it could not be read.
        SourceFormatError: it is not a timeline, or one of a later memacct.
    """
    sources = [source] if isinstance(source, (str, os.PathLike)) else source
    timelines: dict[str, _Parts] = {}
    torn_count = 0
    for file in {os.path.realpath(file): file for file in _files(sources)}.values():
        try:
            data = file.read_bytes()
        except OSError as error:
            raise SourceReadError(str(file), str(error), error.errno or 0) from error
        torn_count += _collect(data.split(b"\n"), str(file), timelines)
    records = _records(timelines)
    records.sort(key=lambda record: record.started_wall_ns)
    return MergedTimeline(records=tuple(records), torn_count=torn_count)


def is_alive(record: TimelineRecord) -> bool | None:
    """Returns whether the process that wrote a timeline runs; None if that cannot be told here.

    A process of another machine is not known, nor is one whose start was not noted.
    Source: ``/proc/<pid>/stat``: its state, and its start, since pids are used again.
    """
    if record.machine != os.uname().nodename or record.start_ticks is None:
        return None
    try:
        found = _parse_stat(Path(f"/proc/{record.pid}/stat").read_text(errors="replace"))
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return found is not None and found[0] not in "ZX" and found[2] == record.start_ticks


def _files(sources: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    for source in sources:
        path = Path(source)
        if path.is_dir():
            yield from sorted(path.glob(FILE_PATTERN))
        elif path.exists():
            yield path
        else:
            raise SourceUnavailableError(str(path), "no such file or folder")


@dataclass(slots=True)
class _Parts:
    """The lines of one timeline; those of entries by index."""

    source: str
    header: dict[str, Any]
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)


def parse_timelines(lines: Iterable[bytes], source: str) -> tuple[list[TimelineRecord], int]:
    """Returns the timelines that ``lines`` hold, and how many lines were torn. Pure.

    A line that is no whole JSON was torn by the end of its process or by a full disk. What
    comes before its timeline's header, which only a full disk can cause, counts as torn too.

    Raises:
        SourceFormatError: a whole line is none of a timeline, or of one of a later memacct.
    """
    timelines: dict[str, _Parts] = {}
    torn_count = _collect(lines, source, timelines)
    return _records(timelines), torn_count


def _collect(lines: Iterable[bytes], source: str, timelines: dict[str, _Parts]) -> int:
    """Adds what ``lines`` hold to ``timelines``; returns how many lines were torn."""
    torn_count = 0
    for raw in lines:
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            torn_count += 1
            continue
        if not _is_line(line):
            later = "made by a later memacct" if _is_later(line) else "not a line of a timeline"
            raise SourceFormatError(source, later, _shown(raw))
        if line["kind"] == "start":
            timelines.setdefault(line["id"], _Parts(source, line))
        elif line["id"] not in timelines:
            torn_count += 1
        elif timelines[line["id"]].lines.setdefault(line["index"], line) != line:
            raise SourceFormatError(source, "two entries have one number", _shown(raw))
    return torn_count


def _records(timelines: dict[str, _Parts]) -> list[TimelineRecord]:
    return [_checked_record(parts) for parts in timelines.values()]


_OPTIONAL_TEXT = (str, type(None))
_OPTIONAL_NUMBER = (int, type(None))
_START: dict[str, Any] = {
    "id": str,
    "schema": int,
    "pid": int,
    "start_ticks": _OPTIONAL_NUMBER,
    "started_ns": int,
    "started_wall_ns": int,
    "host": str,
    "name": _OPTIONAL_TEXT,
    "command": _OPTIONAL_TEXT,
    "machine": _OPTIONAL_TEXT,
    "parent_id": _OPTIONAL_TEXT,
    "parent_pid": _OPTIONAL_NUMBER,
}
_ENTRY: dict[str, Any] = {
    "id": str,
    "index": int,
    "name": str,
    "depth": int,
    "span": _OPTIONAL_NUMBER,
    "thread": int,
    "taken_ns": int,
    "host": dict,
    "error": _OPTIONAL_TEXT,
    "garbage_count": _OPTIONAL_NUMBER,
    "devices": (list, type(None)),
    "parts": (list, type(None)),
    "now_bytes": _OPTIONAL_NUMBER,
    "notes": (dict, type(None)),
}


def _is_line(line: object) -> bool:
    if not isinstance(line, dict):
        return False
    kind = line.get("kind")
    if (kind != "start" and kind not in KINDS) or _is_later(line):
        return False
    kinds = _START if kind == "start" else _ENTRY
    return all(isinstance(line.get(name), allowed) for name, allowed in kinds.items())


def _is_later(line: object) -> bool:
    schema = line.get("schema") if isinstance(line, dict) else None
    return isinstance(schema, int) and schema > SCHEMA


def _shown(raw: bytes) -> str:
    return raw[:200].decode(errors="replace")


def _checked_record(parts: _Parts) -> TimelineRecord:
    try:
        return _record(parts)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"a timeline with a wrong value: {error}"
        raise SourceFormatError(parts.source, reason, "") from error


def _record(parts: _Parts) -> TimelineRecord:
    header = parts.header
    lines = sorted(parts.lines.values(), key=lambda line: (line["taken_ns"], line["index"]))
    entries = tuple(_entries(lines, header))
    if min(parts.lines, default=0) < 0:
        raise ValueError("an entry's number is negative")
    known = max(parts.lines, default=-1) + 1
    first = lines[0] if lines else {}
    return TimelineRecord(
        id=header["id"],
        parent_id=header["parent_id"],
        pid=header["pid"],
        parent_pid=header.get("parent_pid"),
        start_ticks=header["start_ticks"],
        machine=header["machine"] or "",
        command=header["command"] or "",
        name=header["name"],
        started_ns=header["started_ns"],
        started_wall_ns=header["started_wall_ns"],
        baseline=_baseline(first),
        entries=entries,
        lost_count=known - len(entries),
    )


def _baseline(line: dict[str, Any]) -> Baseline | None:
    if line.get("parts") is None:
        return None
    return Baseline(
        rss_bytes=_checked(line["host"]["rss_bytes"], int),
        parts=tuple(
            BaselinePart(
                kind=_checked(kind, str),
                path=_checked(path, _OPTIONAL_TEXT),
                rss_bytes=_checked(rss_bytes, int),
                mappings_count=_checked(count, _OPTIONAL_NUMBER),
            )
            for kind, path, rss_bytes, count in line["parts"]
        ),
        counter_lag_bytes=_checked(line.get("counter_lag_bytes"), _OPTIONAL_NUMBER),
    )


def _checked(value: Any, allowed: Any) -> Any:
    if not isinstance(value, allowed):
        raise TypeError(f"{value!r} is of the wrong type")
    return value


def _entries(lines: list[dict[str, Any]], header: dict[str, Any]) -> Iterator[TimelineEntry]:
    wall_offset_ns = header["started_wall_ns"] - header["started_ns"]
    first: HostMemory | None = None
    before: HostMemory | None = None
    begun: dict[int, tuple[HostMemory, int]] = {}
    for line in lines:
        host = _host(line["host"], header)
        before, first = before or host, first or host
        taken_ns, kind = line["taken_ns"], line["kind"]
        if kind == "span_begin":
            begun[line["index"]] = (host, taken_ns)
        span = begun.get(line["span"]) if kind == "span_end" else None
        yield TimelineEntry(
            index=line["index"],
            kind=kind,
            name=line["name"],
            depth=line["depth"],
            span_index=line["span"],
            thread_id=line["thread"],
            taken_ns=taken_ns,
            wall_ns=taken_ns + wall_offset_ns,
            host=host,
            delta=HostDelta.between(host, before),
            since_baseline=HostDelta.between(host, first),
            span_delta=None if span is None else HostDelta.between(host, span[0]),
            span_ns=None if span is None else taken_ns - span[1],
            error=line.get("error"),
            garbage_count=line.get("garbage_count"),
            devices=_devices(line.get("devices")),
            now_bytes=line.get("now_bytes"),
            notes=line.get("notes"),
        )
        before = host


_HOST_FIELDS = frozenset(HostMemory._fields)
_DEVICE_FIELDS = frozenset(each.name for each in fields(DevicePoint))


def _host(terms: dict[str, Any], header: dict[str, Any]) -> HostMemory:
    # A later memacct of this schema may write more fields.
    known = {name: value for name, value in terms.items() if name in _HOST_FIELDS}
    return from_dict(HostMemory, {**known, "tier": header["host"], "pid": header["pid"]})


def _devices(listed: list[dict[str, Any]] | None) -> tuple[DevicePoint, ...] | None:
    if listed is None:
        return None
    return tuple(
        DevicePoint(**{name: each[name] for name in _DEVICE_FIELDS & _checked(each, dict).keys()})
        for each in listed
    )
