"""A device in the state that a property test wants: who holds what, as a driver would tell it."""

from __future__ import annotations

from dataclasses import dataclass

from memacct import _core
from memacct._convert import from_dict
from memacct.accounting.consumption import Reading
from memacct.accounting.siblings import Sibling

# Foreign processes have the small numbers between them.
OWN_PID, TREE_PID = 1, 1000


@dataclass(frozen=True, kw_only=True)
class World:
    """Who holds what of one device; None hides a number from the driver's list."""

    own: int | None = 10
    tree: int | None = 0
    foreign: tuple[tuple[int, int | None], ...] = ()
    unattributed: int = 0
    reserved: int = 7
    total: int = 1 << 44

    def device(self) -> _core.DeviceMemory:
        """The reading that a driver would give."""
        listed = [bytes_ for _, bytes_ in self.foreign]
        hidden = None in listed or self.own is None or self.tree is None
        foreign = None if None in listed else sum(b for b in listed if b is not None)
        device_used = sum(b or 0 for b in (self.own, self.tree, *listed)) + self.unattributed
        rows = [(OWN_PID, self.own, "own"), (TREE_PID, self.tree, "tree")]
        rows += [(pid, b, "foreign") for pid, b in self.foreign]
        return from_dict(
            _core.DeviceMemory,
            {
                "uuid": "GPU-0",
                "name": "GPU",
                "source": "nvml_v2",
                "taken_ns": 1,
                "span_ns": 1,
                "total_bytes": self.total,
                "free_bytes": self.total - self.reserved - device_used,
                "device_used_bytes": device_used,
                "reserved_bytes": self.reserved,
                "own_bytes": self.own,
                "tree_bytes": self.tree,
                "foreign_bytes": foreign,
                "unattributed_bytes": None if hidden else self.unattributed,
                "processes": [
                    {"pid": pid, "process_used_bytes": b, "owner": owner, "kinds": ["compute"]}
                    for pid, b, owner in rows
                ],
                "attribution": {
                    "source": "none" if self.own is None else "pid",
                    "own_bounds_bytes": [self.own, self.own],
                    "reason": "hidden" if self.own is None else "",
                },
                "consistent": True,
                "attempts_count": 1,
            },
        )

    def reading(self, *siblings: int, allocator: int | None = None) -> Reading:
        """What a session would hold of it; ``siblings`` are foreign PIDs of the same engine."""
        device = self.device()
        named = tuple(Sibling(pid=pid, role="worker", rank=pid) for pid in siblings)
        return Reading(
            free_bytes=device.free_bytes,
            device=device,
            siblings=named,
            allocator_reserved_bytes=allocator,
        )
