"""A device's list divided among the process that was asked for, its descendants and others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct.look.look_types import Finding, Gpu, Holder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from memacct._core import DeviceMemory, ProcessMemory, ProcessUsage
    from memacct.look.look_types import Numbers, Owner

UNSURE = (
    "in a container the driver may count processes as the machine does: this may be another "
    "process of the same number"
)
OTHERS = "the driver lists numbers that are not this container's: who is who cannot be told"


def gpu_of(
    device: DeviceMemory,
    *,
    label: str,
    numbers: Numbers,
    known: Mapping[int, ProcessMemory],
    pid: int | None = None,
    family: Collection[int] = (),
) -> Gpu:
    """Returns a reading as seen from outside: who asks holds nothing itself.

    Args:
        device: a reading by a process without a CUDA context.
        label: what it is called.
        numbers: whether the list's numbers are procfs's.
        known: the processes by number, as far as procfs told.
        pid: the process that own and tree are about.
        family: its descendants.
    """
    holders = tuple(
        _holder(each, known.get(each.pid), _owner(each.pid, pid, family, numbers))
        for each in device.processes
    )
    own, tree, foreign = _sums(holders, pid, numbers, whole=device.foreign_bytes is not None)
    return Gpu(
        uuid=device.uuid,
        label=label,
        nvml_index=device.index,
        parent_uuid=device.parent_uuid,
        name=device.name,
        source=device.source,
        taken_ns=device.taken_ns,
        span_ns=device.span_ns,
        consistent=device.consistent,
        total_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        device_used_bytes=device.device_used_bytes,
        reserved_bytes=device.reserved_bytes,
        own_bytes=own,
        tree_bytes=tree,
        foreign_bytes=foreign,
        unattributed_bytes=device.unattributed_bytes,
        processes=holders,
        attribution=None if pid is None else _finding(own, device, numbers),
        unified=device.unified,
        virtualized=device.virtualized,
        notes=tuple(_notes(device)),
    )


def _owner(pid: int, wanted: int | None, family: Collection[int], numbers: Numbers) -> Owner:
    if wanted is None:
        return "foreign"
    if numbers == "others":
        return "unknown"
    if pid == wanted:
        return "own"
    return "tree" if pid in family else "foreign"


def _holder(usage: ProcessUsage, known: ProcessMemory | None, owner: Owner) -> Holder:
    listed = Holder(
        pid=usage.pid,
        process_used_bytes=usage.process_used_bytes,
        owner=owner,
        kinds=usage.kinds,
        gpu_instance_id=usage.gpu_instance_id,
    )
    if known is None:
        return listed
    return listed._replace(
        start_ticks=known.start_ticks,
        name=known.name,
        title=known.title,
        role=known.role,
        rank=known.rank,
        host=known.host,
    )


def _sums(
    holders: Iterable[Holder], pid: int | None, numbers: Numbers, *, whole: bool
) -> tuple[int | None, int | None, int | None]:
    """Own, tree and foreign. One number that is hidden hides the sum that it belongs to.

    Args:
        holders: of a device.
        pid: the process that own is about.
        numbers: whose numbers these are.
        whole: the driver's list can be relied on: nobody is missing, no number hidden.
    """
    sums: dict[str, int | None] = {"own": 0, "tree": 0, "foreign": 0, "unknown": 0}
    listed = False
    for holder in holders:
        listed |= holder.owner == "own"
        before, more = sums[holder.owner], holder.process_used_bytes
        if more == 0 and holder.owner != "foreign":
            more = None  # a context is never empty: some drivers say 0 for "not told"
        sums[holder.owner] = None if before is None or more is None else before + more
    if pid is not None and numbers == "others":
        return None, None, None
    if whole:
        return sums["own"], sums["tree"], sums["foreign"]
    if pid is None:
        return 0, 0, None
    return sums["own"] if listed else None, None, None


def _finding(own: int | None, device: DeviceMemory, numbers: Numbers) -> Finding:
    if numbers == "others" or own is None:
        reason = OTHERS if numbers == "others" else "the driver does not tell this process's number"
        bounds = (0, device.device_used_bytes)
        return Finding(source="none", sure=False, own_bounds_bytes=bounds, reason=reason)
    sure = numbers == "ours"
    bounds = (own, own) if sure else (0, device.device_used_bytes)
    return Finding(source="pid", sure=sure, own_bounds_bytes=bounds, reason="" if sure else UNSURE)


def _notes(device: DeviceMemory) -> Iterable[str]:
    if not device.consistent:
        yield f"moved while it was read ({device.attempts_count} attempts): the row may not add up"
    if device.virtualized is not None:
        yield f"total and free are what {device.virtualized} (a quota hook) says"
    if device.unified is not None:
        yield f"{device.unified.kind}: shares the host's memory"
