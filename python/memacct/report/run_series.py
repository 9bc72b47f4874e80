"""A recording's course in few points: what the charts of its page are drawn from."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from memacct._printable import printable
from memacct._units import format_bytes
from memacct.report.run_account import called, device_at, host_at
from memacct.report.run_words import counted, event_text, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memacct.recording import DevicePoint, Run, RunDevice, RunProcess
    from memacct.report.run_account import RunAccount
    from memacct.report.run_spans import Span, Spans

_POINTS = 600
_OWN_COLORS = 8
_FOREIGN_COLORS = 4
_LANES = 24
_LEAST_COLORED = 0.01  # of the largest peak: less is no more than a line


def chart_data(account: RunAccount, spans: Spans) -> dict[str, Any]:
    """Returns the series, in seconds since the command's start and in bytes. Pure."""
    run = account.run
    colors = _colors(account)
    return {
        "end": seconds(run, run.last_ns),
        "host": _host(account, colors),
        "gpus": [_gpu(run, device, colors) for device in run.devices],
        "lanes": _lanes(account, spans.spans, colors),
    }


def thin(weights: Sequence[int], most: int = _POINTS) -> list[int]:
    """Returns the places of at most `most` samples: of each stretch the one that weighs most.

    So a stack that is drawn of them is one that there was, and no peak is lost. The first and
    the last sample are always among them.
    """
    count = len(weights)
    if count <= most:
        return list(range(count))
    inner = most - 2
    bounds = [1 + place * (count - 2) // inner for place in range(inner + 1)]
    kept = [
        max(range(begin, end), key=lambda place: (weights[place], -place))
        for begin, end in itertools.pairwise(bounds)
    ]
    return [0, *kept, count - 1]


def _colors(account: RunAccount) -> dict[int, int]:
    """The processes that have a colour of their own: those who held most, host and device."""
    host = sorted(account.rows, key=lambda row: -(row.peak_bytes or 0))
    device = sorted(account.rows, key=lambda row: -(row.device_peak_bytes or 0))
    chosen = [row.process.number for row in device if row.device_peak_bytes][: _OWN_COLORS // 2]
    least = _LEAST_COLORED * max((row.peak_bytes or 0 for row in host), default=0)
    for row in host:
        is_seen = (row.peak_bytes or 0) >= least and row.process.number not in chosen
        if is_seen and len(chosen) < _OWN_COLORS:
            chosen.append(row.process.number)
    return {number: color for color, number in enumerate(sorted(chosen))}


def _label(process: RunProcess) -> str:
    return f"{printable(called(process))} {process.pid}"


def _host(account: RunAccount, colors: dict[int, int]) -> dict[str, Any]:
    run = account.run
    places = thin(account.host_totals)
    times = [run.samples_ns[place] for place in places]
    series, known = [], [0] * len(times)
    for number, color in colors.items():
        process = run.processes[number]
        points = [host_at(process, at_ns) for at_ns in times]
        values = [0 if point is None else point.counted_bytes or 0 for point in points]
        known = [a + b for a, b in zip(known, values, strict=True)]
        series.append({"name": _label(process), "color": f"p{color}", "values": values})
    others = len(run.processes) - len(colors)
    if others:
        totals = (account.host_totals[place] for place in places)
        rest = [total - part for total, part in zip(totals, known, strict=True)]
        name = counted(others, "other process", "other processes")
        series.append({"name": name, "color": "other", "values": rest})
    return {"t": [seconds(run, at_ns) for at_ns in times], "series": series}


def _gpu(run: Run, device: RunDevice, colors: dict[int, int]) -> dict[str, Any]:
    first_ns = device.points[0].at_ns if device.points else run.last_ns
    samples = [at_ns for at_ns in run.samples_ns if at_ns >= first_ns]
    points = [device_at(device, at_ns) for at_ns in samples]
    read = [(at_ns, point) for at_ns, point in zip(samples, points, strict=True) if point]
    places = thin([point.terms.get("tree_bytes") or 0 for _, point in read])
    # Neighbours' peaks count too: between two points of the tree's.
    places = sorted({*places, *thin([_foreign(point) for _, point in read])})
    chosen = [read[place] for place in places]
    listed = _Listed(run, [point for _, point in chosen], colors)
    number = device.number if device.index is None else device.index
    return {
        "title": f"GPU {number}",
        "name": printable(device.name),
        "uuid": device.uuid,
        "total": chosen[0][1].terms["total_bytes"] if chosen else None,
        "t": [seconds(run, at_ns) for at_ns, _ in chosen],
        "series": listed.series(),
        "events": [
            {
                "t": seconds(run, event.before_ns),
                "change": event.change_bytes,
                "text": event_text(event, format_bytes(abs(event.change_bytes))),
            }
            for event in device.events
        ],
    }


def _foreign(point: DevicePoint) -> int:
    return point.terms.get("foreign_bytes") or 0


class _Listed:
    """The stacked parts of a device: the tree's processes, neighbours, and what is nobody's."""

    def __init__(self, run: Run, points: list[DevicePoint], colors: dict[int, int]) -> None:
        self.run = run
        self.points = points
        self.colors = colors

    def series(self) -> list[dict[str, Any]]:
        parts = [*self._tree(), *self._neighbours()]
        for name in ("unattributed", "reserved", "page_cache", "host_processes", "withheld"):
            values = [max(0, point.terms.get(f"{name}_bytes") or 0) for point in self.points]
            if any(values):
                parts.append(_part(name.replace("_", " "), name.split("_")[0], values))
        return parts

    def _tree(self) -> list[dict[str, Any]]:
        listed = {e.number for p in self.points for e in p.processes if e.number is not None}
        parts, known = [], [0] * len(self.points)
        for number in sorted(listed & set(self.colors)):
            values = self._held(lambda each, n=number: each.number == n)  # type: ignore[misc]
            known = [a + b for a, b in zip(known, values, strict=True)]
            name = _label(self.run.processes[number])
            parts.append(_part(name, f"p{self.colors[number]}", values))
        own = (sum(p.terms.get(f"{n}_bytes") or 0 for n in ("tree", "own")) for p in self.points)
        rest = [max(0, total - part) for total, part in zip(own, known, strict=True)]
        return [*parts, *([_part("others of the tree", "other", rest)] if any(rest) else [])]

    def _neighbours(self) -> list[dict[str, Any]]:
        peaks: dict[int, int] = {}
        for point in self.points:
            for each in point.processes:
                if each.number is None:
                    most = max(peaks.get(each.pid, 0), each.process_used_bytes or 0)
                    peaks[each.pid] = most
        pids = sorted(peaks, key=lambda pid: (-peaks[pid], pid))
        parts = []
        for color, pid in enumerate(pids[:_FOREIGN_COLORS]):
            name = printable(self.run.names.get(pid, "")) or "not visible here"
            values = self._held(lambda each, p=pid: each.number is None and each.pid == p)  # type: ignore[misc]
            parts.append(_part(f"foreign: {name} {pid}", f"f{color}", values))
        rest = set(pids[_FOREIGN_COLORS:])
        if rest:
            values = self._held(lambda each: each.number is None and each.pid in rest)
            parts.append(_part(f"foreign: {len(rest)} others", "fother", values))
        return parts

    def _held(self, belongs: Callable[[Any], bool]) -> list[int]:
        return [
            sum(each.process_used_bytes or 0 for each in point.processes if belongs(each))
            for point in self.points
        ]


def _part(name: str, color: str, values: list[int]) -> dict[str, Any]:
    return {"name": name, "color": color, "values": values}


def _lanes(
    account: RunAccount, spans: Sequence[Span], colors: dict[int, int]
) -> list[dict[str, Any]]:
    """When processes lived, in order of their start, and in which spans they were."""
    run = account.run
    spanned = {span.pid for span in spans}
    first = [row for row in account.rows if row.process.pid in spanned]
    rest = [row for row in account.rows if row.process.pid not in spanned]
    shown = sorted((row.process for row in [*first, *rest][:_LANES]), key=lambda p: p.number)
    return [
        {
            "name": _label(process),
            "color": f"p{colors[process.number]}" if process.number in colors else "other",
            "depth": process.depth,
            "begin": seconds(run, process.first_ns),
            "end": None if process.ended_ns is None else seconds(run, process.ended_ns),
            "spans": [_span(run, span) for span in spans if _is_of(span, process)],
        }
        for process in shown
    ]


def _is_of(span: Span, process: RunProcess) -> bool:
    # A number that was used twice: the process that was there when the span began.
    ended = process.ended_ns is not None and process.ended_ns < span.begin_ns
    return span.pid == process.pid and not ended


def _span(run: Run, span: Span) -> dict[str, Any]:
    return {
        "name": span.name,
        "depth": span.depth,
        "begin": seconds(run, span.begin_ns),
        "end": None if span.end_ns is None else seconds(run, span.end_ns),
        "held": span.held_change_bytes,
        "device": span.device_change_bytes,
    }
