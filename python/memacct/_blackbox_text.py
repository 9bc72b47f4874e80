"""Recordings as text: how it ended, who moved, and the last records."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memacct._errors import SourceFormatError
from memacct._printable import printable
from memacct._units import format_bytes

if TYPE_CHECKING:
    from memacct._blackbox import Blackbox

_ENDINGS = {
    "running": "still running",
    "finished": "ended, and closed its recording",
    "died": "died without closing its recording: killed (SIGKILL, OOM killer) or crashed",
    "machine_restarted": "ended with the machine's last run, or during it: it has booted since",
    "unknown": "not known how it ended: recorded on another machine, or this is a copy",
}
_COLUMNS = ("at", "before end", "of", "rss/free", "own", "tree", "foreign", "unattributed")
_WIDTHS = (23, 10, 6, 11, 11, 11, 11, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A record as a line of a table; time and ``of`` say which, for who follows a recording."""

    taken_ns: int
    of: str
    text: str


def blackbox_text(box: Blackbox, *, tail_count: int = 40, seconds: float | None = None) -> str:
    """Returns a recording for people: the last records first.

    Args:
        box: the recording.
        tail_count: how many records at most.
        seconds: only those, and only moves, of that long before the last record.
    """
    after_ns = 0
    if seconds is not None and box.last_ns is not None:
        after_ns = box.last_ns - int(seconds * 1e9)
    lines = [line for line in blackbox_lines(box) if line.taken_ns >= after_ns]
    shown = [line.text for line in reversed(lines)][:tail_count]
    return "\n".join([*_about(box), *_moves(box, after_ns, tail_count), "", header(), *shown])


def header() -> str:
    """Returns the head of the table of records."""
    return _row(_COLUMNS)


def blackbox_lines(box: Blackbox) -> list[Line]:
    """Returns the records as lines, in the order in which they were taken."""
    trace = box.trace
    lines = [
        Line(taken_ns=taken, of="host", text=_row((*_times(box, taken), "host", _size(rss))))
        for taken, rss in zip(
            trace.host["taken_ns"].tolist(), trace.host["rss_bytes"].tolist(), strict=True
        )
    ]
    names = ("taken_ns", "device", "free_bytes", "own_bytes", "tree_bytes", "foreign_bytes")
    columns = [trace.column("devices", name).tolist() for name in (*names, "unattributed_bytes")]
    for taken, device, *sizes in zip(*columns, strict=True):
        cells = (*_times(box, taken), f"gpu {device}", *map(_size, sizes))
        lines.append(Line(taken_ns=taken, of=cells[2], text=_row(cells)))
    for taken, kind, number, value, text in trace.notes:
        about = f"{kind} {number}" if kind.startswith("device") else kind
        told = printable(text) or str(value)
        note = f"{about}: {told}"
        line = _row((*_times(box, taken), "note", note))
        lines.append(Line(taken_ns=taken, of=note, text=line))
    return sorted(lines, key=lambda line: line.taken_ns)


def listing_text(found: Blackbox | SourceFormatError) -> str:
    """Returns one line about a recording, or about why it cannot be read."""
    if isinstance(found, SourceFormatError):
        return f"{printable(found.source)}: {found.reason}"
    last = "no record" if found.last_ns is None else _clock(found.wall_ns(found.last_ns))
    command = printable(found.command)[:60]
    return f"{printable(found.path)}: pid {found.pid} ({command}), {found.ending}, last {last}"


def _about(box: Blackbox) -> list[str]:
    command, host = printable(box.command) or "unknown command", printable(box.host)
    lines = [
        f"recording {printable(box.path)}, by memacct {printable(box.memacct_version)}",
        f"process {box.pid} ({command}) on {host or 'an unknown host'}",
        f"recorded from {_clock(box.started_wall_ns)} UTC",
    ]
    ended = "" if box.ended_wall_ns is None else f" at {_clock(box.ended_wall_ns)}"
    lines.append(_ENDINGS[box.ending] + ended)
    if box.last_ns is not None:
        after_s = (box.last_ns - box.started_ns) / 1e9
        lines.append(
            f"last record {_clock(box.wall_ns(box.last_ns))}, {after_s:.3f} s after the start"
        )
    for name, ring in box.rings.items():
        counts = {
            "overwritten": ring.overwritten_count,
            "missing": ring.missing_count,
            "torn": ring.torn_count,
            "damaged": ring.damaged_count,
        }
        lost = "".join(f", {count:,} {what}" for what, count in counts.items() if count)
        lines.append(f"{name}: {ring.records_count:,} records{lost}")
    if box.cut_off:
        lines.append("the file is cut off: an unfinished copy")
    for number, device in enumerate(box.trace.device_list):
        lines.append(
            f"gpu {number}: {printable(device.uuid) or 'unknown'} {printable(device.name)}"
        )
    return lines


def _moves(box: Blackbox, after_ns: int, most: int) -> list[str]:
    """Who else moved on each device, the last first."""
    lines: list[str] = []
    for number in range(len(box.trace.device_list)):
        events = [e for e in box.trace.foreign_events(number) if e.before_ns >= after_ns]
        if events:
            lines.append(f"who moved on gpu {number}, the last first:")
        for event in list(reversed(events))[:most]:
            at, before_end = _times(box, event.before_ns)
            lines.append(f"  {at}  {before_end:>10}  {printable(str(event))}")
    return lines


def _times(box: Blackbox, taken_ns: int) -> tuple[str, str]:
    before_end_s = ((box.last_ns or taken_ns) - taken_ns) / 1e9
    return _clock(box.wall_ns(taken_ns)), f"-{before_end_s:.3f} s"


def _clock(wall_ns: int) -> str:
    """Returns a Unix time as UTC, to the millisecond; the number itself where no date has it."""
    try:
        when = dt.datetime.fromtimestamp(wall_ns // 10**9, tz=dt.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return f"{wall_ns} ns"
    return f"{when:%Y-%m-%d %H:%M:%S}.{wall_ns // 10**6 % 1000:03}"


def _size(value: int | None) -> str:
    return "?" if value is None else format_bytes(value)


def _row(cells: tuple[Any, ...]) -> str:
    if len(cells) > 3 and cells[2] == "note":  # noqa: PLR2004 (its text is as wide as it is)
        return f"{cells[0]:<{_WIDTHS[0]}}{cells[1]:>{_WIDTHS[1] + 2}}  {cells[2]:<6}  {cells[3]}"
    padded = [f"{cells[0]:<{_WIDTHS[0]}}"]
    padded += [f"{cell:>{width}}" for cell, width in zip(cells[1:], _WIDTHS[1:], strict=False)]
    return "  ".join(padded)
