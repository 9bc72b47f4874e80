"""The simulated driver is honest where memacct relies on it (no implicit context, fork)."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memacct._units import GIB, MIB
from memacct.sim import CallFault, Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

PRELUDE = """
import ctypes, json, os, sys
from ctypes import byref, c_int, c_uint, c_size_t, c_ulonglong, c_void_p
cu = ctypes.CDLL("libcuda.so.1")
n, active, flags = c_int(-1), c_int(-1), c_uint()
free, total = c_size_t(), c_size_t()
context, pointer = c_void_p(), c_ulonglong()
def own(pid=None):
    return None
out = []
def call(name, *args):
    out.append(getattr(cu, name)(*args))
"""


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", count=2, context_bytes="400MiB") as machine:
        yield machine


def child(gpu: SimulatedGpu, script: str, **options: Any) -> Any:
    done = gpu.run(
        [sys.executable, "-c", PRELUDE + script + "\nprint(json.dumps(out))"],
        text=True,
        capture_output=True,
        timeout=60,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_works_before_init(gpu: SimulatedGpu) -> None:
    assert child(
        gpu,
        """
call("cuDeviceGetCount", byref(n))
call("cuCtxGetCurrent", byref(context))
call("cuDevicePrimaryCtxGetState", 0, byref(flags), byref(active))
call("cuMemGetInfo_v2", byref(free), byref(total))
call("cuDriverGetVersion", byref(n))
call("cuStreamQuery", None)
call("cuInit", 0)
call("cuDeviceGetCount", byref(n))
out.append(n.value)
""",
    ) == [3, 3, 3, 3, 0, 3, 0, 0, 2]


def test_asking_makes_no_context(gpu: SimulatedGpu) -> None:
    before = gpu.status()
    answers = child(
        gpu,
        """
call("cuInit", 0)
context.value = 1
call("cuCtxGetCurrent", byref(context))
out.append(context.value)
call("cuMemGetInfo_v2", byref(free), byref(total))
call("cuMemAlloc_v2", byref(pointer), c_size_t(1 << 20))
call("cuDevicePrimaryCtxGetState", 0, byref(flags), byref(active))
out.append(active.value)
""",
    )
    assert answers == [0, 0, None, 201, 201, 0, 0]
    assert gpu.status() == before


def test_primary_context_is_counted_and_gives_all_back(gpu: SimulatedGpu) -> None:
    answers = child(
        gpu,
        """
def used():
    cu.cuMemGetInfo_v2(byref(free), byref(total))
    out.append(total.value - free.value)
call("cuInit", 0)
call("cuDevicePrimaryCtxRetain", byref(context), 0)
call("cuDevicePrimaryCtxRetain", byref(context), 0)
call("cuCtxPushCurrent_v2", context)
used()
call("cuMemAlloc_v2", byref(pointer), c_size_t(5 << 20))
used()
call("cuDevicePrimaryCtxRelease_v2", 0)
used()
call("cuDevicePrimaryCtxRelease_v2", 0)
call("cuMemGetInfo_v2", byref(free), byref(total))
call("cuDevicePrimaryCtxGetState", 0, byref(flags), byref(active))
out.append(active.value)
other = c_void_p()
call("cuCtxCreate_v2", byref(other), 0, 0)
used()
call("cuCtxDestroy_v2", other)
call("cuDevicePrimaryCtxRelease_v2", 0)
""",
    )
    context, block = 400 * MIB, 6 * MIB  # 5 MiB are three pages of 2 MiB
    assert answers == [
        *(0, 0, 0, 0, context),
        *(0, context + block),
        *(0, context + block),
        *(0, 709, 0, 0),
        *(0, context, 0, 201),
    ]


def test_each_thread_has_its_own_current_context(gpu: SimulatedGpu) -> None:
    assert child(
        gpu,
        """
import threading
call("cuInit", 0)
call("cuDevicePrimaryCtxRetain", byref(context), 1)
call("cuCtxSetCurrent", context)
call("cuCtxGetDevice", byref(n)); out.append(n.value)
def other():
    here = c_void_p(1)
    call("cuCtxGetCurrent", byref(here)); out.append(here.value)
    call("cuCtxGetDevice", byref(n))
t = threading.Thread(target=other); t.start(); t.join()
""",
    ) == [0, 0, 0, 0, 1, 0, None, 201]


def test_a_forked_child_has_no_driver_and_holds_nothing(gpu: SimulatedGpu) -> None:
    assert child(
        gpu,
        """
