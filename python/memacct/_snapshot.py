"""The difference of two snapshots: ``after - before`` ends up here, off the measured path."""

from __future__ import annotations

from memacct._core import Snapshot
from memacct._types import (
    AllocatorDelta,
    CgroupDelta,
    DeviceDelta,
    HostDelta,
    SnapshotDelta,
    SystemDelta,
    check_same_process,
    joined,
)


def difference(after: Snapshot, before: Snapshot) -> SnapshotDelta:
    """Returns what changed in a process between two snapshots of it.

    Raises:
        ValueError: the snapshots are of two processes; the message names both.
    """
    if not isinstance(before, Snapshot):
        return NotImplemented
    check_same_process(after.pid, before.pid)
    return SnapshotDelta(
        pid=after.pid,
        elapsed_ns=after.taken_ns - before.taken_ns,
        host=HostDelta.between(after.host, before.host),
        mappings=(
            None
            if after.mappings is None or before.mappings is None
            else after.mappings - before.mappings
        ),
        cgroup=_cgroup_difference(after, before),
        system=(
            None
            if after.system is None or before.system is None
            else SystemDelta.between(after.system, before.system)
        ),
        devices=joined(after.devices, before.devices, DeviceDelta, DeviceDelta.between),
        torch=joined(after.torch, before.torch, AllocatorDelta, AllocatorDelta.between),
    )


def _cgroup_difference(after: Snapshot, before: Snapshot) -> CgroupDelta | None:
    if after.cgroup is None or before.cgroup is None:
        return None
    groups = [(cgroup.path, cgroup.limit_path) for cgroup in (after.cgroup, before.cgroup)]
    return CgroupDelta.between(after.cgroup, before.cgroup) if groups[0] == groups[1] else None
