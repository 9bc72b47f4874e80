"""Kinds of device memory, each allocated by the driver's own calls, and their rows."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

from device_process import call, cuda

from memacct import _core
from memacct._units import GIB, MIB

from .answer import change
from .nvml import Nvml

PAGE_BYTES = 2 * MIB
SIZES = (1, 4096, MIB, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 14 * MIB, 64 * MIB + 1, GIB)
Release = Callable[[], None]


class AllocationProperties(ctypes.Structure):
    """CUmemAllocationProp."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("handles", ctypes.c_int),
        ("where", ctypes.c_int),
        ("device", ctypes.c_int),
        ("win32", ctypes.c_void_p),
        ("flags", ctypes.c_ubyte * 8),
    )


class IpcHandle(ctypes.Structure):
    """CUipcMemHandle, which is given by value."""

    _fields_ = (("data", ctypes.c_ubyte * 64),)


def _plain(size_bytes: int) -> Release:
    pointer = ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes))
    return lambda: call("cuMemFree_v2", pointer)


def _pool(size_bytes: int) -> Release:
    pointer, pool = ctypes.c_uint64(), ctypes.c_void_p()
    call("cuMemAllocAsync", ctypes.byref(pointer), ctypes.c_size_t(size_bytes), None)
    call("cuCtxSynchronize")

    def release() -> None:
        call("cuMemFreeAsync", pointer, None)
        call("cuCtxSynchronize")
        if cuda().cuDeviceGetDefaultMemPool(ctypes.byref(pool), 0) == 0:
            cuda().cuMemPoolTrimTo(pool, ctypes.c_size_t(0))

    return release


def pinned_properties() -> AllocationProperties:
    """Returns those of pinned memory of the first device."""
    return AllocationProperties(1, 0, 1, 0, None)


def granularity_bytes() -> int:
    """Returns the least size of cuMemCreate."""
    found = ctypes.c_size_t()
    properties = ctypes.byref(pinned_properties())
    call("cuMemGetAllocationGranularity", ctypes.byref(found), properties, 0)
    return found.value


def _virtual(size_bytes: int) -> Release:
    handle = ctypes.c_uint64()
    step = granularity_bytes()
    whole = ctypes.c_size_t(-(-size_bytes // step) * step)
    properties = ctypes.byref(pinned_properties())
    call("cuMemCreate", ctypes.byref(handle), whole, properties, ctypes.c_uint64(0))
    return lambda: call("cuMemRelease", handle)


def _managed(size_bytes: int) -> Release:
    pointer = ctypes.c_uint64()
    call("cuMemAllocManaged", ctypes.byref(pointer), ctypes.c_size_t(size_bytes), 1)
    # Only what the device has touched is on it.
    call("cuMemsetD8_v2", pointer, ctypes.c_ubyte(1), ctypes.c_size_t(size_bytes))
    call("cuCtxSynchronize")
    return lambda: call("cuMemFree_v2", pointer)


def _host(size_bytes: int) -> Release:
    pointer = ctypes.c_void_p()
    call("cuMemAllocHost_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes))
    return lambda: call("cuMemFreeHost", pointer)


ALLOCATE: dict[str, Callable[[int], Release]] = {
    "cuMemAlloc": _plain,
    "cuMemAllocAsync": _pool,
    "cuMemCreate": _virtual,
    "cuMemAllocManaged": _managed,
    "cuMemAllocHost": _host,
}


def view(nvml: Nvml) -> dict[str, int | None]:
    """Returns memacct's reading, and NVML's own number for this process."""
    reading = _core.read_device(0, with_cuda=True)
    own_pid = reading.attribution.own_pid or os.getpid()
    return {
        "own": reading.own_bytes,
        "listed": nvml.processes().get(own_pid),
        "free": reading.free_bytes,
        "cuda_free": reading.cuda_free_bytes,
        "unattributed": reading.unattributed_bytes,
    }


def series(nvml: Nvml, kind: str, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """Returns one row a size: how each view moved while it was held, and what was left behind."""
    rows = []
    for size_bytes in sizes:
        before = view(nvml)
        release = ALLOCATE[kind](size_bytes)
        held = view(nvml)
        release()
        after = view(nvml)
        row: dict[str, Any] = {"size": size_bytes}
        row.update({key: change(held[key], before[key]) for key in before})
        row["left_own"] = change(after["own"], before["own"])
        row["left_free"] = change(after["free"], before["free"])
        rows.append(row)
    return rows


def pages(size_bytes: int) -> int:
    """Returns a size in whole pages of 2 MiB."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
