"""Every call that memacct makes fails in turn: nothing crashes and no wrong number is told.

Each case is a fork of one process per function, since the simulated driver reads its faults
when it is first called. What a reading says is held to the truth of the simulated machine: a
field is right or unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct._units import MIB
from memacct.sim import Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
ALLOCATED_BYTES = 64 * MIB
OWN_BYTES = CONTEXT_BYTES + ALLOCATED_BYTES

NVML_FUNCTIONS = (
    "nvmlInitWithFlags",
    "nvmlInit*",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetHandleByPciBusId_v2",
    "nvmlDeviceGetHandleBy*",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetMemoryInfo*",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses_v2",
    "nvmlDeviceGetMPSComputeRunningProcesses_v2",
    "nvmlDevice*",
    "nvml*",
)
NVML_CODES = (*range(1, 31), 999)
# The calls that the test itself makes before the fault may begin.
CUDA_FUNCTIONS = {
    "cuDeviceGetCount": 0,
    "cuDeviceGet": 0,
    "cuDeviceGetUuid*": 0,
    "cuDeviceGetPCIBusId*": 0,
    "cuDeviceGetAttribute": 0,
    "cuDeviceGetName": 0,
    "cuCtxGetCurrent": 0,
    "cuCtxGetDevice": 0,
    "cuCtxPushCurrent_v2": 1,
    "cuCtxPopCurrent_v2": 1,
    "cuDevicePrimaryCtxGetState": 0,
    "cuDevicePrimaryCtxRetain": 2,
    "cuDevicePrimaryCtxRelease*": 1,
    "cuMemGetInfo_v2": 0,
    "cuMemAlloc_v2": 1,
    "cuMemFree_v2": 0,
    "cuThreadExchangeStreamCaptureMode": 0,
    "cuGetErrorName": 0,
}
CUDA_CODES = (1, 2, 3, 4, 34, 46, 100, 101, 201, 709, 800, 801, 803, 805, 999)

CASE = f"""
context(current=False)
allocate({ALLOCATED_BYTES})
result = {{
    "all": attempt(_core.read_devices, "all"),
    "auto": attempt(_core.read_devices),
    "one": attempt(_core.read_device, 0, with_cuda=True),
    "list": attempt(_core.list_devices),
    "state": _core.driver_state(),
    "identify": attempt(_core.identify, 0),
    "again": attempt(_core.read_device, 0),
    "notes": _core.driver_diagnosis()["notes"],
}}
_core.close_devices()
"""


@pytest.fixture(scope="module")
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(
        total_bytes="32GiB", reserved_bytes="500MiB", unattributed_bytes="6MiB"
    ) as machine:
        yield machine


@pytest.fixture(scope="module")
def truth(gpu: SimulatedGpu) -> Iterator[dict[str, int]]:
    """What every term is while a case's process holds its memory."""
    with gpu.tenant("3GiB"):
        device = gpu.status().devices[0]
        foreign = sum(process.process_used_bytes for process in device.processes)
        yield {
            "total_bytes": device.total_bytes,
            "free_bytes": device.free_bytes - OWN_BYTES,
            "device_used_bytes": foreign + OWN_BYTES + device.unattributed_bytes,
            "reserved_bytes": device.reserved_bytes,
            "own_bytes": OWN_BYTES,
            "tree_bytes": 0,
            "foreign_bytes": foreign,
            "unattributed_bytes": device.unattributed_bytes,
            "cuda_free_bytes": device.free_bytes - OWN_BYTES,
            "cuda_total_bytes": device.total_bytes,
        }


def assert_right_or_unknown(reading: dict[str, Any], truth: dict[str, int], case: str) -> None:
    wrong = {
        name: (reading[name], right)
        for name, right in truth.items()
        if reading[name] is not None and reading[name] != right
    }
    assert not wrong, f"{case}: {wrong}"
    low, high = reading["attribution"]["own_bounds_bytes"]
    assert low is None or low <= OWN_BYTES, case
    assert high is None or high >= OWN_BYTES, case
    if reading["own_bytes"] is None:
        assert reading["attribution"]["reason"], f"{case}: unknown without a reason"


def assert_sound(answer: dict[str, Any], truth: dict[str, int], case: str) -> None:
    assert "result" in answer, f"{case}: {answer}"
    result = answer["result"]
    for name in ("all", "auto", "one", "again"):
        readings = result[name]
        if isinstance(readings, dict) and "raised" in readings:
            assert readings["raised"] in ("SourceUnavailableError", "DriverError"), case
            assert readings["text"], case
            continue
        for reading in readings if isinstance(readings, list) else [readings]:
            assert_right_or_unknown(reading, truth, f"{case}: {name}")
    assert result["state"] == "initialised", case


