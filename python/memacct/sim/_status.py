"""What a simulated machine tells of itself, which is the truth that readings are held to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """One live process that holds memory of a device."""

    pid: int
    host_pid: int
    process_used_bytes: int
    launches_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """One device, or MIG instance of one; total = reserved + unattributed + processes + free."""

    index: int
    uuid: str
    total_bytes: int
    cuda_total_bytes: int
    reserved_bytes: int
    unattributed_bytes: int
    free_bytes: int
    parent_index: int | None
    gpu_instance_id: int | None
    compute_instance_id: int | None
    processes: tuple[ProcessStatus, ...]

    @property
    def device_used_bytes(self) -> int:
        """All that is not free."""
        return self.total_bytes - self.free_bytes

    def process_used_bytes(self, pid: int) -> int:
        """Returns what a process holds; 0 if it holds nothing."""
        return sum(p.process_used_bytes for p in self.processes if p.pid == pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineStatus:
    """All devices and MIG instances, each at one instant of its own.

    What an instance's processes hold is in its device's numbers too.
    """

    devices: tuple[DeviceStatus, ...]
    instances: tuple[DeviceStatus, ...]


def parse_status(text: str) -> MachineStatus:
    """Returns the answer of ``memacct_simctl status``."""
    data: dict[str, Any] = json.loads(text)
    return MachineStatus(
        devices=tuple(_device(row) for row in data["devices"]),
        instances=tuple(_device(row) for row in data["instances"]),
    )


def _device(row: dict[str, Any]) -> DeviceStatus:
    processes = tuple(ProcessStatus(**process) for process in row.pop("processes"))
    for key in ("parent_index", "gpu_instance_id", "compute_instance_id"):
        row[key] = None if row[key] < 0 else row[key]
    return DeviceStatus(processes=processes, **row)
