"""What the processes on the GPUs did from look to look: who took or released how much, when."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from memacct._convert import to_dict
from memacct._printable import printable
from memacct._trace_events import FOREIGN, ForeignMoves, Held, ProcessKey, Sample
from memacct._units import MIB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct._trace_events import ForeignEvent
    from memacct.look.look_types import Gpu, Look

_KEPT_COUNT = 200
#: Smaller moves of a process are added up: drivers count in pages of 2 MiB.
LEAST_BYTES = MIB


class Event(NamedTuple):
    """A process's move on one GPU. Seen from here every process is another one's."""

    uuid: str
    label: str
    move: ForeignEvent

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data; ``after_ns`` and ``before_ns`` bound when it happened."""
        return {"uuid": self.uuid, "label": self.label, **to_dict(self.move)}


class EventLog:
    """Keeps the last moves; fed with one look after the other."""

    def __init__(self) -> None:
        self._moves: dict[str, ForeignMoves] = {}
        self.last: deque[Event] = deque(maxlen=_KEPT_COUNT)

    def step(self, look: Look) -> tuple[Event, ...]:
        """Returns the moves since the look before, and keeps them."""
        new = [event for gpu in look.gpus or () for event in self._of(gpu)]
        new.sort(key=lambda event: event.move.before_ns)
        self.last.extend(new)
        return tuple(new)

    def _of(self, gpu: Gpu) -> Iterator[Event]:
        # A number that is hidden is no number: what moved there cannot be told.
        if any(holder.process_used_bytes is None for holder in gpu.processes):
            return
        moves = self._moves.setdefault(gpu.uuid, ForeignMoves(LEAST_BYTES))
        processes = {
            ProcessKey(holder.pid, holder.start_ticks): Held(
                FOREIGN, holder.process_used_bytes, holder.name
            )
            for holder in gpu.processes
        }
        for move in moves.step(Sample(gpu.taken_ns, gpu.span_ns, processes)):
            yield Event(gpu.uuid, gpu.label, move)


_DID = {"appear": "came and took", "grow": "took", "shrink": "released", "exit": "ended, released"}


def did(move: ForeignEvent) -> str:
    """Returns what happened, in words: "pid 4711 python released 1.90 GiB"."""
    name = f" {printable(move.name)}" if move.name else ""
    verb = _DID.get(move.kind, "moved")
    return f"pid {move.pid}{name} {verb} {format_bytes(abs(move.change_bytes))}"


def ago(event_ns: int, now_ns: int) -> str:
    """Returns how long ago: "3 s ago", "2 min ago"."""
    seconds = max(now_ns - event_ns, 0) // 10**9
    if seconds < 100:  # noqa: PLR2004 (then minutes say enough)
        return f"{seconds} s ago"
    if seconds < 100 * 60:
        return f"{seconds // 60} min ago"
    return f"{seconds // 3600} h ago"
