"""Host memory of the engine's processes: sampled while they start."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

_KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPeak:
    """The highest sums over the engine's processes.

    Attributes:
        anonymous_bytes: RssAnon and RssShmem, at their highest together.
        file_bytes: RssFile then.
        processes_count: the most at a time.
    """

    anonymous_bytes: int
    file_bytes: int
    processes_count: int


class Sampler:
    """Sums the memory of a process and its descendants.

    Args:
        pid: of the first process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._anonymous_bytes = self._file_bytes = self._count = 0

    def sample(self) -> None:
        """Reads once; /proc/PID/status only, which costs the kernel no walk of page tables."""
        found = [terms for pid in _tree(self.pid) if (terms := _status(pid))]
        anonymous = sum(terms.get("RssAnon", 0) + terms.get("RssShmem", 0) for terms in found)
        self._count = max(self._count, len(found))
        if anonymous > self._anonymous_bytes:
            self._anonymous_bytes = anonymous
            self._file_bytes = sum(terms.get("RssFile", 0) for terms in found)

    def peak(self) -> HostPeak:
        """The highest so far."""
        return HostPeak(
            anonymous_bytes=self._anonymous_bytes,
            file_bytes=self._file_bytes,
            processes_count=self._count,
        )


def _tree(pid: int) -> list[int]:
    """A process and its descendants, by the kernel's lists of children."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has ended
                waiting += [int(child) for child in children.read_text().split()]
    return found


def _status(pid: int) -> dict[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    terms = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    names = ("RssAnon", "RssFile", "RssShmem")
    return {name: int(terms[name].split()[0]) * _KIB for name in names if name in terms}
