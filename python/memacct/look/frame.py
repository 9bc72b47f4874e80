"""One frame of ``watch``: bars, processes, host and events, within a number of lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct.look.frame_bars import gpu_lines, gpus_lines, host_lines, no_gpus
from memacct.look.frame_rows import event_line, process_lines
from memacct.look.screen import HELP, rows_of
from memacct.look.styled import Span, fit, line, spread, width

if TYPE_CHECKING:
    from memacct.look.frame_data import Frame
    from memacct.look.styled import Line


def frame_lines(frame: Frame, columns: int, rows: int, *, colour: bool) -> list[Line]:
    """Returns exactly ``rows`` lines of at most ``columns`` for a terminal.

    What does not fit goes in this order: blank lines, the titles of GPUs, events, processes,
    GPUs beyond the first.
    """
    body = rows - 2
    if frame.screen.helping:
        middle = _help(frame, columns, colour=colour)
    else:
        middle = _body(frame, columns, max(body, 0), colour=colour)
    lines = [_header(frame, columns), *middle[: max(body, 0)]]
    lines += [()] * (rows - 1 - len(lines))
    lines = [*lines[: max(rows - 1, 0)], _footer(frame, columns)][:rows]
    return [fit(each, columns) for each in lines]


def plain_lines(frame: Frame, columns: int) -> list[Line]:
    """Returns a frame for what is no terminal: as long as it gets."""
    gpus = [
        each for gpu in frame.look.gpus or () for each in gpu_lines(frame, gpu, columns, 2, False)
    ]
    rows = rows_of(frame.look, frame.screen.sort)
    return [
        _header(frame, columns),
        *no_gpus(frame.look, columns),
        *gpus,
        *host_lines(frame, columns, 2, colour=False),
        *(process_lines(frame, rows, columns, len(rows) + 1) if rows else []),
        *(event_line(event, frame.now_ns, columns) for event in frame.events),
        (),
    ]


# ---------------------------------------------------------------- the two ends


def _header(frame: Frame, columns: int) -> Line:
    count = len(frame.look.gpus or ())
    left = line(Span("memacct watch", "title"), f"  {count} GPU{'' if count == 1 else 's'}")
    if frame.screen.picked is not None:
        left = (*left, Span(f"  pid {frame.screen.picked}", "bold"))
    if frame.screen.paused:
        left = (*left, Span("  PAUSED", "warn"))
    if frame.screen.message:
        left = (*left, Span(f"  {frame.screen.message}", "bad"))
    return spread(left, line(Span(frame.clock, "dim")), columns)


def _footer(frame: Frame, columns: int) -> Line:
    cpu = "" if frame.cpu_ratio is None else f"  self {100 * frame.cpu_ratio:.1f} % CPU"
    right = line(Span(f"{frame.interval_s:g} s{cpu}", "dim"))
    sort = f"s sort: {frame.screen.sort}"
    pause = "p go on" if frame.screen.paused else "p pause"
    for keys in (
        ("q quit", pause, sort, "↑↓ enter pick", "? help"),
        ("q quit", pause, sort, "? help"),
        ("q quit", "? help"),
    ):
        left = line(Span("  ".join(keys), "dim"))
        if width(left) + width(right) + 2 <= columns:
            return spread(left, right, columns)
    return fit(line(Span("q quit  ? help", "dim")), columns)


def _help(frame: Frame, columns: int, *, colour: bool) -> list[Line]:
    lines: list[Line] = [()]
    lines += [fit(line(Span(f"  {keys:<10}", "bold"), text), columns) for keys, text in HELP]
    lines += [(), fit(line("  In the bars: a letter and a colour for each process, and"), columns)]
    marks = (
        ("own", "X", "the picked process"),
        ("tree", "X", "its descendants"),
        ("unattributed", "?", "in use, in nobody's number"),
        ("reserved", "#", "kept by the driver"),
        ("free", "·", "free"),
        ("held", "=", "host memory that only its processes, or swap, can give back"),
        ("reclaimable", "-", "page cache, which makes way"),
    )
    for style, mark, text in marks:
        mark_span = Span(f" {mark} ", style if colour else "")
        lines.append(fit(line("  ", mark_span, f"  {text}"), columns))
    notes = [f"GPU {gpu.label}: {note}" for gpu in frame.look.gpus or () for note in gpu.notes]
    return [*lines, (), *(fit(line(Span(f"  {note}", "warn")), columns) for note in notes)]


# ---------------------------------------------------------------- between


def _body(frame: Frame, columns: int, rows: int, *, colour: bool) -> list[Line]:
    gpus = frame.look.gpus or ()
    listed = rows_of(frame.look, frame.screen.sort)
    events_count = min(len(frame.events), 6)
    wanted = min(len(listed), 6) + (1 if listed else 0) + events_count
    each = next((n for n in (3, 2) if n * len(gpus) + 3 + wanted <= rows), 1)
    host_rows = 2 if rows >= each * len(gpus) + 2 + min(wanted, 3) else 1
    lines = [
        *no_gpus(frame.look, columns),
        *gpus_lines(frame, columns, each, rows - host_rows, colour),
    ]
    lines += host_lines(frame, columns, host_rows, colour=colour)
    if each == 3:  # noqa: PLR2004 (there is room for blank lines)
        lines.append(())
    left = rows - len(lines)
    below = _split(left, len(listed), len(frame.events))
    lines += process_lines(frame, listed, columns, below[0]) if listed and below[0] else []
    if below[1]:
        gap = left - below[0] - below[1]
        lines += [()] if gap > 0 and listed else []
        shown = list(frame.events)[-below[1] :]
        lines += [event_line(event, frame.now_ns, columns) for event in reversed(shown)]
    return lines


def _split(left: int, listed: int, events: int) -> tuple[int, int]:
    """The lines of the processes, their header included, and of the events."""
    if left <= 0:
        return 0, 0
    table = listed + 1 if listed else 0
    least = min(events, max(left // 3, 1 if left > 2 else 0))  # noqa: PLR2004 (a header, a row)
    for_table = min(table, left - least)
    return for_table, min(events, left - for_table - (1 if left - for_table > least else 0))
