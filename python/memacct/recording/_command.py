"""A command that is run and waited for: its signals, its end, its exit status."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._errors import MemacctError
from memacct._foreground import PASSED_ON, pass_on, spawn

if TYPE_CHECKING:
    import resource
    from collections.abc import Mapping, Sequence

#: Exit statuses as env, nohup and timeout have them.
NOT_EXECUTABLE, NOT_FOUND = 126, 127

#: What ``next_signal`` takes; to be held back (`signals_held`) meanwhile.
HELD = PASSED_ON | {signal.SIGCHLD}


class CommandError(MemacctError):
    """The command could not be started; ``code`` is the exit status that says so."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.args = (text, code)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and what it and the children that it waited for took.

    Attributes:
        exit_code: as a shell tells it: 128 + the signal's number where one ended it.
        largest_rss_bytes: the kernel's own peak of the largest of these processes.
    """

    exit_code: int
    signal: int | None
    cpu_ns: int
    largest_rss_bytes: int


def next_signal(until_ns: int | None) -> signal.struct_siginfo | None:
    """Returns the next signal that is held back; None: none came until then (CLOCK_MONOTONIC)."""
    if until_ns is None:
        return signal.sigwaitinfo(HELD)
    return signal.sigtimedwait(HELD, max(0.0, (until_ns - time.monotonic_ns()) / 1e9))


class Command:
    """A command that runs.

    Args:
        words: the program and its arguments.
        environ: its environment.
        mask: the signals that are blocked in it.

    Raises:
        CommandError: there is no such program, or it is none.
    """

    def __init__(
        self, words: Sequence[str], environ: Mapping[str, str], mask: set[signal.Signals]
    ) -> None:
        try:
            self.pid = spawn(words, environ, mask)
        except (FileNotFoundError, NotADirectoryError):
            raise CommandError(f"{words[0]}: no such program", NOT_FOUND) from None
        except PermissionError:
            raise CommandError(f"{words[0]}: not executable", NOT_EXECUTABLE) from None
        except OSError as error:
            text = f"{words[0]}: {error.strerror or error}"
            raise CommandError(text, NOT_EXECUTABLE) from None

    def poll(self) -> Ended | None:
        """Returns how it ended; None: it runs."""
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        return None if pid == 0 else _ended(status, used)

    def pass_on(self, told: signal.struct_siginfo) -> None:
        """Sends a signal on, unless the terminal has sent it to the command, too."""
        pass_on(told, self.pid)


def _ended(status: int, used: resource.struct_rusage) -> Ended:
    code = os.waitstatus_to_exitcode(status)
    return Ended(
        exit_code=code if code >= 0 else 128 - code,
        signal=None if code >= 0 else -code,
        cpu_ns=round((used.ru_utime + used.ru_stime) * 1e9),
        largest_rss_bytes=used.ru_maxrss * 1024,
    )
