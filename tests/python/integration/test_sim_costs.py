"""The simulated GPU charges what it is told that libraries and kernels cost, when CUDA would."""

from __future__ import annotations

import json
import sys

import pytest

from memacct._errors import ConfigError
from memacct._units import MIB
from memacct.sim import Costs, SimulatedGpu

CONTEXT_BYTES = 401 * MIB

PROGRAM = """
import ctypes, json
from ctypes import byref, c_int, c_size_t, c_void_p
cu = ctypes.CDLL("libcuda.so.1")
context, second, free, total = c_void_p(), c_void_p(), c_size_t(), c_size_t()
found = []
def launch(kernel):
    none = c_void_p()
    return cu.cuLaunchKernel(c_void_p(kernel), 1, 1, 1, 1, 1, 1, 0, none, none, none)
def held():
    cu.cuMemGetInfo_v2(byref(free), byref(total))
    return total.value - free.value
assert cu.cuInit(0) == 0
assert cu.cuDevicePrimaryCtxRetain(byref(context), 0) == 0
assert cu.cuCtxSetCurrent(context) == 0
"""


def told(costs: Costs | None, script: str, **settings: object) -> list[int]:
    with SimulatedGpu(
        total_bytes="1GiB",
        context_bytes=CONTEXT_BYTES,
        costs=costs,
        **settings,  # type: ignore[arg-type]
    ) as gpu:
        done = gpu.run(
            [sys.executable, "-c", PROGRAM + script + "\nprint(json.dumps(found))"],
            text=True,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        # A process that has ended holds nothing, its kernels included.
        assert gpu.status().devices[0].free_bytes == 1024 * MIB
    return list(json.loads(done.stdout))


def test_a_context_grows_at_the_first_launch_of_each_kernel() -> None:
    found = told(
        Costs(kernel_bytes="3MiB"),
        """
for kernel in (0x10, 0x10, 0x20, 0x10, 0x30):
    assert launch(kernel) == 0
    found.append(held())
""",
    )
    assert found == [CONTEXT_BYTES + kernels * 3 * MIB for kernels in (1, 1, 2, 2, 3)]


def test_the_growth_has_a_limit_to_the_byte() -> None:
    found = told(
        Costs(kernel_bytes="3MiB", kernels_limit_bytes=7 * MIB + 5),
        """
for kernel in range(1, 9):
    assert launch(kernel) == 0
    found.append(held())
""",
    )
    grown = [held - CONTEXT_BYTES for held in found]
    assert grown == [3 * MIB, 6 * MIB, *[7 * MIB + 5] * 6]


def test_each_context_loads_for_itself() -> None:
    found = told(
        Costs(kernel_bytes="3MiB"),
        """
assert launch(0x10) == 0
assert cu.cuCtxCreate_v2(byref(second), 0, 0) == 0
assert launch(0x10) == 0
found.append(held())
assert cu.cuCtxDestroy_v2(second) == 0
assert cu.cuCtxSetCurrent(context) == 0
assert launch(0x10) == 0
found.append(held())
""",
    )
    assert found == [2 * (CONTEXT_BYTES + 3 * MIB), CONTEXT_BYTES + 3 * MIB]


def test_a_reset_context_loads_again() -> None:
    found = told(
        Costs(kernel_bytes="3MiB"),
        """
assert launch(0x10) == 0
assert cu.cuDevicePrimaryCtxReset_v2(0) == 0
assert cu.cuDevicePrimaryCtxRetain(byref(context), 0) == 0
assert cu.cuCtxSetCurrent(context) == 0
found.append(held())
assert launch(0x10) == 0
found.append(held())
""",
    )
    assert found == [CONTEXT_BYTES, CONTEXT_BYTES + 3 * MIB]


def test_a_kernel_that_does_not_fit_is_out_of_memory_and_takes_nothing() -> None:
    found = told(
        Costs(kernel_bytes="700MiB"),
        """
found.append(launch(0x10))
found.append(held())
""",
    )
    out_of_memory = 2
    assert found == [out_of_memory, CONTEXT_BYTES]


def test_kernels_are_free_unless_told() -> None:
    assert told(None, "assert launch(0x10) == 0\nfound.append(held())") == [CONTEXT_BYTES]


def test_a_cost_that_is_no_size_is_told() -> None:
    with pytest.raises((ConfigError, ValueError), match="3 apples"):
        SimulatedGpu(costs=Costs(kernel_bytes="3 apples"))
