"""Rules about the driver and its GPUs: whether NVML is there, what it lacks, what is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import format_bytes
from memacct.doctor._lists import device_name, list_findings, own_findings
from memacct.doctor._types import finding, note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct._core import DeviceMemory
    from memacct.doctor._facts import Gpus, Machine
    from memacct.doctor._types import Finding

_USUAL_RECORD_BYTES = 24
_MISMATCH_CODE = 18  # NVML_ERROR_LIB_RM_VERSION_MISMATCH


def driver_findings(machine: Machine) -> Iterator[Finding]:
    """Yields what there is to say of NVML, of each GPU, and of the process lists."""
    gpus = machine.gpus
    yield from _nvml(machine)
    yield from own_findings(gpus)
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
    yield from list_findings(gpus)
    for text in gpus.driver["notes"]:
        yield note("driver.note", text)


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
