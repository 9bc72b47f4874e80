"""What an examination looks at: one reading of the machine, as the rules take it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct._errors import DriverError, MemacctError, SourceError, SourceUnavailableError

if TYPE_CHECKING:
    from memacct._core import CgroupMemory, DeviceMemory, MemoryLimits, SystemMemory

_BROKER_SOCKET = "/run/memacct/broker.sock"
_BROKER_WAIT_S = 0.2  # as the native client waits
_BROKER_ANSWER_BYTES = 4096
_LIMITS = ("RLIMIT_AS", "RLIMIT_MEMLOCK", "RLIMIT_NOFILE")
# Only that there is a driver at all: each is there without NVML, too.
_DRIVER_EVIDENCE = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")
_KERNEL_FILES = {
    "ptrace_scope": "/proc/sys/kernel/yama/ptrace_scope",
    "overcommit": "/proc/sys/vm/overcommit_memory",
    "huge_pages": "/sys/kernel/mm/transparent_hugepage/enabled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What the driver tells.

    Attributes:
        driver: ``_core.driver_diagnosis()``.
        devices: a reading of all; None: there was none.
        error: why not.
        evidence: files that show that a driver is installed.
        cuda_found: whether libcuda can be loaded; None: not tried, since NVML is there.
        known_pids: those of the listed pids that are in this process's own procfs.
        own: what a process with a context of its own was told; None: not tried.
    """

    driver: Mapping[str, Any]
    devices: tuple[DeviceMemory, ...] | None
    error: str
    evidence: tuple[str, ...]
    cuda_found: bool | None
    known_pids: frozenset[int]
    own: OwnRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRecord:
    """How a process with a context found itself; ``error`` where it could not even make one.

    ``listed_bytes`` is what the driver's record of it says, which may be 0.
    """

    uuid: str = ""
    source: str = ""
    own_bytes: int | None = None
    own_pid: int | None = None
    listed_bytes: int | None = None
    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the kernel tells.

    Attributes:
        kernel: its release.
        cpu_count: the processors of the machine.
        files: contents of small kernel files by short names; None: not there.
        hidepid: the option of /proc's mount; "" or "0": nothing is hidden.
        shm_bytes, shm_free_bytes: the size of /dev/shm; None: it is not there.
        limits: soft resource limits; None: unlimited.
        rollup, residency, pagemap: whether this kernel has smaps_rollup, the two ioctls that
            replace smaps, and a readable pagemap.
        init_state: how far process 1 can be read (``ProcessMemory.state``).
    """

    kernel: str
    cpu_count: int
    files: Mapping[str, str | None]
    hidepid: str
    shm_bytes: int | None
    shm_free_bytes: int | None
    limits: Mapping[str, int | None]
    rollup: bool
    residency: bool
    pagemap: bool
    init_state: str
    cgroup: CgroupMemory | None
    system: SystemMemory | None
    binding: MemoryLimits | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All of it. ``broker``: the number outside and "", or None and why there is none."""

    gpus: Gpus
    host: Host
    broker: tuple[int | None, str]
    environ: Mapping[str, str] = field(default_factory=dict)


def read_machine(environ: Mapping[str, str], own: OwnRecord | None = None) -> Machine:
    """Reads the machine; makes no CUDA context."""
    return Machine(
        gpus=_read_gpus(own),
        host=_read_host(),
        broker=_ask_broker(environ.get("MEMACCT_BROKER") or _BROKER_SOCKET),
        environ=environ,
    )


def _read_gpus(own: OwnRecord | None) -> Gpus:
    devices: tuple[DeviceMemory, ...] | None = None
    error = ""
    try:
        devices = _core.read_devices("all")
    except (SourceError, DriverError) as failed:
        error = str(failed)
    driver = _core.driver_diagnosis()
    pids = {process.pid for device in devices or () for process in device.processes}
    return Gpus(
        driver=driver,
        devices=devices,
        error=error,
        evidence=tuple(path for path in _DRIVER_EVIDENCE if Path(path).exists()),
        cuda_found=None if driver["nvml"]["available"] else _can_load_cuda(),
        known_pids=known_pids(pids),
        own=own,
    )


def known_pids(pids: set[int]) -> frozenset[int]:
    """Returns which of them name a process in this process's procfs."""
    return frozenset(pid for pid in pids if _state_of(pid) not in ("gone", ""))


def _state_of(pid: int) -> str:
    try:
        found = _core.snapshot_tree(pid, host="counters").processes
    except (MemacctError, ValueError):
        return ""
    return found[0].state if found else ""


def _can_load_cuda() -> bool:
    # Loading is not initialising: no context, no device.
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _read_host() -> Host:
    reading = _core.snapshot(devices=None, limits=True)
    status = os.uname()
    total, free = _shared_memory()
    return Host(
        kernel=status.release,
        cpu_count=os.cpu_count() or 1,
        files={name: _text(path) for name, path in _KERNEL_FILES.items()},
        hidepid=_hidepid(_text("/proc/self/mountinfo") or ""),
        shm_bytes=total,
        shm_free_bytes=free,
        limits={name: _soft_limit(name) for name in _LIMITS},
        rollup=_has_rollup(),
        residency=_has_residency(),
        pagemap=os.access("/proc/self/pagemap", os.R_OK),
        init_state=_state_of(1),
        cgroup=reading.cgroup,
        system=reading.system,
        binding=reading.limits,
    )


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="backslashreplace").strip()
    except OSError:
        return None


def _hidepid(mountinfo: str) -> str:
    """The option of the mount at /proc that is seen, the last one: a superblock's, at the end."""
    hidden = ""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and fields[4] == "/proc":  # noqa: PLR2004 (the mount point)
            options = fields[-1].split(",")
            hidden = next((o[8:] for o in options if o.startswith("hidepid=")), "")
    return hidden


def _shared_memory() -> tuple[int | None, int | None]:
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108 (where shm_open puts it)
    except OSError:
        return None, None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _soft_limit(name: str) -> int | None:
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft


def _has_rollup() -> bool:
    try:
        _core.read_host("rollup")
    except SourceUnavailableError:
        return False
    return True


def _has_residency() -> bool:
    try:
        return _core.read_residency() is not None
    except SourceError:
        return False


def _ask_broker(path: str) -> tuple[int | None, str]:
    if not Path(path).exists():
        return None, f"nobody is at {path}"
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as client:
            client.settimeout(_BROKER_WAIT_S)
            client.connect(path)
            answer = client.recv(_BROKER_ANSWER_BYTES)
    except OSError as error:
        return None, f"{path}: {error.strerror or error}"
    number, reason = _core._parse_broker_answer(answer)  # noqa: SLF001 (the one parser of it)
    return number, reason
