"""A command that is run and waited for: its signals, its end, its exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._errors import MemacctError

if TYPE_CHECKING:
    import resource
    from collections.abc import Iterator, Mapping, Sequence

#: Exit statuses as env, nohup and timeout have them.
NOT_EXECUTABLE, NOT_FOUND = 126, 127

PASSED_ON = frozenset(
    {
        *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCONT, signal.SIGWINCH),
    }
)
_FROM_KERNEL = 0x80  # SI_KERNEL: the terminal's, which the command has got too


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


@contextlib.contextmanager
def signals_held() -> Iterator[set[signal.Signals]]:
    """Holds back what ``next_signal`` takes; yields the mask that a command is to start with."""
    held = {*PASSED_ON, signal.SIGCHLD}
    # Ignored, a child's end is no signal, and nobody is left to wait for.
    ignored = signal.getsignal(signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield {signal.Signals(number) for number in before}
    finally:
        while signal.sigtimedwait(held, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, ignored)


def next_signal(until_ns: int | None) -> signal.struct_siginfo | None:
    """Returns the next signal that is held back; None: none came until then (CLOCK_MONOTONIC)."""
    held = {*PASSED_ON, signal.SIGCHLD}
    if until_ns is None:
        return signal.sigwaitinfo(held)
    return signal.sigtimedwait(held, max(0.0, (until_ns - time.monotonic_ns()) / 1e9))


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
        # What Python ignores for itself.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        try:
            self.pid = os.posix_spawnp(
                words[0], list(words), dict(environ), setsigmask=mask, setsigdef=defaults
            )
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
        if told.si_code != _FROM_KERNEL:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, told.si_signo)


def _ended(status: int, used: resource.struct_rusage) -> Ended:
    code = os.waitstatus_to_exitcode(status)
    return Ended(
        exit_code=code if code >= 0 else 128 - code,
        signal=None if code >= 0 else -code,
        cpu_ns=round((used.ru_utime + used.ru_stime) * 1e9),
        largest_rss_bytes=used.ru_maxrss * 1024,
    )
