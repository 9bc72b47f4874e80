"""Follows a start until it has taken what was reserved for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from memacct import _core
from memacct._errors import MemacctError

if TYPE_CHECKING:
    from memacct._core import DeviceMemory
    from memacct.launch._waiting import Chosen

TICK_S = 0.5
# An engine that compiles kernels stands still for minutes before it takes its KV cache. What it
# has not taken after this is nobody's any more.
LONGEST_S = 600.0


class Taking:
    """Lowers a reservation by what the children of this process hold, until nothing is left.

    Where the driver does not tell what they hold, by how much less is free than at first.
    """

    def __init__(self, chosen: Chosen) -> None:
        self._reservation = chosen.reservation
        self._free_bytes = {gpu.uuid: gpu.free_bytes for gpu in chosen.gpus}
        self._promised = dict(chosen.reservation.bytes_by_uuid) if chosen.reservation else {}
        self._peak_bytes: dict[str, int] = {}
        self._ends_s = time.monotonic() + LONGEST_S

    def tick(self) -> float | None:
        """Looks again; returns the seconds until the next look, None if that was the last."""
        if self._reservation is None:
            return None
        try:
            left = self._left()
            if any(left.values()) and time.monotonic() < self._ends_s:
                self._reservation.update(left)
                return TICK_S
        except (MemacctError, OSError):
            pass  # the program's run is not ours to disturb: its memory is then seen as free is
        self.close()
        return None

    def close(self) -> None:
        """Ends the reservation, and our hold on the driver."""
        if self._reservation is not None:
            self._reservation.release()
            self._reservation = None
            _core.close_devices()

    def _left(self) -> dict[str, int]:
        for device in _core.read_devices(list(self._promised)):
            held = max(self._held(device), self._peak_bytes.get(device.uuid, 0))
            self._peak_bytes[device.uuid] = held
        return {
            uuid: max(0, size - self._peak_bytes.get(uuid, 0))
            for uuid, size in self._promised.items()
        }

    def _held(self, device: DeviceMemory) -> int:
        if device.tree_bytes is not None:
            return device.tree_bytes
        return max(0, self._free_bytes[device.uuid] - device.free_bytes)
