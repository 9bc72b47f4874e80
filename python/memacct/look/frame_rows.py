"""The lower part of a frame: the processes, and what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import format_bytes
from memacct.look.events import ago, did
from memacct.look.parts import called, gib
from memacct.look.styled import Span, beside, cut, fit, line, pad, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.look.events import Event
    from memacct.look.frame_data import Frame
    from memacct.look.screen import Row
    from memacct.look.styled import Line


def process_lines(frame: Frame, rows: Sequence[Row], columns: int, room_rows: int) -> list[Line]:
    """Returns a header and as many processes as there is room for, the selected one among them."""
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


def event_line(event: Event, now_ns: int, columns: int) -> Line:
    """Returns what happened, where and when."""
    style = "good" if event.move.change_bytes < 0 else "warn"
    when = ago(event.move.before_ns, now_ns)
    after = f", holds {format_bytes(event.move.after_bytes)}" if event.move.after_bytes else ""
    left = line(Span("● ", style), f"{did(event.move)}", Span(after, "dim"))
    return beside(
        left,
        [line(Span(f"GPU {event.label}  {when:>9}", "dim")), line(Span(when, "dim"))],
        columns,
    )
