"""The machine's facts that answers depend on; needs neither memacct nor CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

from .nvml import Nvml

INITIAL_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO


class NoGpuError(Exception):
    """There is nothing to ask here."""


def open_nvml() -> Nvml:
    """Returns NVML with its first device.

    Raises:
        NoGpuError: with the reason.
    """
    try:
        return Nvml()
    except OSError as error:
        raise NoGpuError(str(error)) from error


def describe(nvml: Nvml) -> dict[str, Any]:
    """Returns what is known of the GPU, its driver and this place."""
    return {"gpu": _gpu(nvml), "host": _host(), "python": _python()}


def _gpu(nvml: Nvml) -> dict[str, Any]:
    version = ctypes.c_int()
    known = nvml.library.nvmlSystemGetCudaDriverVersion(ctypes.byref(version)) == 0
    text = _text_of("/proc/driver/nvidia/version")
    return {
        "name": nvml.text("nvmlDeviceGetName", of_device=True),
        "driver": nvml.text("nvmlSystemGetDriverVersion"),
        "nvml": nvml.text("nvmlSystemGetNVMLVersion"),
        "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}" if known else None,
        "open_kernel_module": ("Open" in text) if text else None,
        "total_bytes": nvml.memory_v1()["total"],
        "devices_count": _count(nvml),
        "mig_mode": nvml.numbers("nvmlDeviceGetMigMode", 2),
        "persistence_mode": nvml.numbers("nvmlDeviceGetPersistenceMode"),
        "compute_mode": nvml.numbers("nvmlDeviceGetComputeMode"),
        "confidential_compute": nvml.has("nvmlDeviceGetConfComputeMemSizeInfo"),
        "processes_count_before": len(nvml.processes()),
        "mps_control": shutil.which("nvidia-cuda-mps-control") is not None,
    }


def _count(nvml: Nvml) -> int | None:
    count = ctypes.c_uint()
    code = nvml.library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    return count.value if code == 0 else None


def _host() -> dict[str, Any]:
    lines = _text_of("/proc/self/status").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    kernel = re.match(r"[\d.]+", platform.release())
    return {
        "kernel": kernel[0].rstrip(".") if kernel else None,
        "gvisor": "gVisor" in _text_of("/proc/version"),
        "cpus_count": os.cpu_count(),
        "uid": os.getuid(),
        "nspid_depth": len(status.get("NSpid", "").split()) or None,
        "initial_pid_namespace": initial_pid_namespace(),
        "seccomp": status.get("Seccomp", "").strip() or None,
        "may_administer": bool(int(status.get("CapEff", "0"), 16) >> 21 & 1),  # CAP_SYS_ADMIN
    }


def _text_of(path: str) -> str:
    """Returns a file's text; "" where there is none (a sandbox may lack some of procfs)."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def initial_pid_namespace() -> bool | None:
    """Returns whether this is the machine's first pid namespace; None if that is not told."""
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == INITIAL_NAMESPACE
    except OSError:
        return None


def _python() -> dict[str, Any]:
    versions: dict[str, Any] = {"version": platform.python_version()}
    for name in ("torch", "numpy", "pybind11", "scikit-build-core"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def only_first_device(nvml: Nvml) -> dict[str, str]:
    """Returns an environment in which CUDA's first device is NVML's, where there are several."""
    if (_count(nvml) or 1) < 2:
        return {}
    uuid = nvml.text("nvmlDeviceGetUUID", of_device=True)
    return {"CUDA_VISIBLE_DEVICES": uuid} if uuid else {}
