"""The GPUs as a start sees them while it waits: what is free, for whom, and since when."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from memacct import _core
from memacct._errors import MemacctError
from memacct._units import MIB, format_bytes
from memacct.accounting.choosing import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memacct._core import DeviceMemory

# A neighbour that serves moves by single segments of its allocator (20 MiB); one that loads,
# ends or wakes up by far more.
STILL_BYTES = 32 * MIB
_HOLDERS_SHOWN = 2


class GpuWatch:
    """Reads GPUs again and again, and knows since when each has stood still.

    Args:
        uuids: the GPUs.
        still_s: how long one has to stand still; moves of up to 32 MiB in all do not count.
        clock: seconds.
    """

    def __init__(
        self,
        uuids: Sequence[str],
        still_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uuids = list(uuids)
        self._still_s = still_s
        self._clock = clock
        self._since: dict[str, tuple[float, int]] = {}
        self._names: dict[int, str] = {}

    def read(self, promised: Mapping[str, int]) -> tuple[Candidate, ...]:
        """Returns each GPU as it is now.

        Args:
            promised: what others have reserved, by UUID.
        """
        return tuple(
            Candidate(
                uuid=device.uuid,
                index=device.index,
                name=device.name,
                total_bytes=device.total_bytes,
                free_bytes=device.free_bytes,
                promised_bytes=promised.get(device.uuid, 0),
                still=self._is_still(device.uuid, device.free_bytes),
                holders=self._holders(device),
            )
            for device in _core.read_devices(self._uuids)
        )

    def _is_still(self, uuid: str, free_bytes: int) -> bool:
        now = self._clock()
        since_s, then_bytes = self._since.setdefault(uuid, (now, free_bytes))
        if abs(free_bytes - then_bytes) > STILL_BYTES:
            self._since[uuid] = since_s, _ = now, free_bytes
        return now - since_s >= self._still_s

    def _holders(self, device: DeviceMemory) -> str:
        known = [(p.process_used_bytes or 0, p.pid) for p in device.processes]
        largest = sorted(known, reverse=True)[:_HOLDERS_SHOWN]
        texts = [f"pid {pid}{self._name(pid)} {format_bytes(size)}" for size, pid in largest]
        rest = len(known) - len(largest)
        return ", ".join(texts + ([f"{rest} more"] if rest else []))

    def _name(self, pid: int) -> str:
        if pid not in self._names:
            try:
                (found, *_) = _core.snapshot_tree(pid, host="counters").processes
                self._names[pid] = f" {found.name}" if found.name else ""
            except (MemacctError, ValueError):
                self._names[pid] = ""
        return self._names[pid]
