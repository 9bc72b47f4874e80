"""The memory of one of the engine's processes now, as plain data."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct._convert import to_dict
from memacct.accounting.equation import device_equation
from memacct.accounting.foreign import foreign_changes

if TYPE_CHECKING:
    from memacct._core import AllocatorMemory, DeviceMemory, Snapshot
    from memacct.accounting.siblings import Sibling


def present(reading: Snapshot | None = None) -> dict[str, Any]:
    """Returns a fresh snapshot of this process, with the limits that hold for it.

    Its devices are those on which it has a context already. Where a driver fails, the host's
    side is told all the same, and ``unread`` says why there is no more.
    """
    data: dict[str, Any] = {"taken_unix_ns": time.time_ns(), "unread": None}
    if reading is None:
        reading, data["unread"] = _read()
    return {**data, "snapshot": to_dict(reading, without=("mappings",))}


def _read() -> tuple[Snapshot, str | None]:
    try:
        return _core.snapshot("breakdown", "auto", limits=True), None
    except Exception as error:  # noqa: BLE001 (a driver's fault, of whatever kind)
        return _core.snapshot("breakdown", None, limits=True), f"devices: {error!r}"


def worker_present(worker: Any, session: Any) -> dict[str, Any]:
    """Returns `present` of a worker, and what its device holds, by whom.

    Args:
        worker: vLLM's.
        session: memacct's of this worker; None: there is no baseline to compare with.
    """
    reading, unread = _read()
    data = {
        **present(reading),
        "unread": unread,
        "equation": None,
        "foreign_delta_bytes": None,
        "asleep": None,
    }
    device = _device_of(reading, getattr(worker, "device", None))
    if device is None:
        return data
    baseline, siblings = _baseline_of(session), _siblings_on(device, session)
    account = _allocator_of(reading, device.uuid)
    rows = device_equation(device, baseline=baseline, allocator=account, siblings=siblings)
    data["device_uuid"] = device.uuid
    data["asleep"] = _asleep(device, account)
    data["equation"] = [asdict(row) for row in rows]
    if baseline is not None:
        moved = foreign_changes(baseline, device, siblings)
        data["foreign_changes"] = [{**asdict(c), "delta_bytes": c.delta_bytes} for c in moved]
        data["foreign_delta_bytes"] = session.measured_grown_bytes(session.raw_free())
    return data


def _asleep(device: DeviceMemory, account: AllocatorMemory | None) -> dict[str, Any] | None:
    """What a sleeping worker still holds, torch's and not; None: nothing of it sleeps."""
    if account is None or not account.unmapped_bytes:
        return None
    held = account.reserved_bytes - account.unmapped_bytes
    own = device.own_bytes
    return {
        "unmapped_bytes": account.unmapped_bytes,
        "own_bytes": own,
        "torch_held_bytes": held,
        "non_torch_bytes": None if own is None else own - held,
    }


def _device_of(reading: Snapshot, device: Any) -> DeviceMemory | None:
    if getattr(device, "type", None) != "cuda":
        return None
    found = [d for d in reading.devices or () if device.index in (None, d.cuda_ordinal)]
    return found[0] if found else None


def _allocator_of(reading: Snapshot, uuid: str) -> AllocatorMemory | None:
    return next((account for account in reading.torch or () if account.uuid == uuid), None)


def _siblings_on(device: DeviceMemory, session: Any) -> tuple[Sibling, ...]:
    """The engine's other processes there, which only a followed worker knows."""
    if getattr(session, "follower", None) is None:
        return ()
    from memacct.integrations.vllm import _family_siblings

    known = (*session.follower.siblings, *_family_siblings.siblings_on(device))
    return tuple({sibling.pid: sibling for sibling in known}.values())


def _baseline_of(session: Any) -> DeviceMemory | None:
    follower = getattr(session, "follower", None)
    baseline: DeviceMemory | None = None if follower is None else follower.baseline.device
    return baseline
