"""The loops of ``watch``: on a terminal, as plain frames, as lines of JSON."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING, TextIO

from memacct.look.frame import frame_lines, plain_lines
from memacct.look.output import codes_of, size_of, write_lines
from memacct.look.styled import ansi_of, encodable, width
from memacct.look.terminal import ERASE, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.look.session import Session

#: Those that end it, and the exit status that shells know them by (128 + number).
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def watch_live(session: Session, *, interval_s: float, count: int | None, out: TextIO) -> int:
    """Draws until it is quit; returns the exit status: 0, or 128 + the signal that ended it.

    Args:
        session: what is shown.
        interval_s: between two looks.
        count: ends after so many looks; None: never.
        out: a terminal. Keys come from standard input, if that is one too.
    """
    keys_fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    codes = codes_of(out)
    taken = 1
    next_s = time.monotonic() + interval_s
    with Terminal(out, keys_fd) as terminal:
        while True:
            _draw(session, terminal, out, codes)
            if session.screen.quitting:
                return 0
            woken = terminal.wait(next_s - time.monotonic())
            ended = next((number for number in _ENDS if number in woken.signals), None)
            if ended is not None:
                return 128 + ended
            if signal.SIGTSTP in woken.signals:
                terminal.suspend()
            elif signal.SIGCONT in woken.signals:
                terminal.take()  # a shell may have used the terminal meanwhile
            for key in woken.keys:
                session.press(key)
            if time.monotonic() >= next_s:
                if count is not None and taken >= count:
                    return 0
                session.refresh()
                taken += 1
                # What was missed (stopped, a slow driver) is not made up for.
                next_s = max(next_s + interval_s, time.monotonic())


def _draw(session: Session, terminal: Terminal, out: TextIO, codes: dict[str, str]) -> None:
    columns, rows = size_of(out)
    lines = frame_lines(session.frame(), columns, rows, colour=bool(codes))
    encoding = out.encoding or "utf-8"
    terminal.draw(
        [
            encodable(ansi_of(line, codes), encoding) + (ERASE if width(line) < columns else "")
            for line in lines
        ]
    )


def watch_plain(session: Session, *, interval_s: float, count: int | None, out: TextIO) -> None:
    """Writes one frame of text after the other, for pipes, files and dumb terminals."""
    for _ in _looks(session, interval_s, count):
        columns, _rows = size_of(out)
        frame = session.frame()._replace(events=session.new_events)
        write_lines(out, plain_lines(frame, columns), {})


def watch_json(session: Session, *, interval_s: float, count: int | None, out: TextIO) -> None:
    """Writes one JSON object a line and look."""
    for _ in _looks(session, interval_s, count):
        out.write(json.dumps(session.to_dict()) + "\n")
        out.flush()


def _looks(session: Session, interval_s: float, count: int | None) -> Iterator[int]:
    """Yields at each look, the first of which was taken already, at even deadlines."""
    next_s = time.monotonic() + interval_s
    taken = 1
    yield taken
    while count is None or taken < count:
        time.sleep(max(next_s - time.monotonic(), 0.0))
        next_s = max(next_s + interval_s, time.monotonic())
        session.refresh()
        taken += 1
        yield taken
