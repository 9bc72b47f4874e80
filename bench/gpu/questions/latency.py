"""(2) How long each call takes, idle and beside a neighbour that allocates; and ours above it."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable
from typing import Any

from device_process import DeviceProcess, context, cuda

import memacct
from memacct import _core

from .answer import Answer, spread
from .fingerprint import MOVER, STOP
from .nvml import DETAIL_LIST_TAG, KINDS, MEMORY_V2_TAG, SUFFIXES, DetailList, Nvml

Call = Callable[[], Any]
CALL_LIMIT_S = 1.5
CONTEXTS_COUNT = 4


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    count = 50 if short else 1000
    context()
    _core.identify(0)
    calls = {**_raw(nvml), **_ours()}
    idle = {name: measure(call, count) for name, call in calls.items()}
    answer.figures["idle"] = idle
    with DeviceProcess(None) as neighbour:
        neighbour.run(MOVER)
        beside = {name: measure(call, count) for name, call in calls.items()}
        readings: list[_core.DeviceMemory] = []
        measure(lambda: readings.append(_core.read_device(0)), count)
        answer.figures["moves_count"] = neighbour.run(STOP)
    answer.figures["beside_a_mover"] = beside
    consistent = sum(reading.consistent for reading in readings)
    attempts = sum(reading.attempts_count for reading in readings)
    answer.figures["readings_beside_a_mover"] = {
        "consistent_ratio": round(consistent / len(readings), 4),
        "attempts_mean_count": round(attempts / len(readings), 3),
    }
    _by_processes(answer, nvml, count)
    _above(answer, nvml, idle)
    name = f"list Compute{nvml.newest()}"
    answer.text = (
        f"{name}: p50 {idle[name]['p50_us']} us, p99 {idle[name]['p99_us']} us; beside a mover "
        f"{beside[name]['p50_us']} and {beside[name]['p99_us']} us; a reading of memacct "
        f"{idle['memacct read_device']['p50_us']} us"
    )
    return answer


def measure(call: Call, count: int) -> dict[str, float]:
    """Returns the distribution of a call's wall time; fewer calls if they are slow."""
    call()
    times_us = []
    end_ns = time.perf_counter_ns() + int(CALL_LIMIT_S * 1e9)
    for _ in range(count):
        begin_ns = time.perf_counter_ns()
        call()
        now_ns = time.perf_counter_ns()
        times_us.append((now_ns - begin_ns) / 1e3)
        if now_ns > end_ns:
            break
    return {**spread(times_us, "us"), "count": len(times_us)}


def _raw(nvml: Nvml) -> dict[str, Call]:
    """The driver's own calls, by ctypes (about a microsecond of its own each)."""
    memory, size = (ctypes.c_uint64 * 5)(), (ctypes.c_size_t * 2)()
    flags, active = ctypes.c_uint(), ctypes.c_int()
    library, device = nvml.library, nvml.device
    free, total = ctypes.byref(size), ctypes.byref(size, 8)

    def memory_v2() -> None:
        memory[0] = MEMORY_V2_TAG
        library.nvmlDeviceGetMemoryInfo_v2(device, memory)

    calls: dict[str, Call] = {
        "nvmlDeviceGetMemoryInfo": (lambda: library.nvmlDeviceGetMemoryInfo(device, memory))
    }
    if nvml.has("nvmlDeviceGetMemoryInfo_v2"):
        calls["nvmlDeviceGetMemoryInfo_v2"] = memory_v2
    for kind in KINDS:
        for suffix in SUFFIXES:
            if nvml.has(f"nvmlDeviceGet{kind}RunningProcesses{suffix}"):
                calls[f"list {kind}{suffix}"] = _list_call(nvml, kind, suffix)
    if nvml.has("nvmlDeviceGetRunningProcessDetailList"):
        calls["DetailList all"] = _detail_call(nvml)
    calls["cuMemGetInfo"] = lambda: cuda().cuMemGetInfo_v2(free, total)
    calls["cuDevicePrimaryCtxGetState"] = lambda: cuda().cuDevicePrimaryCtxGetState(
        0, ctypes.byref(flags), ctypes.byref(active)
    )
    return calls


def _list_call(nvml: Nvml, kind: str, suffix: str) -> Call:
    function = getattr(nvml.library, f"nvmlDeviceGet{kind}RunningProcesses{suffix}")
    count, rows = ctypes.c_uint(), (ctypes.c_ubyte * (1 << 14))()

    def call() -> None:
        count.value = 256
        function(nvml.device, ctypes.byref(count), rows)

    return call


def _detail_call(nvml: Nvml) -> Call:
    rows = (ctypes.c_ubyte * (1 << 14))()

    def call() -> None:
        given = DetailList(DETAIL_LIST_TAG, 3, 256, ctypes.addressof(rows))
        nvml.library.nvmlDeviceGetRunningProcessDetailList(nvml.device, ctypes.byref(given))

    return call


def _ours() -> dict[str, Call]:
    return {
        "memacct driver_state": _core.driver_state,
        "memacct read_device": lambda: _core.read_device(0),
        "memacct read_device with CUDA": lambda: _core.read_device(0, with_cuda=True),
        "memacct read_devices": _core.read_devices,
        "memacct snapshot": memacct.snapshot,
    }


def _by_processes(answer: Answer, nvml: Nvml, count: int) -> None:
    """What the list costs for each further process that it has to ask."""
    name = nvml.newest()
    figures = {}
    with contextlib.ExitStack() as processes:
        for added in range(1, CONTEXTS_COUNT):
            processes.enter_context(DeviceProcess(None)).run("context()")
            if added in (1, CONTEXTS_COUNT - 1):
                figures[f"{added + 1} processes"] = measure(
                    _list_call(nvml, "Compute", name), max(10, count // 4)
                )
    answer.figures["list_by_processes"] = figures


def _above(answer: Answer, nvml: Nvml, idle: dict[str, dict[str, float]]) -> None:
    """What of a reading is ours: without the two collects of lists and the device's memory."""
    lists = sum(
        idle[f"list {kind}{suffix}"]["p50_us"]
        for kind in KINDS
        for suffix in ("_v2", "_v3", "")
        if f"list {kind}{suffix}" in idle and suffix == nvml.newest(kind)
    )
    memory = idle.get("nvmlDeviceGetMemoryInfo_v2", idle["nvmlDeviceGetMemoryInfo"])["p50_us"]
    ours = idle["memacct read_device"]["p50_us"]
    answer.figures["calls_of_a_reading_us"] = round(2 * lists + memory, 2)
    answer.figures["reading_above_its_calls_us"] = round(ours - 2 * lists - memory, 2)
    answer.check(
        "our share of a reading in us (ctypes is slower than we are)",
        None,
        answer.figures["reading_above_its_calls_us"],
    )
    state = idle["memacct driver_state"]["p50_us"]
    answer.check("driver_state takes less than 5 us", state < 5, state)
