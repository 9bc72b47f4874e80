"""What sampling the devices at 100 Hz costs the work beside it, in this process and another."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from device_process import DeviceProcess, call, context

from memacct import _core
from memacct._units import MIB

from .answer import Answer, spread

PERIOD_S = 0.01
FILLED_BYTES = 64 * MIB
NOTICEABLE_RATIO = 1.25
OTHER = """
import threading
from questions.sampler import sampling
context()
beside = sampling()
counts = beside.__enter__()
"""
OTHER_END = "beside.__exit__(None, None, None); result = counts"


def ask(short: bool) -> Answer:
    answer = Answer()
    duration_s = 0.15 if short else 4.0
    context()
    work = _work()
    work()
    figures: dict[str, Any] = {"alone": _measure(work, duration_s)}
    with sampling() as counts:
        figures["sampled by itself"] = _measure(work, duration_s)
    figures["sampled by itself"]["sampler"] = counts
    with DeviceProcess(None) as other:
        other.run(OTHER)
        figures["sampled by another"] = _measure(work, duration_s)
        figures["sampled by another"]["sampler"] = other.run(OTHER_END)
    figures["alone again"] = _measure(work, duration_s)
    answer.figures = figures
    base = min(figures["alone"]["p50_us"], figures["alone again"]["p50_us"])
    for name in ("sampled by itself", "sampled by another"):
        figures[name]["p50_ratio"] = round(figures[name]["p50_us"] / base, 3)
    ratio = figures["sampled by another"]["p50_ratio"]
    answer.check(
        "sampled by another process, the median of work grows by less than a quarter",
        ratio < NOTICEABLE_RATIO,
        ratio,
    )
    answer.text = "; ".join(
        f"{name}: p50 {row['p50_us']}, p99 {row['p99_us']} us" for name, row in figures.items()
    )
    return answer


def _work() -> Callable[[], None]:
    """An allocation, a fill and its end: what meets the driver's locks, and the device."""
    pointer, filled = ctypes.c_uint64(), ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(filled), ctypes.c_size_t(FILLED_BYTES))

    def work() -> None:
        call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(14 * MIB))
        call("cuMemsetD8_v2", filled, ctypes.c_ubyte(0), ctypes.c_size_t(FILLED_BYTES))
        call("cuCtxSynchronize")
        call("cuMemFree_v2", pointer)

    return work


def _measure(work: Callable[[], None], duration_s: float) -> dict[str, Any]:
    times_us = []
    end_ns = time.perf_counter_ns() + int(duration_s * 1e9)
    while (begin_ns := time.perf_counter_ns()) < end_ns:
        work()
        times_us.append((time.perf_counter_ns() - begin_ns) / 1e3)
    return {**spread(times_us, "us"), "count": len(times_us)}


@contextlib.contextmanager
def sampling() -> Iterator[dict[str, int]]:
    """Reads the devices at 100 Hz meanwhile; yields counts of samples and of missed deadlines."""
    stop, counts = threading.Event(), {"samples_count": 0, "missed_count": 0}

    def run() -> None:
        deadline_s = time.monotonic()
        while not stop.is_set():
            _core.read_devices()
            counts["samples_count"] += 1
            deadline_s += PERIOD_S
            while deadline_s < time.monotonic():
                deadline_s += PERIOD_S
                counts["missed_count"] += 1
            stop.wait(deadline_s - time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield counts
    finally:
        stop.set()
        thread.join()
