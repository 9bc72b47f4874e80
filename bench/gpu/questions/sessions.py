"""The end of everything that a program started, whatever groups it made (ninja: one a job)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

LIMIT_S = 5.0


def members(session: int) -> list[int]:
    """Returns the pids of a session's processes, without those that have ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent group session: a name may hold blanks and brackets.
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(stat.parent.name))
    return found


def end_session(leader: int) -> None:
    """Kills a program that was started with a session of its own, and all that it left."""
    # Again until none is found alive: one may have started another meanwhile. Not for ever: what
    # sleeps in a driver does not end.
    end_s = time.monotonic() + LIMIT_S
    while (found := members(leader)) and time.monotonic() < end_s:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
