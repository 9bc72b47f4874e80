"""What the other processes on a device did between two readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memacct._core import DeviceMemory
    from memacct.accounting.siblings import Sibling

ForeignEvent = Literal["grew", "shrank", "appeared", "left", "changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignChange:
    """One other process's change. ``pid`` is the driver's number for it.

    ``changed`` is said of a process whose number was hidden in one of the readings.
    """

    pid: int
    before_bytes: int | None
    after_bytes: int | None
    event: ForeignEvent

    @property
    def delta_bytes(self) -> int | None:
        """Signed change; None where the driver hides one of the numbers."""
        if self.before_bytes is None or self.after_bytes is None:
            return None
        return self.after_bytes - self.before_bytes


def foreign_changes(
    before: DeviceMemory, after: DeviceMemory, siblings: Iterable[Sibling] = ()
) -> tuple[ForeignChange, ...]:
    """Returns the listed foreign processes that moved, the largest change first.

    A process whose number is hidden in both readings is left out: nothing is known to
    have changed. So are ``siblings``, which are the engine's.
    """
    ours = {sibling.pid for sibling in siblings}
    first, last = _foreign(before, ours), _foreign(after, ours)
    changes = (
        ForeignChange(
            pid=pid,
            before_bytes=first.get(pid, 0),
            after_bytes=last.get(pid, 0),
            event=_event(pid, first, last),
        )
        for pid in first.keys() | last.keys()
        if pid not in first or pid not in last or first[pid] != last[pid]
    )
    return tuple(sorted(changes, key=lambda c: (-abs(c.delta_bytes or 0), c.pid)))


def _foreign(device: DeviceMemory, ours: set[int]) -> dict[int, int | None]:
    others = (p for p in device.processes if p.owner == "foreign" and p.pid not in ours)
    return {p.pid: p.process_used_bytes for p in others}


def _event(pid: int, first: dict[int, int | None], last: dict[int, int | None]) -> ForeignEvent:
    if pid not in first:
        return "appeared"
    if pid not in last:
        return "left"
    before, after = first[pid], last[pid]
    if before is None or after is None:
        return "changed"
    return "grew" if after > before else "shrank"
