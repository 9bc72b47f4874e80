"""What /proc tells of a process for knowing an engine's own again; None where it does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of /proc/PID/stat after the program's name: state, parent, ..., and the start time.
_STATE, _PARENT, _START = 0, 1, 19
# Deeper than any engine; a bound, because numbers may be reused while we climb.
_MOST_ANCESTORS = 64


def start_ticks(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since boot: with it, a pid is unique.

    Source: /proc/PID/stat, field 22.
    """
    fields = _stat(pid)
    return None if fields is None else int(fields[_START])


def parent_of(pid: int) -> int | None:
    """Returns the parent's pid; 0 if it is outside of our pid namespace."""
    fields = _stat(pid)
    return None if fields is None else int(fields[_PARENT])


def ancestors(pid: int) -> Iterator[int]:
    """Yields the parent, its parent and so on, as far as they can be seen."""
    for _ in range(_MOST_ANCESTORS):
        parent = parent_of(pid)
        if not parent:
            return
        yield parent
        pid = parent


def environ_of(pid: int, names: tuple[str, ...]) -> dict[str, str] | None:
    """Returns those variables of a process that were set when its program was started.

    What the program has set since is not seen. None: not permitted, or no such process.
    """
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    pairs = (part.partition(b"=") for part in text.split(b"\0"))
    found = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    return {name: found[name] for name in names if name in found}


def pid_namespace() -> int | None:
    """Returns the number of this process's pid namespace."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def is_same_process(pid: int, started_ticks: int | None) -> bool:
    """Whether a process of our pid namespace still is the one that started then."""
    now = start_ticks(pid)
    if now is not None and started_ticks is not None:
        return now == started_ticks
    if now is None and start_ticks(os.getpid()) is not None:
        return False
    # Without /proc only its existence can be told.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on; the second may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].decode("ascii", "replace").split()
    # A zombie holds no memory, and its number is about to be free.
    return None if len(fields) <= _START or fields[_STATE] in ("Z", "X") else fields
