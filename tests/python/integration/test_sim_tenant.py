"""Tenants act on command and on conditions, and report what they did."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from memacct._units import GIB, MIB
from memacct.sim import SimulatedGpu, TenantError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = """
import ctypes, sys
from ctypes import byref, c_size_t, c_uint, c_ulonglong, c_void_p
cu, nvml = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnvidia-ml.so.1")
c, p, device = c_void_p(), c_ulonglong(), c_void_p()
free, total = c_size_t(), c_size_t()
cu.cuInit(0); cu.cuDevicePrimaryCtxRetain(byref(c), 0); cu.cuCtxSetCurrent(c)
nvml.nvmlInit_v2(); nvml.nvmlDeviceGetHandleByIndex_v2(0, byref(device))
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB") as machine:
        yield machine


class Other:
    """A process that executes one line at a time."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        self._process = gpu.popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self._process.pid
        self.do("pass")

    def do(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        assert self._process.stdout.readline() == "done\n"

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def other(gpu: SimulatedGpu) -> Iterator[Other]:
    process = Other(gpu)
    yield process
    process.close()


def test_a_command_is_done_when_it_returns(gpu: SimulatedGpu) -> None:
    with gpu.tenant() as tenant:
        before_ns = time.monotonic_ns()
        action = tenant.allocate("3GiB")
        assert before_ns < action.at_ns < time.monotonic_ns()
        assert (action.bytes, action.held_bytes, tenant.held_bytes) == (3 * GIB,) * 3
        device = gpu.status().devices[0]
        assert device.free_bytes == action.device_free_bytes == 29 * GIB - 400 * MIB
        assert tenant.free("1GiB").held_bytes == 2 * GIB
        assert tenant.free().held_bytes == 0
        with pytest.raises(TenantError, match="not possible"):
            tenant.free("1GiB")


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        ({"other_process_bytes": "2GiB"}, "cu.cuMemAlloc_v2(byref(p), c_size_t(2 << 30))"),
        ({"cuda_memory_queries": 1}, "cu.cuMemGetInfo_v2(byref(free), byref(total))"),
        ({"nvml_memory_queries": 1}, "nvml.nvmlDeviceGetMemoryInfo(device, (c_ulonglong * 3)())"),
        (
            {"nvml_process_queries": 1},
            "nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, byref(c_uint(0)), None)",
        ),
        ({"launches": 1}, "cu.cuLaunchKernel(*[None] * 11)"),
    ],
)
def test_acts_when_another_process_gets_there(
    gpu: SimulatedGpu, other: Other, condition: dict[str, int | str], line: str
) -> None:
    with gpu.tenant("7GiB") as tenant:
        number = tenant.when(then="free", **condition)  # type: ignore[arg-type]
        with pytest.raises(TenantError, match="has not come true"):
            tenant.wait_action(number, timeout_s=0.05)
        assert gpu.status().devices[0].process_used_bytes(tenant.pid) == 7 * GIB + 400 * MIB
        other.do(line)
        action = tenant.wait_action(number)
        assert (action.action, action.bytes, action.held_bytes) == ("free", 7 * GIB, 0)
        assert gpu.status().devices[0].process_used_bytes(tenant.pid) == 400 * MIB
        assert tenant.poll_actions() == [action]


def test_a_condition_can_name_the_process(gpu: SimulatedGpu, other: Other) -> None:
    with gpu.tenant() as tenant, gpu.tenant("5GiB"):
        number = tenant.when(other_process_bytes="1GiB", pid=other.pid, then="allocate:3GiB")
        with pytest.raises(TenantError, match="has not come true"):
            tenant.wait_action(number, timeout_s=0.05)
        other.do("cu.cuMemAlloc_v2(byref(p), c_size_t(1 << 30))")
        assert tenant.wait_action(number).held_bytes == 3 * GIB


def test_all_conditions_must_hold_and_several_can_wait(
    gpu: SimulatedGpu, other: Other, tmp_path: Path
) -> None:
    marker = tmp_path / "a marker with spaces"
    with gpu.tenant("1GiB") as tenant:
        both = tenant.when(other_process_bytes="1GiB", file_exists=marker, then="free")
        first = tenant.when(other_process_bytes="1GiB", then="allocate:2GiB")
        other.do("cu.cuMemAlloc_v2(byref(p), c_size_t(1 << 30))")
        assert tenant.wait_action(first).held_bytes == 3 * GIB
        marker.touch()
        assert tenant.wait_action(both).bytes == 3 * GIB
        assert [action.condition for action in tenant.actions] == [first, both]


def test_an_action_that_is_not_possible_says_so(gpu: SimulatedGpu, tmp_path: Path) -> None:
    with gpu.tenant() as tenant:
        number = tenant.when(file_exists=tmp_path, then="allocate:40GiB")
        action = tenant.wait_action(number)
        assert (action.error, action.held_bytes) == ("out of memory", 0)


def test_bad_requests(gpu: SimulatedGpu) -> None:
    with gpu.tenant() as tenant:
        with pytest.raises(ValueError, match="then='explode'"):
            tenant.when(other_process_bytes=1, then="explode")
        with pytest.raises(ValueError, match="at least one condition"):
            tenant.when(then="free")
        with pytest.raises(ValueError, match="'7 apples'"):
            tenant.allocate("7 apples")


def test_it_ends_with_whoever_commands_it(gpu: SimulatedGpu) -> None:
    tenant = gpu.tenant("1GiB")
    tenant.kill()
    with pytest.raises(TenantError, match="has ended"):
        tenant.allocate("1GiB")
    tenant.close()
    assert gpu.status().devices[0].processes == ()
