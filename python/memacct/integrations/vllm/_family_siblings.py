"""Which of a device's listed processes are this worker's engine, by registry and descent.

Note [Whose budget]
A worker charges its budget with what its engine's other processes take on its device. Not
with a worker of the same engine whose own device it is: that one has a budget of its own (data
parallel ranks that share a GPU are engines that share it). Not with the process of a user who
calls vLLM as a library: what a trainer holds beside its engine is the trainer's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memacct.accounting.siblings import EngineProcess, Sibling, is_other
from memacct.accounting.siblings import engine_processes as _engine_processes
from memacct.integrations.vllm import _family
from memacct.integrations.vllm._family_files import Entry
from memacct.integrations.vllm._family_processes import ancestors, environ_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from memacct._core import DeviceMemory


def siblings_on(device: DeviceMemory) -> tuple[Sibling, ...]:
    """Returns the listed processes that are the engine's, without this one and its tree.

    See Note [Whose budget].
    """
    entries = _family.family.entries()
    if not entries:
        return ()
    look_up = _by_procfs if device.attribution.own_pid == os.getpid() else _by_driver_number
    found = []
    for process in device.processes:
        entry = look_up(process.pid, entries) if is_other(process) else None
        if entry is not None and not _has_own_budget(entry, entries, device.uuid):
            found.append(Sibling(pid=process.pid, role=entry.role, rank=entry.rank))
    return tuple(found)


def engine_processes(
    device: DeviceMemory,
    baseline: DeviceMemory | None = None,
    siblings: Iterable[Sibling] | None = None,
) -> tuple[EngineProcess, ...]:
    """Returns the engine's processes that hold memory of a device, the largest first.

    Args:
        device: a reading of this process's own.
        baseline: an earlier one, for the changes since.
        siblings: the engine's other processes; None: those that are found now.
    """
    me = _family.family.entry if _family.family.is_registered else None
    own = None if me is None else Sibling(pid=me.pid, role=me.role, rank=me.rank)
    known = siblings_on(device) if siblings is None else siblings
    return _engine_processes(device, known, own=own, baseline=baseline)


def why_siblings_unknown(device: DeviceMemory | None) -> str:
    """Returns what keeps siblings from being told from neighbours; empty: nothing."""
    if _family.family.lost_reason is not None:
        return _family.family.lost_reason
    if device is None or device.attribution.own_pid == os.getpid():
        return ""
    if device.attribution.own_pid is None:
        return "this process was not found in the driver's list"
    return (
        "the driver's process numbers are not those of our /proc: of the engine's other "
        "processes only workers are known, which tell theirs"
    )


def _by_procfs(pid: int, entries: list[Entry]) -> Entry | None:
    here = {entry.pid: entry for entry in entries if entry.is_here}
    if pid in here:
        return here[pid]
    for ancestor in ancestors(pid):
        if ancestor in here:
            return _below(here[ancestor], pid, "child")
    return _by_environment(pid, here)


def _by_environment(pid: int, here: Mapping[int, Entry]) -> Entry | None:
    """Knows a daemon, whose parents have ended, by the environment it was started with."""
    environ = environ_of(pid, (_family.ID_VARIABLE, _family.PROCESS_VARIABLE))
    if environ is None or environ.get(_family.ID_VARIABLE) != _family.family.engine_id:
        return None
    owner = environ.get(_family.PROCESS_VARIABLE, "")
    if owner.isdecimal() and int(owner) in here:
        return _below(here[int(owner)], pid, "daemon")
    return Entry(pid=pid, role="daemon")


def _by_driver_number(pid: int, entries: list[Entry]) -> Entry | None:
    return next((entry for entry in entries if entry.driver_pid == pid), None)


def _below(owner: Entry, pid: int, what: str) -> Entry:
    return Entry(
        pid=pid,
        role=f"{what} of {owner.title}",
        dp_rank=owner.dp_rank,
        device_uuid=owner.device_uuid,
        belongs_to=owner.belongs_to or owner.pid,
    )


def _has_own_budget(entry: Entry, entries: list[Entry], device_uuid: str) -> bool:
    chief = entry
    if entry.belongs_to is not None:
        same = (e for e in entries if e.pid == entry.belongs_to and e.is_here == entry.is_here)
        chief = next(same, entry)
    me = _family.family.entry
    if me is not None and chief.pid == me.pid and chief.namespace == me.namespace:
        return False
    if chief.role == _family.USER:
        return True
    if chief.device_uuid is not None:
        return chief.device_uuid == device_uuid
    # Not on a device yet, and another data-parallel engine's.
    mine = None if me is None else me.dp_rank
    return chief.dp_rank is not None and mine is not None and chief.dp_rank != mine
