"""Processes, the control group and the machine as metrics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from memacct.report.prometheus_types import NOBODY, OTHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct._core import CgroupMemory, MemoryLimits, ProcessMemory, SystemMemory
    from memacct.report.prometheus_types import Families, Reading

_PROCESS_TERMS = {
    "rss": "Resident memory of a process; counts a page in each process that maps it.",
    "rss_anon": "Of rss: anonymous memory.",
    "rss_file": "Of rss: file pages.",
    "rss_shmem": "Of rss: shared memory.",
    "swap": "Swapped out, beside rss.",
    "hugetlb": "In hugetlb pages, beside rss.",
    "held": "What only the process can give back: anonymous, shared and hugetlb memory.",
    "reclaimable": "Of rss: page cache, which the kernel can take back.",
}
_CGROUP_TERMS = {
    "usage": "What counts against the limit, page cache among it.",
    "working_set": "usage - inactive file pages, as the kubelet counts.",
    "inactive_file": "Of usage: page cache that the kernel takes back first.",
    "active_file": "Of usage: the other page cache.",
    "swap_usage": "Swapped out, beside usage.",
}
_SYSTEM_TERMS = {
    "total": "Memory of the machine.",
    "free": "Of it, in no use at all.",
    "available": "What new work may take without swapping, as the kernel estimates.",
    "cached": "Page cache, with shared memory.",
    "shmem": "Shared memory and tmpfs.",
    "hugetlb": "In pools of hugetlb pages, free ones included.",
    "swap_total": "Swap space.",
    "swap_free": "Swap space that is free.",
}
_KERNEL = "the kernel does not tell"
_GROUP = "no control group of the exporter is visible"


def add_host(families: Families, reading: Reading, most_count: int) -> None:
    """Adds the watched processes, and the limits that they are under."""
    _add_processes(families, reading, most_count)
    _add_cgroup(families, reading.snapshot.cgroup)
    _add_system(families, reading.snapshot.system)
    _add_limits(families, reading.snapshot.limits)


def _add_processes(families: Families, reading: Reading, most_count: int) -> None:
    roots = [process.pid for process in reading.processes if process.depth == 0]
    for up, pids in ((1, roots), (0, reading.ended_pids)):
        for pid in pids:
            text = "Whether a watched process still runs."
            families.add("memacct_process_up", text, up, {"pid": str(pid)})
    live = [process for process in reading.processes if process.host is not None]
    live.sort(key=lambda process: (process.depth > 0, -_rss(process), process.pid))
    if any(process.state == "denied" for process in reading.processes):
        families.unknown("process_rss_bytes", "permission denied")
    for process in live[:most_count]:
        person = reading.people.get(process.pid, NOBODY)
        labels = {
            "pid": str(process.pid),
            "role": person.role,
            "name": person.name,
            "container": person.container,
        }
        for name, text in _PROCESS_TERMS.items():
            value = getattr(process.host, f"{name}_bytes")
            families.add_known(f"memacct_process_{name}_bytes", text, value, labels, _KERNEL)
    _add_others(families, live[most_count:])


def _add_others(families: Families, others: Sequence[ProcessMemory]) -> None:
    labels = {"pid": OTHER, "role": "", "name": "", "container": ""}
    for name, text in _PROCESS_TERMS.items() if others else ():
        values = [getattr(process.host, f"{name}_bytes") for process in others]
        known = [value for value in values if value is not None]
        if known:
            families.add(f"memacct_process_{name}_bytes", text, sum(known), labels)


def _rss(process: ProcessMemory) -> int:
    return 0 if process.host is None else process.host.rss_bytes


def _add_cgroup(families: Families, cgroup: CgroupMemory | None) -> None:
    if cgroup is None:
        families.unknown("cgroup", _GROUP)
        return
    families.add(
        "memacct_cgroup_limit_bytes",
        "The limit that binds the exporter's control group; +Inf: it is not limited.",
        math.inf if cgroup.limit_bytes is None else cgroup.limit_bytes,
        {},
    )
    for name, text in _CGROUP_TERMS.items():
        value = getattr(cgroup, f"{name}_bytes")
        families.add_known(f"memacct_cgroup_{name}_bytes", text, value, {}, _KERNEL)
    kills = None if cgroup.events is None else cgroup.events.oom_kill_count
    families.add_known(
        "memacct_cgroup_oom_kills_total", "Processes of the group killed.", kills, {}, _KERNEL
    )


def _add_system(families: Families, system: SystemMemory | None) -> None:
    if system is None:
        families.unknown("system", _KERNEL)
        return
    for name, text in _SYSTEM_TERMS.items():
        value = getattr(system, f"{name}_bytes")
        families.add_known(f"memacct_system_{name}_bytes", text, value, {}, _KERNEL)


def _add_limits(families: Families, limits: MemoryLimits | None) -> None:
    if limits is None:
        families.unknown("headroom_bytes", _KERNEL)
        return
    families.add_known(
        "memacct_effective_limit_bytes",
        "The smallest of all limits on the exporter: its groups' and the machine's.",
        limits.effective_limit_bytes,
        {"source": limits.effective_limit_source or ""},
        _KERNEL,
    )
    # An upper bound is not the headroom.
    families.add_known(
        "memacct_headroom_bytes",
        "What may still be allocated below all limits, if page cache makes way.",
        limits.headroom_bytes if limits.headroom_known else None,
        {"source": limits.headroom_source or ""},
        "the usage of a control group is unknown",
    )