import subprocess
call("cuInit", 0)
call("cuDevicePrimaryCtxRetain", byref(context), 0)
call("cuCtxSetCurrent", context)
call("cuMemAlloc_v2", byref(pointer), c_size_t(1 << 30))
r, w = os.pipe()
if os.fork() == 0:
    out.clear()
    for name, args in (("cuInit", (0,)), ("cuDeviceGetCount", (byref(n),)),
                       ("cuMemGetInfo_v2", (byref(free), byref(total))),
                       ("cuMemFree_v2", (pointer,))):
        call(name, *args)
    os.write(w, json.dumps(out).encode())
    os._exit(0)
os.wait()
out.append(json.loads(os.read(r, 1000)))
call("cuMemGetInfo_v2", byref(free), byref(total))
out.append((total.value - free.value) >> 20)
""",
    ) == [0, 0, 0, 0, [3, 3, 3, 3], 0, 400 + 1024]


def test_a_fork_before_init_is_harmless(gpu: SimulatedGpu) -> None:
    assert child(
        gpu,
        """
r, w = os.pipe()
if os.fork() == 0:
    os.write(w, str(cu.cuInit(0)).encode())
    os._exit(0)
os.wait()
out.append(int(os.read(r, 10)))
""",
    ) == [0]


def test_get_proc_address_gives_the_form_of_the_version(gpu: SimulatedGpu) -> None:
    assert child(
        gpu,
        """
def find(name, version):
    found, result = c_void_p(), c_int()
    code = cu.cuGetProcAddress_v2(name, byref(found), version, c_ulonglong(0), byref(result))
    return found.value, code, result.value
def address(name):
    return ctypes.cast(getattr(cu, name), c_void_p).value
out.append(find(b"cuMemGetInfo", 12000)[0] == address("cuMemGetInfo_v2"))
out.append(find(b"cuMemGetInfo", 2000)[0] == address("cuMemGetInfo"))
out.append(find(b"cuEventElapsedTime", 12000)[0] == address("cuEventElapsedTime"))
out.append(find(b"cuEventElapsedTime", 13000)[0] == address("cuEventElapsedTime_v2"))
out.append(find(b"cuNoSuchFunction", 13000))
""",
    ) == [True, True, True, True, [None, 500, 1]]


def test_devices_follow_cuda_visible_devices(gpu: SimulatedGpu) -> None:
    script = """
call("cuInit", 0)
cu.cuDeviceGetCount(byref(n)); out.append(n.value)
uuid = (ctypes.c_ubyte * 16)()
call("cuDeviceGetUuid_v2", uuid, 0)
out.append(uuid[15])
text = ctypes.create_string_buffer(64)
call("cuDeviceGetPCIBusId", text, 64, 0)
out.append(text.value.decode())
"""
    for visible, answers in (
        (None, [0, 2, 0, 0, 0, "0000:10:00.0"]),
        ("1", [0, 1, 0, 1, 0, "0000:11:00.0"]),
        ("1,0", [0, 2, 0, 1, 0, "0000:11:00.0"]),
        ("GPU-516dcda0-0000-4000-8000-516dcda00001", [0, 1, 0, 1, 0, "0000:11:00.0"]),
    ):
        env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        assert child(gpu, script, env=env) == answers, visible
    assert child(gpu, 'call("cuInit", 0)', env={"CUDA_VISIBLE_DEVICES": ""}) == [100]


def test_totals_and_integrated_devices() -> None:
    script = """
call("cuInit", 0)
call("cuDeviceGetAttribute", byref(n), 18, 0)
out.append(n.value)
call("cuDeviceTotalMem_v2", byref(total), 0)
out.append(total.value)
"""
    with SimulatedGpu(total_bytes=32 * GIB, cuda_total_bytes=31 * GIB, integrated=True) as gpu:
        assert child(gpu, script) == [0, 0, 1, 0, 31 * GIB]


@pytest.mark.parametrize("code", [1, 2, 3, 46, 100, 201, 801, 999])
def test_any_driver_function_can_fail_after_some_calls(gpu: SimulatedGpu, code: int) -> None:
    faults = Faults(
        calls=[CallFault(function="cuMemGetInfo_v2", error=code, after_count=2, for_count=1)]
    )
    script = """
cu.cuInit(0)
cu.cuDevicePrimaryCtxRetain(byref(context), 0)
cu.cuCtxSetCurrent(context)
for _ in range(4):
    call("cuMemGetInfo_v2", byref(free), byref(total))
"""
    assert child(gpu, script, faults=faults) == [0, 0, code, 0]
