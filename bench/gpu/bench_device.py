"""Cost of device readings: p50 and p99 of each, idle and beside a neighbour that allocates.

    python bench/gpu/bench_device.py [--json FILE] [--count N]

Needs a GPU with its driver, and memacct. On the simulated one (``memacct sim run -- ...``) the
figures are those of memacct's own share.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "python" / "helpers"))

from device_process import DeviceProcess, context

from memacct import SourceUnavailableError, _core

# Microseconds, at the median, on a real GPU beside nobody. None: no figure from one yet.
BUDGET_US: dict[str, float | None] = {
    "driver_state": 5.0,
    "read_devices, auto": None,
    "read_device": None,
}
NEIGHBOUR = """
import threading
context()
stop = threading.Event()
def move():
    call("cuInit", 0)
    while not stop.is_set():
        allocate(14 * 2**20)
        release()
mover = threading.Thread(target=move)
mover.start()
"""


def measure(function: Callable[[], Any], count: int) -> dict[str, float]:
    """Returns the distribution of one call's wall time, in microseconds."""
    times_ns = []
    for _ in range(count):
        begin_ns = time.perf_counter_ns()
        function()
        times_ns.append(time.perf_counter_ns() - begin_ns)
    times_ns.sort()
    return {
        "p50_us": times_ns[count // 2] / 1e3,
        "p99_us": times_ns[count * 99 // 100] / 1e3,
        "max_us": times_ns[-1] / 1e3,
    }


def raw_calls() -> dict[str, Callable[[], Any]]:
    """Returns NVML's own calls, without memacct: what a reading is made of."""
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    nvml.nvmlInit_v2()
    device, count = ctypes.c_void_p(), ctypes.c_uint()
    nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device))
    rows = (ctypes.c_ubyte * (1 << 16))()
    memory = (ctypes.c_uint64 * 5)()

    def list_call(symbol: str) -> Callable[[], Any]:
        function = getattr(nvml, symbol)

        def call() -> None:
            count.value = 1024
            function(device, ctypes.byref(count), rows)

        return call

    def memory_call() -> None:
        memory[0] = 0x02000028
        nvml.nvmlDeviceGetMemoryInfo_v2(device, memory)

    kinds = ("Compute", "Graphics", "MPSCompute")
    lists = {f"nvml {kind} list": f"nvmlDeviceGet{kind}RunningProcesses_v3" for kind in kinds}
    calls = {name: list_call(symbol) for name, symbol in lists.items() if hasattr(nvml, symbol)}
    return {"nvml memory": memory_call, **calls}


def run(count: int) -> dict[str, dict[str, float]]:
    """Returns all figures."""
    context()
    calls: dict[str, Callable[[], Any]] = {
        "driver_state": _core.driver_state,
        **raw_calls(),
        "read_device": lambda: _core.read_device(0),
        "read_device, with_cuda": lambda: _core.read_device(0, with_cuda=True),
        "read_devices, auto": _core.read_devices,
    }
    figures = {name: measure(call, count) for name, call in calls.items()}
    begin_ns = time.perf_counter_ns()
    _core.identify(0)
    figures["identify, once"] = {"p50_us": (time.perf_counter_ns() - begin_ns) / 1e3}
    with DeviceProcess(None) as neighbour:
        neighbour.run(NEIGHBOUR)
        for name in ("nvml memory", "nvml Compute list", "read_device"):
            if name in calls:
                figures[f"{name}, beside a neighbour"] = measure(calls[name], count)
        readings = [_core.read_device(0) for _ in range(count)]
        neighbour.run("stop.set(); mover.join()")
    figures["beside a neighbour"] = {
        "consistent_ratio": sum(reading.consistent for reading in readings) / count,
        "attempts_mean_count": sum(reading.attempts_count for reading in readings) / count,
    }
    return figures


def main() -> int:
    """Prints the figures; returns 1 if one is above its budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--count", type=int, default=1000, help="calls of each kind")
    options = parser.parse_args()
    try:
        devices = _core.list_devices()
    except SourceUnavailableError as error:
        print(f"no GPU here: {error}")
        return 0
    figures = run(options.count)
    diagnosis = _core.driver_diagnosis()["nvml"]
    print(f"{devices[0].name}, driver {diagnosis['driver_version']}, {options.count} calls each")
    over = []
    for name, figure in figures.items():
        budget_us = BUDGET_US.get(name)
        print(f"{name:32s}", "  ".join(f"{key} {value:10.2f}" for key, value in figure.items()))
        if budget_us is not None and figure["p50_us"] > budget_us:
            over.append(f"{name}: {figure['p50_us']:.2f} us is above {budget_us} us")
    if options.json:
        options.json.write_text(json.dumps({"device": devices[0].name, "figures": figures}))
    print(*over, sep="\n")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