def run_cases(process: DeviceProcess, rules: list[str], truth: dict[str, int]) -> None:
    for rule in rules:
        answer = process.run(f"result = in_fork({CASE!r}, faults={rule!r})")
        assert_sound(answer, truth, rule)


def held_bytes(gpu: SimulatedGpu) -> int:
    device = gpu.status().devices[0]
    return sum(process.process_used_bytes for process in device.processes)


@pytest.mark.parametrize("function", NVML_FUNCTIONS)
def test_nvml_call_fails(gpu: SimulatedGpu, truth: dict[str, int], function: str) -> None:
    rules = [f"{function}: error={code}" for code in NVML_CODES]
    # From the second or third call on: in the middle of a collect.
    rules += [f"{function}: error={code} after={n}" for code in (1, 3, 15, 999) for n in (1, 2)]
    with DeviceProcess(gpu) as process:
        run_cases(process, rules, truth)
    assert held_bytes(gpu) == truth["foreign_bytes"]


@pytest.mark.parametrize("function", CUDA_FUNCTIONS)
def test_driver_call_fails(gpu: SimulatedGpu, truth: dict[str, int], function: str) -> None:
    first = CUDA_FUNCTIONS[function]
    rules = [f"{function}: error={code} after={first}" for code in CUDA_CODES]
    # In a world of foreign numbers identify() allocates, so each of its calls fails too. One
    # that fails to free leaves its block, at most one, with the process.
    if function != "cuMemFree_v2":
        rules += [f"{rule}; pids: host" for rule in rules]
    with DeviceProcess(gpu) as process:
        run_cases(process, rules, truth)
    assert held_bytes(gpu) == truth["foreign_bytes"]


def test_a_failing_free_leaves_one_block_at_most(gpu: SimulatedGpu, truth: dict[str, int]) -> None:
    assert truth
    setup = CASE.split("result", maxsplit=1)[0]
    source = setup + "result = [reading(), attempt(_core.identify, 0), reading()]"
    with DeviceProcess(gpu) as process:
        answer = process.run(
            f"result = in_fork({source!r}, faults='cuMemFree_v2: error=1; pids: host')"
        )
    before, attribution, after = answer["result"]
    assert attribution["source"] == "none"
    assert "cuMemFree_v2 returned 1" in attribution["reason"]
    assert 0 < before["free_bytes"] - after["free_bytes"] <= 62 * MIB


@pytest.mark.parametrize("code", [1, 3, 999])
def test_all_nvml_but_init_fails(gpu: SimulatedGpu, truth: dict[str, int], code: int) -> None:
    """CUDA's numbers remain where a context is live; nothing else is known."""
    with DeviceProcess(gpu) as process:
        answer = process.run(f"result = in_fork({CASE!r}, faults='nvmlDevice*: error={code}')")
    assert_sound(answer, truth, str(code))
    reading = answer["result"]["one"]
    assert reading["source"] == "cuda"
    assert reading["free_bytes"] == truth["free_bytes"]
    assert reading["own_bytes"] is None


MISSING = [
    ("nvmlDeviceGetMemoryInfo_v2",),
    ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"),
    ("nvmlInitWithFlags",),
    ("nvmlInitWithFlags", "nvmlInit_v2", "nvmlInit"),
    ("nvmlDeviceGetComputeRunningProcesses_v2",),
    (
        "nvmlDeviceGetComputeRunningProcesses_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
    ),
    tuple(f"nvmlDeviceGetComputeRunningProcesses{v}" for v in ("", "_v2", "_v3")),
    tuple(f"nvmlDeviceGetGraphicsRunningProcesses{v}" for v in ("", "_v2", "_v3")),
    tuple(f"nvmlDeviceGetMPSComputeRunningProcesses{v}" for v in ("", "_v2", "_v3")),
    ("nvmlDeviceGetHandleByUUID",),
    ("nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetName"),
    ("nvmlErrorString", "nvmlDeviceGetIndex", "nvmlDeviceGetMigMode"),
    ("cuDeviceGetCount",),
    ("cuDeviceGetUuid_v2",),
    ("cuDeviceGetUuid_v2", "cuDeviceGetUuid"),
    ("cuDevicePrimaryCtxGetState",),
    ("cuCtxGetCurrent", "cuCtxGetDevice"),
    ("cuMemGetInfo_v2", "cuGetErrorName", "cuDeviceGetAttribute"),
]


@pytest.mark.parametrize("names", MISSING, ids=lambda names: names[0] + f"+{len(names) - 1}")
def test_symbols_are_missing(
    gpu: SimulatedGpu, truth: dict[str, int], names: tuple[str, ...]
) -> None:
    with DeviceProcess(gpu, faults=Faults(missing=names)) as process:
        assert_sound(process.run(f"result = in_fork({CASE!r})"), truth, str(names))
