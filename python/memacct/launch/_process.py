"""Runs a program in the foreground as if it had been started without us.

What only we are sent is passed on. We stop when it is stopped and end as it ended.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from memacct._foreground import PASSED_ON, pass_on, signals_held, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SIGNALLED = 128

_AWAITED = PASSED_ON | {signal.SIGTSTP, signal.SIGCHLD}
_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
# SIGCHLD may go to a thread that a driver's library has started, where it is lost.
_LOOK_S = 1.0


def run_program(
    command: Sequence[str],
    environ: Mapping[str, str],
    tick: Callable[[], float | None] = lambda: None,
) -> int:
    """Returns the program's exit status, 128 + n if signal n ended it.

    Args:
        command: the program, looked up in PATH, and its arguments.
        environ: its environment.
        tick: is called from time to time; returns the seconds until the next call, or None.

    Raises:
        FileNotFoundError: there is no such program.
        OSError: it cannot be executed.
    """
    with signals_held(_AWAITED) as mask:
        return _follow(spawn(command, environ, mask), tick)


def _follow(pid: int, tick: Callable[[], float | None]) -> int:
    next_s: float | None = time.monotonic()
    while True:
        left_s = _LOOK_S if next_s is None else next_s - time.monotonic()
        received = signal.sigtimedwait(_AWAITED, max(0.0, min(left_s, _LOOK_S)))
        if received is None or received.si_signo == signal.SIGCHLD:
            status = _reap(pid)
            if status is not None:
                return status
        else:
            pass_on(received, pid)
        if next_s is not None and time.monotonic() >= next_s:
            pause_s = tick()
            next_s = None if pause_s is None else time.monotonic() + pause_s


def _reap(pid: int) -> int | None:
    """Returns the exit status once the program has ended."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if found == 0:
            return None
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        if os.WIFSIGNALED(status):
            return SIGNALLED + os.WTERMSIG(status)
        # The shell waits for us: it sees a stopped job only if we stop too. One that is stopped
        # by a debugger (SIGSTOP) is nobody's job control.
        if os.WIFSTOPPED(status) and os.WSTOPSIG(status) in _STOPS:
            os.kill(os.getpid(), signal.SIGSTOP)
