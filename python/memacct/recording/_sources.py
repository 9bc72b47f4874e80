"""What is read at each sample, and what became of readings that failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, Union

from memacct import _core
from memacct._errors import MemacctError, SourceUnavailableError
from memacct.recording._header import devices_record
from memacct.recording._observe import Changes

if TYPE_CHECKING:
    from memacct._core import DeviceMemory, TreeSnapshot

HostTier = Literal["counters", "breakdown", "rollup"]
DeviceKeys = Union[Literal["all", "none"], tuple[Union[int, str], ...]]  # noqa: UP007 (3.10: at run time)

_MACHINE_PERIOD_NS = 1_000_000_000  # what it tells moves slowly, and costs more than the rest


class Sources:
    """Reads one process's tree, the GPUs and the machine; its ``sample()`` says what changed.

    Args:
        host: what is read of each process.
        devices: which GPUs.
        cgroup_pid: the process whose control group is the tree's; 0: this one.

    Attributes:
        changes: what was seen so far.
        errors_count: readings that failed.
        waited_ns: for the driver, in the last sample.
    """

    def __init__(self, *, host: HostTier, devices: DeviceKeys, cgroup_pid: int) -> None:
        self.changes = Changes()
        self.errors_count = 0
        self.waited_ns = 0
        self.root_ended = False
        self._host = host
        self._which = devices
        self._cgroup_pid = cgroup_pid
        self._root_ticks: int | None = None
        self._machine_ns: int | None = None
        self._device_uuids: tuple[str, ...] = ()
        self._told: set[str] = set()

    def open_devices(self) -> list[dict[str, Any]]:
        """Looks for the GPUs; returns the record that names them.

        Raises:
            MemacctError, ValueError: one that was asked for by name is not there.
        """
        if self._which == "none":
            return [devices_record((), "not asked for")]
        try:
            found = _core.read_devices(self._which)
        except SourceUnavailableError as error:
            if self._which != "all":
                raise
            return [devices_record((), str(error))]
        self._device_uuids = tuple(device.uuid for device in found)
        return [devices_record(found, None if found else "the driver lists no GPU")]

    def sample(self, pid: int) -> list[dict[str, Any]]:
        """Returns the records of a sample of a process's tree; a part that fails is one, too."""
        self.waited_ns = 0
        records: list[dict[str, Any]] = []
        try:
            tree = _core.snapshot_tree(pid, host=self._host)
        except MemacctError as error:
            records += self._failed("host", error)
        else:
            self._look_at_root(tree)
            devices, told = self._read_devices()
            records += told
            records += self._names(devices)
            records += self.changes.sample(tree, devices, self._read_machine(tree.taken_ns))
        return records

    def _look_at_root(self, tree: TreeSnapshot) -> None:
        roots = [p for p in tree.processes if p.depth == 0 and p.state not in ("gone", "zombie")]
        ticks = roots[0].start_ticks if roots else None
        if self._root_ticks is None:
            self._root_ticks = ticks
        # Its number may be another process's by now.
        self.root_ended = ticks is None or ticks != self._root_ticks

    def _read_devices(self) -> tuple[tuple[DeviceMemory, ...], list[dict[str, Any]]]:
        if not self._device_uuids:
            return (), []
        wall_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
        try:
            devices = _core.read_devices(self._device_uuids)
        except MemacctError as error:
            return (), self._failed("devices", error)
        took_ns = time.monotonic_ns() - wall_ns
        self.waited_ns = max(0, took_ns - (time.process_time_ns() - cpu_ns))
        return devices, []

    def _names(self, devices: tuple[DeviceMemory, ...]) -> list[dict[str, Any]]:
        pids = self.changes.new_foreign(devices)
        if not pids:
            return []
        try:
            named = _core.snapshot_tree(pids, host="counters")
        except MemacctError:
            named = None
        return self.changes.foreign(pids, named)

    def _read_machine(self, now_ns: int) -> tuple[Any, Any] | None:
        if self._machine_ns is not None and now_ns - self._machine_ns < _MACHINE_PERIOD_NS:
            return None
        self._machine_ns = now_ns
        try:
            return _core.read_system(), _core.read_cgroup(pid=self._cgroup_pid)
        except MemacctError:
            return None

    def _failed(self, source: str, error: MemacctError) -> list[dict[str, Any]]:
        self.errors_count += 1
        text = str(error)
        if text in self._told:
            return []
        self._told.add(text)
        return [{"kind": "error", "at_ns": time.monotonic_ns(), "source": source, "reason": text}]
