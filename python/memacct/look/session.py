"""What goes on while somebody watches: looks, events, keys and what it costs; no terminal."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from memacct._errors import MemacctError
from memacct.look.events import EventLog
from memacct.look.frame_data import Frame
from memacct.look.parts import Keys
from memacct.look.screen import Screen, press

if TYPE_CHECKING:
    from memacct.look.events import Event
    from memacct.look.look_types import Look
    from memacct.look.reading import Reader

_METERED_COUNT = 60


class Meter:
    """The CPU time of this process over the last looks, as a part of one CPU's."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=_METERED_COUNT)

    def step(self) -> float | None:
        """Returns the ratio up to now; None at the first time."""
        self._points.append((time.monotonic(), time.process_time()))
        wall_s, cpu_s = (b - a for a, b in zip(self._points[0], self._points[-1], strict=True))
        return cpu_s / wall_s if wall_s > 0 else None


def _start(look: Look) -> int | None:
    return look.process.start_ticks if look.process is not None else None


class Session:
    """One watching. The first look is taken at once.

    Args:
        reader: of what is shown.
        pid: the process that is picked from the start.
        interval_s: between two looks.

    Raises:
        ValueError: there is no such process.
        MemacctError: the first look could not be taken; later ones say so on the screen.
    """

    def __init__(self, reader: Reader, *, pid: int | None, interval_s: float) -> None:
        self._reader = reader
        self._interval_s = interval_s
        self._log = EventLog()
        self._keys = Keys()
        self._meter = Meter()
        self._cpu_ratio: float | None = None
        self._new: tuple[Event, ...] = ()
        self.screen = Screen(picked=pid)
        self.look = reader.read(pid)
        self._seen()

    def refresh(self) -> None:
        """Takes a look, unless it is paused. What went wrong is a message on the screen."""
        if self.screen.paused:
            return
        picked = self.screen.picked
        try:
            self.look = self._read(picked)
        except (MemacctError, OSError) as error:
            self.screen = self.screen._replace(message=str(error))
            return
        self._seen()

    def _read(self, pid: int | None) -> Look:
        try:
            look = self._reader.read(pid)
        except ValueError:
            look = None
        if look is not None and (pid != self.look.pid or _start(look) == _start(self.look)):
            return look
        # It ended, or its number is another process's by now.
        self.screen = self.screen._replace(picked=None, message=f"pid {pid} has ended")
        return self._reader.read(None)

    def _seen(self) -> None:
        self._new = self._log.step(self.look)
        self._keys.update(self.look)
        self._cpu_ratio = self._meter.step()

    def press(self, key: str) -> None:
        """Does what a key means; a process that is picked is looked at at once."""
        picked = self.screen.picked
        self.screen = press(self.screen, key, self.look)
        if self.screen.picked != picked:
            self.refresh()

    def frame(self) -> Frame:
        """Returns what is to be shown now."""
        look = self.look
        return Frame(
            look=look,
            screen=self.screen,
            keys=self._keys,
            events=tuple(self._log.last),
            interval_s=self._interval_s,
            now_ns=look.taken_ns + look.span_ns,
            clock=time.strftime("%H:%M:%S"),
            cpu_ratio=self._cpu_ratio,
        )

    @property
    def new_events(self) -> tuple[Event, ...]:
        """The events of the last look."""
        return self._new

    def to_dict(self) -> dict[str, Any]:
        """Returns the last look as plain data, with its events and what watching costs."""
        events = [event.to_dict() for event in self._new]
        return {
            **self.look.to_dict("watch"),
            "events": events,
            "message": self.screen.message or None,
            "self_cpu_ratio": self._cpu_ratio,
        }
