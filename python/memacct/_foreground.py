"""A program in the foreground: started as if without us, and told the signals that we are sent.

It is in our process group, so that what a terminal sends (Ctrl-C, a new window size) reaches it by
itself; only what we alone are sent is passed on.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PASSED_ON = frozenset(
    {
        *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCONT, signal.SIGWINCH),
    }
)
# siginfo's si_code SI_KERNEL: the terminal's, which the whole foreground group has got.
_FROM_KERNEL = 0x80


@contextlib.contextmanager
def signals_held(held: frozenset[signal.Signals]) -> Iterator[set[signal.Signals]]:
    """Holds signals back, for sigtimedwait; yields the mask that a program is to start with."""
    # Ignored, a child's end is no signal, and its status is lost.
    ignored = signal.getsignal(signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield {signal.Signals(number) for number in before}
    finally:
        # What came while the program ended was for it.
        while signal.sigtimedwait(held, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, ignored)


def spawn(words: Sequence[str], environ: Mapping[str, str], mask: set[signal.Signals]) -> int:
    """Starts a program that is looked up in PATH; returns its process id.

    Args:
        words: the program and its arguments.
        environ: its environment.
        mask: the signals that are blocked in it.

    Raises:
        FileNotFoundError: there is no such program.
        OSError: it cannot be executed.
    """
    return os.posix_spawnp(
        words[0],
        list(words),
        dict(environ),
        setsigmask=mask,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores them
    )


def pass_on(told: signal.struct_siginfo, pid: int) -> None:
    """Sends a signal on to a program that has not been reaped, unless it has got it, too."""
    if told.si_code != _FROM_KERNEL:
        # One that has become another user's (sudo) may not be told.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, told.si_signo)
