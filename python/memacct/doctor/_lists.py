"""Rules about the driver's process lists: whose numbers and bytes they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import MIB, format_bytes
from memacct.doctor._types import finding, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct._core import DeviceMemory
    from memacct.doctor._facts import Gpus
    from memacct.doctor._types import Finding

# Less than this in nobody's number is rounding and the driver's own small change.
_NOBODYS_BYTES = 64 * MIB
_ZERO_BYTES = (
    "the driver looks up a container's own numbers as if they were the machine's (as those of "
    "535.113 to 560 do): 0 here means unknown"
)
_ZERO_BYTES_FIX = "a driver from 565.57 on, or --pid=host"
_ZERO_BYTES_SOURCE = "open-gpu-kernel-modules PR#614, HAMi-core#112"


def device_name(device: DeviceMemory) -> str:
    """Returns how a GPU or an instance is called in a sentence."""
    number = "MIG instance" if device.index is None else f"GPU {device.index}"
    return f"{number} ({device.uuid})"


def list_findings(gpus: Gpus) -> Iterator[Finding]:
    """Yields what each GPU's process list is worth, by the way in which it fails."""
    contained = not gpus.driver["process"]["initial_pid_namespace"]
    told = False
    for device in gpus.devices or ():
        divided = any(d.parent_uuid == device.uuid for d in gpus.devices or ())
        found = None if divided else _list_of(device, gpus, contained=contained)
        if found is not None:
            told = True
            yield found
    listed = any(device.processes for device in gpus.devices or ())
    if not told:
        yield finding(
            "ok" if listed else "note",
            "processes.lists",
            "the driver lists processes by numbers that this machine's /proc knows, with "
            "their bytes"
            if listed
            else "no process is listed on any GPU, so the lists cannot be judged yet",
            fix="" if listed else "--probe makes a context for a moment, and sees",
        )


def _list_of(device: DeviceMemory, gpus: Gpus, *, contained: bool) -> Finding | None:
    refused = device.foreign_bytes is None and not device.processes
    unknown = [p.pid for p in device.processes if p.process_used_bytes is None]
    empty = [p.pid for p in device.processes if p.process_used_bytes == 0]
    strangers = [p.pid for p in device.processes if p.pid not in gpus.known_pids]
    nobodys = device.unattributed_bytes or 0
    name = device_name(device)
    if refused:
        return _refused(device, name)
    if unknown:
        return _no_bytes(name, unknown)
    if empty:
        return _zero_bytes(name, empty)
    if strangers:
        return _strangers(name, strangers, contained=contained)
    if nobodys >= _NOBODYS_BYTES and device.unified is None:
        return _nobodys(name, nobodys, contained=contained)
    return None


def _refused(device: DeviceMemory, name: str) -> Finding:
    # What comes first is about the process that asks, which holds nothing.
    reason = device.attribution.reason.partition("; ")[2] or device.attribution.reason
    return warning(
        "processes.refused",
        f"{name}: who is on it is not told: {reason}",
        why="own memory is known only within bounds, and neighbours' moves are seen only in what "
        "is free",
        fix="run as a user who may monitor the GPU (of a MIG instance: /dev/nvidia-caps)",
        source="nvidia-container-toolkit#842",
    )


def _no_bytes(name: str, pids: list[int]) -> Finding:
    return warning(
        "processes.not_available",
        f"{name}: the driver lists {_pids(pids)} without their bytes (N/A)",
        why="who holds how much is unknown here; WSL2 and WDDM never tell it",
        fix="the totals still hold: memacct falls back to them and says so",
    )


def _zero_bytes(name: str, pids: list[int]) -> Finding:
    return warning(
        "processes.zero_bytes",
        f"{name}: {_pids(pids)} in the driver's list with 0 bytes",
        why=_ZERO_BYTES,
        fix=_ZERO_BYTES_FIX,
        source=_ZERO_BYTES_SOURCE,
    )


def _strangers(name: str, pids: list[int], *, contained: bool) -> Finding:
    return warning(
        "processes.other_numbers",
        f"{name}: {_pids(pids)} in the driver's list are no processes of this /proc",
        why="the list has the numbers of another PID namespace, so an engine does not find itself "
        "by its own"
        if contained
        else "either they ended just now, or /proc hides them, or the list has the numbers of "
        "another PID namespace: an engine may not find itself by its own",
        fix="an engine finds itself by a fingerprint (identify()), or by the broker "
        "(docs/attribution.md); --pid=host shows everybody",
        source="nvidia-docker#179, sglang-omni#1685",
    )


def _nobodys(name: str, size_bytes: int, *, contained: bool) -> Finding:
    return finding(
        "note" if contained else "warning",
        "processes.nobodys",
        f"{name}: {format_bytes(size_bytes)} are in use by nobody who is listed",
        why="processes outside this container are not listed: their memory shows only as a sum"
        if contained
        else "managed memory, a killed process that cannot end, or processes that this user "
        "may not see",
        fix="neighbours' moves are still seen in what is free"
        if contained
        else "look for processes in state D (ps -eo pid,stat,comm), or at nvidia-smi as root",
        source="" if contained else "pynvml#63, VisEdit#5",
    )


def _pids(pids: list[int]) -> str:
    shown = ", ".join(map(str, pids[:4])) + (", ..." if len(pids) > 4 else "")  # noqa: PLR2004
    return f"pid {shown}" if len(pids) == 1 else f"{len(pids)} pids ({shown})"


def own_findings(gpus: Gpus) -> Iterator[Finding]:
    """Yields how a process with a context found itself, if that was tried."""
    own = gpus.own
    if own is None:
        return
    if own.error:
        yield problem(
            "processes.own",
            f"a process cannot make a CUDA context here: {own.error}",
            why="neither can an engine",
        )
        return
    if own.own_bytes is not None:
        yield ok(
            "processes.own",
            f"a process with a context on {own.uuid} finds itself by {own.source!r}, with "
            f"{format_bytes(own.own_bytes)}",
        )
        return
    zero = own.listed_bytes == 0
    yield warning(
        "processes.zero_bytes" if zero else "processes.own",
        f"a process with a context on {own.uuid} does not find itself: {own.reason}",
        why=_ZERO_BYTES if zero else "an engine's own memory is then known only within bounds",
        fix=_ZERO_BYTES_FIX if zero else "docs/attribution.md has the ladder of ways to be found",
        source=_ZERO_BYTES_SOURCE if zero else "",
    )
