"""One frame of ``watch``: bars, processes, host and events, within a number of lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memacct._printable import printable
from memacct._units import format_bytes
from memacct.look.bar import bar
from memacct.look.events import ago, did
from memacct.look.parts import called, gib, gpu_parts, gpu_terms, room, room_parts
from memacct.look.screen import HELP, rows_of
from memacct.look.styled import Span, cut, fit, line, pad, spread, width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memacct.look.events import Event
    from memacct.look.look_types import Gpu, Look
    from memacct.look.parts import Keys
    from memacct.look.screen import Row, Screen
    from memacct.look.styled import Line


_LEAST_LEFT = 14  # columns of a title, below which what stands beside it is told shorter


class Frame(NamedTuple):
    """All that a frame shows.

    Attributes:
        events: the oldest first.
        cpu_ratio: what watching itself takes of one CPU; None: not known yet.
        clock: the time of day.
    """

    look: Look
    screen: Screen
    keys: Keys
    events: Sequence[Event]
    interval_s: float
    now_ns: int
    clock: str
    cpu_ratio: float | None = None


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
    gpus = [each for gpu in frame.look.gpus or () for each in _gpu(frame, gpu, columns, 2, False)]
    rows = rows_of(frame.look, frame.screen.sort)
    return [
        _header(frame, columns),
        *_no_gpus(frame.look, columns),
        *gpus,
        *_host(frame, columns, 2, colour=False),
        *(_processes(frame, rows, columns, len(rows) + 1) if rows else []),
        *(_event(event, frame.now_ns, columns) for event in frame.events),
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
    lines = [*_no_gpus(frame.look, columns), *_gpus(frame, columns, each, rows - host_rows, colour)]
    lines += _host(frame, columns, host_rows, colour=colour)
    if each == 3:  # noqa: PLR2004 (there is room for blank lines)
        lines.append(())
    left = rows - len(lines)
    below = _split(left, len(listed), len(frame.events))
    lines += _processes(frame, listed, columns, below[0]) if listed and below[0] else []
    if below[1]:
        gap = left - below[0] - below[1]
        lines += [()] if gap > 0 and listed else []
        shown = list(frame.events)[-below[1] :]
        lines += [_event(event, frame.now_ns, columns) for event in reversed(shown)]
    return lines


def _split(left: int, listed: int, events: int) -> tuple[int, int]:
    """The lines of the processes, their header included, and of the events."""
    if left <= 0:
        return 0, 0
    table = listed + 1 if listed else 0
    least = min(events, max(left // 3, 1 if left > 2 else 0))  # noqa: PLR2004 (a header, a row)
    for_table = min(table, left - least)
    return for_table, min(events, left - for_table - (1 if left - for_table > least else 0))


def _no_gpus(look: Look, columns: int) -> list[Line]:
    if look.gpus:
        return []
    why = look.gpus_reason or ("no GPU is here" if look.gpus is not None else "GPUs: not asked for")
    return [fit(line(Span(f"no GPU: {why}" if look.gpus_reason else why, "warn")), columns)]


def _gpus(frame: Frame, columns: int, each: int, rows: int, colour: bool) -> list[Line]:
    gpus = frame.look.gpus or ()
    shown = gpus if len(gpus) * each <= rows else gpus[: max(rows - 1, 1)]
    lines = [text for gpu in shown for text in _gpu(frame, gpu, columns, each, colour)]
    if len(shown) < len(gpus):
        lines.append(line(Span(f"and {len(gpus) - len(shown)} GPUs more", "dim")))
    return lines


def _gpu(frame: Frame, gpu: Gpu, columns: int, rows: int, colour: bool) -> Iterator[Line]:
    parts = gpu_parts(gpu, frame.keys)
    if rows == 1:
        label = pad(gpu.label, 3)
        yield (Span(label, "bold"), *bar(parts, columns - 3, colour=colour))
        return
    left = line(Span(f"GPU {gpu.label}", "bold"), f"  {gpu.name}")
    yield _beside(left, _sums(gpu, picked=frame.look.pid is not None), columns)
    yield bar(parts, columns, colour=colour)
    if rows > 2:  # noqa: PLR2004 (title, bar)
        yield fit(line(Span(gpu.notes[0], "warn")), columns) if gpu.notes else ()


def _sums(gpu: Gpu, *, picked: bool) -> list[Line]:
    """The equation of a device, as long and as short as it can be told."""
    terms = gpu_terms(gpu, picked=picked)
    whole = f"{gib(gpu.total_bytes)} GiB"
    full = " + ".join(f"{gib(value)} {name}" for name, value in terms)
    named = dict(terms)
    names = ("own", "tree", "foreign") if picked else ("processes",)
    short = "  ".join(f"{name} {gib(named[name])}" for name in names)
    return [
        line(full, Span(f" = {whole}", "bold")),
        line(f"{short}  free {gib(gpu.free_bytes)}", Span(f"  of {whole}", "bold")),
        line(f"{gib(gpu.free_bytes)} free", Span(f" of {whole}", "bold")),
        line(f"{gib(gpu.free_bytes)} free"),
    ]


def _beside(left: Line, rights: Sequence[Line], columns: int) -> Line:
    """The longest right end beside the left one; the left one cut where none fits."""
    for right, least in zip(rights, (width(left), *[_LEAST_LEFT] * len(rights)), strict=False):
        if min(width(left), least) + width(right) + 2 <= columns:
            return spread(fit(left, columns - width(right) - 2), right, columns)
    return fit(left, columns)


def _host(frame: Frame, columns: int, rows: int, *, colour: bool) -> list[Line]:
    found = room(frame.look)
    if found is None:
        return []
    parts = room_parts(found)
    if rows == 1:
        return [(Span("mem", "bold"), *bar(parts, columns - 3, colour=colour))]
    rights = [
        line(
            f"{gib(found.held_bytes)} held + {gib(found.reclaimable_bytes)} reclaimable + "
            f"{gib(found.free_bytes)} free",
            Span(f" = {gib(found.limit_bytes)} GiB", "bold"),
        ),
        line(f"held {gib(found.held_bytes)} of {gib(found.limit_bytes)} GiB"),
    ]
    left = line(Span("host", "bold"), f"  {printable(found.name)}")
    return [
        _beside(left, rights, columns),
        bar(parts, columns, colour=colour),
        *_picked(frame, columns),
    ]


def _picked(frame: Frame, columns: int) -> Iterator[Line]:
    process = frame.look.process
    if process is None:
        return
    host = process.host
    if host is None:
        yield fit(line(f"pid {process.pid}: {process.state}"), columns)
        return
    terms = [("rss", host.rss_bytes), ("held", host.held_bytes)]
    terms += [("reclaimable", host.reclaimable_bytes), ("swap", host.swap_bytes)]
    terms += [("peak", host.peak_rss_bytes)]
    told = "  ".join(f"{name} {format_bytes(v)}" for name, v in terms if v is not None)
    yield fit(line(Span(f"pid {process.pid}", "good"), f"  {told}  {called(process)}"), columns)


# ---------------------------------------------------------------- processes and events


def _processes(frame: Frame, rows: Sequence[Row], columns: int, room_rows: int) -> list[Line]:
    shown = max(room_rows - 1, 0)
    places = [(label, holder.pid) for label, holder in rows]
    selected = frame.screen.selected
    at = places.index(selected) if selected in places else 0
    first = min(max(at - shown + 1, 0), max(len(rows) - shown, 0))
    head = _cells(frame, ("", "GPU", "pid", "GiB", "whose", "host rss", "held", "process"), columns)
    lines: list[Line] = [fit(line(Span(head, "dim")), columns)]
    for label, holder in rows[first : first + shown]:
        values = (
            "",
            label,
            str(holder.pid),
            gib(holder.process_used_bytes),
            holder.owner if frame.look.pid is not None else "",
            "?" if holder.host is None else format_bytes(holder.host.rss_bytes),
            _held(holder.host.held_bytes if holder.host is not None else None),
            called(holder),
        )
        text = _cells(frame, values, columns)
        style = "selected" if (label, holder.pid) == selected else ""
        mark = Span(
            f"{'►' if style else ' '}{frame.keys.letter(holder)} ", frame.keys.style(holder)
        )
        lines.append(fit(line(mark, Span(text[3:], style)), columns))
    if len(rows) > shown > 0:
        more = Span(f"  {first + 1}–{first + shown} of {len(rows)}", "dim")
        lines[0] = spread(lines[0], line(more), columns)
    return lines


def _held(value: int | None) -> str:
    return "?" if value is None else format_bytes(value)


def _cells(frame: Frame, values: Sequence[str], columns: int) -> str:
    """The columns that there is room for, the least important left out first."""
    widths = [5, 4, 8, 8, 8 if frame.look.pid is not None else 0, 11, 11, 0]
    if columns < 60:  # noqa: PLR2004 (where a command would have no room)
        widths[5] = widths[6] = 0
    elif columns < 80:  # noqa: PLR2004
        widths[6] = 0
    left = {0, 1, 4}
    texts = [
        pad(value, size - 1) + " " if i in left else pad(value, size - 1, right=True) + " "
        for i, (value, size) in enumerate(zip(values[:-1], widths[:-1], strict=True))
        if size
    ]
    fixed = "".join(texts) + " "
    return fixed + cut(values[-1], max(columns - len(fixed), 0))


def _event(event: Event, now_ns: int, columns: int) -> Line:
    style = "good" if event.move.change_bytes < 0 else "warn"
    when = ago(event.move.before_ns, now_ns)
    after = f", holds {format_bytes(event.move.after_bytes)}" if event.move.after_bytes else ""
    left = line(Span("● ", style), f"{did(event.move)}", Span(after, "dim"))
    return _beside(
        left,
        [line(Span(f"GPU {event.label}  {when:>9}", "dim")), line(Span(when, "dim"))],
        columns,
    )
