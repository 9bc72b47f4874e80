"""The first records of a recording: what is recorded, where, by which clock."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct.recording._types import HOST_TERMS, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct._core import DeviceMemory


def header(
    *,
    command: Sequence[str] | None,
    pid: int | None,
    hz: float,
    budget_ratio: float,
    host: str,
    timeline_dir: str | None,
) -> dict[str, Any]:
    """Returns the first record. The clock's origin is now."""
    about = os.uname()
    return {
        "kind": "run",
        "schema_version": SCHEMA,
        "memacct_version": _core.__version__,
        "python_version": platform.python_version(),
        "command": None if command is None else list(command),
        "pid": pid,
        "folder": os.getcwd(),  # noqa: PTH109 (text)
        "hostname": about.nodename,
        "kernel": about.release,
        "machine": about.machine,
        "cpu_count": os.cpu_count(),
        "memory_total_bytes": _core.read_system().total_bytes,
        "clock": {"monotonic_ns": time.monotonic_ns(), "wall_ns": time.time_ns()},
        "hz": hz,
        "budget_ratio": budget_ratio,
        "host": host,
        "host_terms": list(HOST_TERMS),
        "timeline_dir": timeline_dir,
    }


def devices_record(devices: Sequence[DeviceMemory], reason: str | None) -> dict[str, Any]:
    """Returns the record of the GPUs that are watched, or of why none is."""
    nvml = _core.driver_diagnosis()["nvml"] if devices else {}
    names = ("uuid", "index", "name", "total_bytes", "parent_uuid")
    return {
        "kind": "devices",
        "at_ns": time.monotonic_ns(),
        "driver_version": nvml.get("driver_version"),
        "reason": reason,
        "devices": [{name: getattr(device, name) for name in names} for device in devices],
    }
