"""A terminal that is drawn on: its modes, its keys, and the signals that concern it.

Whatever ends the program, the terminal is as it was: every signal that would end or stop it
only wakes the loop, which leaves the screen first.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import tty
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from memacct.look.keys import keys_in

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_ESC = "\x1b["
# Another screen, no cursor; lines that are too long for a moment of a resize are not wrapped.
_ENTER = f"{_ESC}?1049h{_ESC}?25l{_ESC}?7l{_ESC}2J"
_LEAVE = f"{_ESC}?7h{_ESC}?25h{_ESC}?1049l"
#: To the end of the line.
ERASE = f"{_ESC}K"
_WATCHED = (
    *(signal.SIGWINCH, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGTSTP, signal.SIGCONT),
)


class Woken(NamedTuple):
    """What ended a wait: keys, signals, or neither (the time)."""

    keys: tuple[str, ...] = ()
    signals: frozenset[int] = frozenset()


class Terminal:
    """A context manager: inside it the screen is ours. For the main thread alone.

    Args:
        out: the terminal that is drawn on.
        keys_fd: the terminal that keys come from; None: none are read.
    """

    def __init__(self, out: TextIO, keys_fd: int | None) -> None:
        self._out = out
        self._keys_fd = keys_fd
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._wakeup = -1
        self._pipe = (-1, -1)

    def __enter__(self) -> Self:
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The C handler writes each signal's number there, so none is lost between two waits.
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _ignored) for number in _WATCHED}
        if self._keys_fd is not None:
            self._before = termios.tcgetattr(self._keys_fd)
        try:
            self.take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError, termios.error):  # the terminal may be gone
            self.give_back()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for end in self._pipe:
            os.close(end)

    def take(self) -> None:
        """Makes the screen ours. What it was before is remembered from the first time."""
        if self._keys_fd is not None:
            tty.setcbreak(self._keys_fd, termios.TCSADRAIN)  # Ctrl-C and Ctrl-Z stay signals
        self._write(_ENTER)

    def give_back(self) -> None:
        """Leaves the screen, and the terminal's modes, as they were."""
        try:
            self._write(_LEAVE)
        finally:
            if self._keys_fd is not None and self._before is not None:
                termios.tcsetattr(self._keys_fd, termios.TCSADRAIN, self._before)

    def draw(self, lines: list[str]) -> None:
        """Draws over what is there; nothing is cleared first, so nothing flickers.

        Each line is as wide as the terminal, or ends in ``ERASE``: after the last column the
        cursor still stands on it, and erasing there would take its character.
        """
        self._write(f"{_ESC}H" + "\r\n".join(lines))

    def suspend(self) -> None:
        """Stops this process, as Ctrl-Z means to; returns when it goes on."""
        self.give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _ignored)
        self.take()

    def wait(self, timeout_s: float) -> Woken:
        """Returns at a key or a signal, after ``timeout_s`` at the latest."""
        watched = [self._pipe[0], *([] if self._keys_fd is None else [self._keys_fd])]
        ready = select.select(watched, [], [], max(timeout_s, 0.0))[0]
        numbers: frozenset[int] = frozenset()
        if self._pipe[0] in ready:
            with contextlib.suppress(BlockingIOError):
                numbers = frozenset(os.read(self._pipe[0], 4096))
        return Woken(self._read_keys() if self._keys_fd in ready else (), numbers)

    def _read_keys(self) -> tuple[str, ...]:
        assert self._keys_fd is not None  # noqa: S101 (it was ready)
        try:
            data = os.read(self._keys_fd, 4096)
        except OSError:
            data = b""
        if not data:  # the other end is closed: nobody types there any more
            self._keys_fd = None
        return tuple(keys_in(data))

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _ignored(*_: object) -> None:
    """A handler that lets the wakeup pipe alone tell of the signal."""
