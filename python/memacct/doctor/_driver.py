"""Rules about the driver: whether NVML is there, what it lacks, what its lists are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import MIB, format_bytes
from memacct.doctor._types import finding, note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct._core import DeviceMemory
    from memacct.doctor._facts import Gpus, Machine
    from memacct.doctor._types import Finding

_USUAL_RECORD_BYTES = 24
_MISMATCH_CODE = 18  # NVML_ERROR_LIB_RM_VERSION_MISMATCH
# Less than this in nobody's number is rounding and the driver's own small change.
_NOBODYS_BYTES = 64 * MIB
_ZERO_BYTES = (
    "the driver looks up a container's own numbers as if they were the machine's (as those of "
    "535.113 to 560 do): 0 here means unknown"
)
_ZERO_BYTES_FIX = "a driver from 565.57 on, or --pid=host"
_ZERO_BYTES_SOURCE = "open-gpu-kernel-modules PR#614, HAMi-core#112"


def driver_findings(machine: Machine) -> Iterator[Finding]:
    """Yields what there is to say of NVML, of each GPU, and of the process lists."""
    gpus = machine.gpus
    yield from _nvml(machine)
    yield from _own_record(gpus)
    if gpus.devices is None:
        if gpus.driver["nvml"]["available"]:
            yield problem(
                "gpus.unreadable",
                f"NVML is there, and no GPU can be read: {gpus.error}",
                fix="look at what nvidia-smi says; in a container, give it the devices",
            )
        return
    yield from _records(gpus)
    for device in gpus.devices:
        yield from _device(device, gpus.devices)
    yield from _lists(machine)
    for text in gpus.driver["notes"]:
        yield note("driver.note", text)


def device_name(device: DeviceMemory) -> str:
    """Returns how a GPU or an instance is called in a sentence."""
    number = "MIG instance" if device.index is None else f"GPU {device.index}"
    return f"{number} ({device.uuid})"


def _nvml(machine: Machine) -> Iterator[Finding]:
    gpus, nvml = machine.gpus, machine.gpus.driver["nvml"]
    if nvml["available"]:
        yield ok(
            "driver.nvml",
            f"NVML is {nvml['library']}, driver {nvml['driver_version'] or 'unknown'}",
        )
        return
    named = machine.environ.get("MEMACCT_NVML_LIBRARY")
    if gpus.cuda_found:
        yield warning(
            "driver.nvml",
            f"the CUDA driver is here, NVML is not ({nvml['reason']})",
            why="without it a GPU is read only by a process that has a context on it, and nobody "
            "tells who else is there (Jetson; elsewhere a container without the utility driver)",
            fix=f"unset MEMACCT_NVML_LIBRARY={named}"
            if named
            else "in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )
    elif gpus.evidence or nvml["init_code"]:
        mismatch = nvml["init_code"] == _MISMATCH_CODE
        yield problem(
            "driver.nvml",
            f"there is an NVIDIA driver ({', '.join(gpus.evidence) or nvml['library']}), "
            f"but no NVML: {nvml['reason']}",
            why="no GPU can be read, by anybody here",
            fix="library and kernel module differ: load the new module, or reboot"
            if mismatch
            else "start the container with --gpus, and with utility among "
            "NVIDIA_DRIVER_CAPABILITIES; look at what nvidia-smi says",
        )
    else:
        yield note(
            "driver.nvml",
            f"no NVIDIA driver here ({nvml['reason']})",
            why="host memory is all that memacct reads on this machine",
        )


def _records(gpus: Gpus) -> Iterator[Finding]:
    nvml = gpus.driver["nvml"]
    for function, size in sorted(nvml["record_bytes"].items()):
        usual = size == _USUAL_RECORD_BYTES
        yield finding(
            "ok" if usual else "note",
            "driver.records",
            f"{function} writes records of {size} bytes (detected)",
            why=""
            if usual
            else f"its header says {_USUAL_RECORD_BYTES}: tools that trust it show wrong PIDs "
            "and sizes here; memacct does not",
            source="" if usual else "nvitop#79, nvitop#226, go-nvml#75",
        )
    if nvml["symbols"].get("memory_v2", "") is None:
        yield note(
            "driver.reserve",
            "this NVML has no nvmlDeviceGetMemoryInfo_v2",
            why="what the driver keeps for itself cannot be told apart from what is in use, so "
            "nobody's share is unknown",
            fix="a driver of 510 or later tells it",
        )


def _device(device: DeviceMemory, all_of_them: tuple[DeviceMemory, ...]) -> Iterator[Finding]:
    name = device_name(device)
    yield ok(
        "gpus.memory",
        f"{name}, {device.name}: {format_bytes(device.free_bytes)} of "
        f"{format_bytes(device.total_bytes)} free; {_holders(device)}",
    )
    if device.virtualized:
        yield warning(
            "gpus.quota",
            f"{name}: a quota hook ({device.virtualized}) shows "
            f"{format_bytes(device.total_bytes)} in the place of the card's memory",
            why="total and free are the quota's, not the card's: an allocation can fail although "
            "the quota has room, and utilization is a share of the quota",
            fix="size the engine by the quota; the card itself is seen only outside the hook",
            source="HAMi-core",
        )
    if device.unified is not None:
        yield _unified(device, name)
    instances = [d for d in all_of_them if d.parent_uuid == device.uuid]
    if instances:
        sizes = ", ".join(
            f"{d.uuid} with {format_bytes(d.free_bytes)} of {format_bytes(d.total_bytes)} free"
            for d in instances
        )
        yield note(
            "gpus.mig",
            f"{name} is divided into {len(instances)} MIG instances: {sizes}",
            why="CUDA runs on an instance, and an engine gets only that instance's memory"
            + (
                "; who is on the whole GPU is told only to those who may monitor it"
                if device.foreign_bytes is None
                else ""
            ),
            fix="name the instance's UUID in CUDA_VISIBLE_DEVICES",
        )
    if not device.consistent:
        yield note(
            "gpus.moving",
            f"{name} changed under each of {device.attempts_count} readings",
            why="its numbers are bounds, not values of one instant",
        )


def _holders(device: DeviceMemory) -> str:
    count = len(device.processes)
    if not count:
        return "no process is listed"
    held = "bytes that are not told"
    if device.foreign_bytes is not None:
        held = format_bytes(device.foreign_bytes)
    return f"{count} process{'es are' if count > 1 else ' is'} listed, with {held}"


def _unified(device: DeviceMemory, name: str) -> Finding:
    integrated = device.unified is not None and device.unified.kind == "integrated"
    return note(
        "gpus.unified",
        f"{name} "
        + ("shares its memory with the host" if integrated else "is a NUMA node of the host"),
        why="free is the least of what CUDA and the kernel tell: MemAvailable counts page cache "
        "that the driver cannot take, so engines that trust it run out"
        if integrated
        else "the kernel may put pages of the host there and keeps those of ended processes",
        source="vllm#54200, llamastash#80" if integrated else "nvml.h, nvmlDeviceGetMemoryInfo",
    )


def _lists(machine: Machine) -> Iterator[Finding]:
    """What the process lists are worth, each way of failing by the GPUs that it is seen on."""
    gpus = machine.gpus
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


def _own_record(gpus: Gpus) -> Iterator[Finding]:
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
