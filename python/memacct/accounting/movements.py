"""Who moved on a device during a start, and between which of its readings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memacct._core import DeviceMemory

# Only readings in which something moved are kept; more of them than this say nothing more.
_KEPT_COUNT = 256
_NS_PER_S = 1_000_000_000


class Movements:
    """The other processes' numbers, reading after reading, as far as they changed."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, dict[int, int | None]]] = []

    def add(self, device: DeviceMemory | None) -> None:
        """Remembers a reading, the next in time."""
        if device is None:
            return
        foreign = {p.pid: p.process_used_bytes for p in device.processes if p.owner == "foreign"}
        if self._steps and self._steps[-1][2] == foreign:
            first_ns, _, same = self._steps[-1]
            self._steps[-1] = (first_ns, device.taken_ns, same)
        elif len(self._steps) < _KEPT_COUNT:
            self._steps.append((device.taken_ns, device.taken_ns, foreign))

    def last_move(self, pid: int) -> str:
        """Returns between which readings ``pid`` moved last, in words; "" if it stood still.

        Times are seconds since the first reading, the start of the engine's accounting.
        """
        for before, after in zip(self._steps[-2::-1], self._steps[:0:-1], strict=True):
            held, holds = before[2].get(pid, 0), after[2].get(pid, 0)
            if held != holds:
                begin, end = (self._since_s(ns) for ns in (before[1], after[0]))
                return f"moved last {begin:.1f} to {end:.1f} s after the start"
        return ""

    def _since_s(self, taken_ns: int) -> float:
        return (taken_ns - self._steps[0][0]) / _NS_PER_S
