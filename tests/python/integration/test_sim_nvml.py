"""The simulated NVML: its lifetime, memory, the lists and their bytes on the wire."""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memacct._units import GIB, MIB
from memacct.sim import CallFault, Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

PRELUDE = """
import ctypes, json, os, sys
from ctypes import byref, c_int, c_uint, c_ulonglong, c_void_p
nvml = ctypes.CDLL("libnvidia-ml.so.1")
device, count = c_void_p(), c_uint()
out = []
def call(name, *args):
    out.append(getattr(nvml, name)(*args))
def begin(index=0):
    assert nvml.nvmlInit_v2() == 0
    assert nvml.nvmlDeviceGetHandleByIndex_v2(index, byref(device)) == 0
def listed(name, room=8, stride=32):
    "The call's code, its count, and the buffer as it was written (0xAA where it was not)."
    buffer = (ctypes.c_ubyte * (room * stride))(*([0xAA] * room * stride))
    n = c_uint(room)
    code = getattr(nvml, name)(device, byref(n), buffer)
    return [code, n.value, bytes(buffer).hex()]
def hold(size):
    cu = ctypes.CDLL("libcuda.so.1")
    c, p = c_void_p(), c_ulonglong()
    assert cu.cuInit(0) == 0
    assert cu.cuDevicePrimaryCtxRetain(byref(c), 0) == 0
    assert cu.cuCtxSetCurrent(c) == 0
    assert cu.cuMemAlloc_v2(byref(p), ctypes.c_size_t(size)) == 0
"""
LISTS = [
    f"nvmlDeviceGet{kind}RunningProcesses{version}"
    for kind in ("Compute", "Graphics", "MPSCompute")
    for version in ("", "_v2", "_v3")
]
UNTOUCHED = "aa"
NOT_AVAILABLE = 2**64 - 1


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(
        total_bytes="32GiB", count=2, reserved_bytes="500MiB", unattributed_bytes="6MiB"
    ) as machine:
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


def records(listed: tuple[int, int, str], stride: int) -> list[tuple[int, int]]:
    code, count, buffer = listed
    assert code == 0
    image = bytes.fromhex(buffer)
    assert set(image[count * stride :]) <= {0xAA}, "nothing is written behind the records"
    rows = (image[i * stride : (i + 1) * stride] for i in range(count))
    return [struct.unpack_from("<I4xQ", row) for row in rows]


def test_nothing_works_before_init_or_after_the_last_shutdown(gpu: SimulatedGpu) -> None:
    script = """
call("nvmlDeviceGetCount_v2", byref(count))
call("nvmlDeviceGetFanSpeed", None, None)
call("nvmlInit_v2"); call("nvmlInitWithFlags", 0)
call("nvmlShutdown")
call("nvmlDeviceGetCount_v2", byref(count)); out.append(count.value)
call("nvmlDeviceGetFanSpeed", None, None)
call("nvmlShutdown"); call("nvmlShutdown")
call("nvmlDeviceGetCount_v2", byref(count))
"""
    assert child(gpu, script) == [1, 1, 0, 0, 0, 0, 2, 3, 0, 1, 1]


def test_a_forked_child_must_initialise_again(gpu: SimulatedGpu) -> None:
    script = """
begin()
r, w = os.pipe()
if os.fork() == 0:
    call("nvmlDeviceGetCount_v2", byref(count)); call("nvmlInit_v2")
    call("nvmlDeviceGetCount_v2", byref(count))
    os.write(w, json.dumps(out).encode()); os._exit(0)
os.wait()
out += json.loads(os.read(r, 100))
call("nvmlDeviceGetCount_v2", byref(count))
"""
    assert child(gpu, script) == [1, 0, 0, 0]


def test_memory_of_both_versions(gpu: SimulatedGpu) -> None:
    script = """
begin()
v1 = (c_ulonglong * 3)()
call("nvmlDeviceGetMemoryInfo", device, v1); out.append(list(v1))
v2 = (c_ulonglong * 5)(0x02000028)
call("nvmlDeviceGetMemoryInfo_v2", device, v2); out.append(list(v2)[1:])
for tag in (0, 2, 0x01000028):
    call("nvmlDeviceGetMemoryInfo_v2", device, (c_ulonglong * 5)(tag))
"""
    with gpu.tenant("7GiB", context_bytes=0):
        total, reserved, used = 32 * GIB, 500 * MIB, 7 * GIB + 6 * MIB
        free = total - reserved - used
        assert child(gpu, script) == [
            *(0, [total, free, reserved + used]),
            *(0, [total, reserved, free, used]),
            *(25, 25, 25),
        ]


def test_names_and_handles(gpu: SimulatedGpu) -> None:
    script = """
begin(1)
text = ctypes.create_string_buffer(96)
call("nvmlDeviceGetUUID", device, text, 96); out.append(text.value.decode())
other = c_void_p()
call("nvmlDeviceGetHandleByUUID", text, byref(other)); out.append(other.value == device.value)
call("nvmlDeviceGetHandleByUUID", text.value[:12], byref(other))
call("nvmlDeviceGetHandleByPciBusId_v2", b"00000000:11:00.0", byref(other))
out.append(other.value == device.value)
call("nvmlDeviceGetUUID", device, text, 8)
call("nvmlDeviceGetMigMode", device, byref(count), byref(count))
call("nvmlDeviceGetName", device, text, 96); out.append(text.value.decode())
call("nvmlDeviceGetHandleByIndex_v2", 2, byref(other))
"""
    uuid = "GPU-516dcda0-0000-4000-8000-516dcda00001"
    name = "NVIDIA H100 80GB HBM3"
    assert child(gpu, script) == [0, uuid, 0, True, 6, 0, True, 7, 3, 0, name, 2]


def test_lists_follow_the_growth_protocol(gpu: SimulatedGpu) -> None:
    script = f"""
begin()
for name in {LISTS!r}:
    n = c_uint(0)
    code = getattr(nvml, name)(device, byref(n), None)
    out.append([code, n.value])
n = c_uint(1); buffer = (ctypes.c_ubyte * 64)()
call("nvmlDeviceGetComputeRunningProcesses_v3", device, byref(n), buffer)
out.append(n.value); out.append(any(buffer))
"""
    with gpu.tenant(), gpu.tenant():
        compute, none = [[7, 2]] * 3, [[0, 0]] * 6
        assert child(gpu, script) == [*compute, *none, 7, 2, False]


@pytest.mark.parametrize("size_bytes", [16, 24, 32])
@pytest.mark.parametrize(("version", "name"), [(1, ""), (2, "_v2"), (3, "_v3")])
def test_records_of_every_size(gpu: SimulatedGpu, version: int, name: str, size_bytes: int) -> None:
    function = f"nvmlDeviceGetComputeRunningProcesses{name}"
    with gpu.tenant("3GiB", context_bytes=0) as one, gpu.tenant("5GiB", context_bytes=0) as two:
        faults = Faults(record_bytes={version: size_bytes})
        (answer,) = child(gpu, f"begin(); out.append(listed({function!r}))", faults=faults)
        assert dict(records(answer, size_bytes)) == {one.pid: 3 * GIB, two.pid: 5 * GIB}
        image = bytes.fromhex(answer[2])
        if size_bytes >= 24:
            assert image[16:24] == b"\xff" * 8  # no GPU instance, no compute instance
        if size_bytes == 32:
            assert image[24:32] == b"\0" * 8  # no protected memory


def test_sizes_without_a_fault(gpu: SimulatedGpu) -> None:
    script = "begin()\n" + "".join(f"out.append(listed({name!r}))\n" for name in LISTS[:3])
    with gpu.tenant("3GiB", context_bytes=0) as tenant:
        for answer, stride in zip(child(gpu, script), (16, 24, 24), strict=True):
            assert records(answer, stride) == [(tenant.pid, 3 * GIB)]


def test_detail_list(gpu: SimulatedGpu) -> None:
    script = """
begin()
class Details(ctypes.Structure):
    _fields_ = [("version", c_uint), ("mode", c_uint), ("count", c_uint), ("rows", c_void_p)]
rows = (ctypes.c_ubyte * 128)(*([0xAA] * 128))
for mode, tag in ((0, 0x01000018), (1, 0x01000018), (3, 0x01000018), (0, 1), (9, 0x01000018)):
    details = Details(tag, mode, 4, ctypes.cast(rows, c_void_p))
    call("nvmlDeviceGetRunningProcessDetailList", device, byref(details))
    out.append(details.count)
out.append(bytes(rows).hex())
"""
    with gpu.tenant("3GiB", context_bytes=0) as tenant:
        *answers, image = child(gpu, script)
        assert answers == [0, 1, 0, 0, 0, 1, 25, 4, 2, 4]
        assert records((0, 1, image), 32) == [(tenant.pid, 3 * GIB)]


def own_and_others(
    gpu: SimulatedGpu, faults: Faults | str | None
) -> tuple[int, list[tuple[int, int]]]:
    """The child's own pid, and what it sees listed while it holds 1 GiB."""
    script = """
begin(); hold(1 << 30)
out.append(os.getpid()); out.append(listed("nvmlDeviceGetComputeRunningProcesses_v3"))
"""
    pid, answer = child(gpu, script, faults=faults)
    return pid, records(answer, 24)


CONTEXT_BYTES = 400 * MIB


def test_own_pids(gpu: SimulatedGpu) -> None:
    with gpu.tenant("3GiB", context_bytes=0) as tenant:
        pid, rows = own_and_others(gpu, None)
        assert dict(rows) == {pid: GIB + CONTEXT_BYTES, tenant.pid: 3 * GIB}


def test_host_pids_are_stable_and_nobodys_own(gpu: SimulatedGpu) -> None:
    faults = Faults(pids="host")
    with gpu.tenant("3GiB", context_bytes=0) as one, gpu.tenant("5GiB", context_bytes=0) as two:
        pid, rows = own_and_others(gpu, faults)
        by_bytes = {size: listed for listed, size in rows}
        assert set(by_bytes) == {GIB + CONTEXT_BYTES, 3 * GIB, 5 * GIB}
        assert not set(by_bytes.values()) & {pid, one.pid, two.pid}
        assert all(1 <= listed <= 4194304 for listed in by_bytes.values())
        _, again = own_and_others(gpu, faults)
        seen_by_other = {size: listed for listed, size in again}
        assert seen_by_other[3 * GIB] == by_bytes[3 * GIB]
        assert seen_by_other[GIB + CONTEXT_BYTES] != by_bytes[GIB + CONTEXT_BYTES]


def test_hidden_pids_show_the_own_container_alone(gpu: SimulatedGpu) -> None:
    script = """
import subprocess
begin(); hold(1 << 30)
if len(sys.argv) == 1:
    other = subprocess.Popen([sys.executable, "-c", PROGRAM, "child"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    other.stdout.readline()
    out += [os.getpid(), other.pid, listed("nvmlDeviceGetComputeRunningProcesses_v3")]
    other.communicate()
else:
    print("holding", flush=True); sys.stdin.read()
"""
    program = PRELUDE + script
    with gpu.tenant("3GiB"):
        pid, other, answer = child(gpu, f"PROGRAM = {program!r}\n{script}", faults="pids: hidden")
        assert sorted(pid for pid, _ in records(answer, 24)) == sorted((pid, other))


@pytest.mark.parametrize(("value", "said"), [(None, NOT_AVAILABLE), (0, 0), (4096, 4096)])
def test_what_a_record_says_instead_of_its_bytes(
    gpu: SimulatedGpu, value: int | None, said: int
) -> None:
    with gpu.tenant("3GiB", context_bytes=0) as tenant:
        own, truth = GIB + CONTEXT_BYTES, 3 * GIB
        pid, rows = own_and_others(gpu, Faults(pid_bytes={"self": value}))
        assert dict(rows) == {pid: said, tenant.pid: truth}
        pid, rows = own_and_others(gpu, Faults(pid_bytes={tenant.pid: value}))
        assert dict(rows) == {pid: own, tenant.pid: said}
        pid, rows = own_and_others(gpu, Faults(pid_bytes={"all": value}))
        assert dict(rows) == {pid: said, tenant.pid: said}


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a PID namespace, which needs root")
def test_a_process_in_a_pid_namespace_of_its_own(gpu: SimulatedGpu) -> None:
    """Listed under the pid that the asking process sees, as the driver does (pid_vnr)."""
    script = """
CLONE_NEWPID = 0x20000000
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(CLONE_NEWPID) != 0:
    out.append("no namespace")
else:
    r, w = os.pipe(); r2, w2 = os.pipe()
    inner = os.fork()
    if inner == 0:
        begin(); hold(1 << 30)
        answer = [os.getpid(), listed("nvmlDeviceGetComputeRunningProcesses_v3")]
        os.write(w, json.dumps(answer).encode()); os.read(r2, 1); os._exit(0)
    out.append(json.loads(os.read(r, 65536)))
    begin(); out += [inner, listed("nvmlDeviceGetComputeRunningProcesses_v3")]
    os.write(w2, b"x"); os.wait()
"""
    with gpu.tenant("3GiB", context_bytes=0) as tenant:
        answers = child(gpu, script)
        if answers == ["no namespace"]:
            pytest.skip("PID namespaces are not allowed here")
        (inside_pid, inside), inner, outside = answers
        assert inside_pid == 1
        assert records(inside, 24) == [(1, GIB + CONTEXT_BYTES)]  # the tenant is not visible
        assert dict(records(outside, 24)) == {tenant.pid: 3 * GIB, inner: GIB + CONTEXT_BYTES}


@pytest.mark.parametrize("code", [*range(1, 31), 999])
def test_any_function_can_fail_with_any_code(gpu: SimulatedGpu, code: int) -> None:
    functions = ("nvmlInit_v2", "nvmlDeviceGetFanSpeed", "nvmlDeviceGetMemoryInfo_v2")
    faults = Faults(calls=[CallFault(function=name, error=code) for name in functions])
    script = f"""
nvml.nvmlInit_v2(); nvml.nvmlInitWithFlags(0)
nvml.nvmlDeviceGetHandleByIndex_v2(0, byref(device))
for name in {functions!r}: call(name, device, (c_ulonglong * 5)(0x02000028))
call("nvmlDeviceGetMemoryInfo", device, (c_ulonglong * 3)())
"""
    assert child(gpu, script, faults=faults) == [code, code, code, 0]


def test_a_pattern_fails_all_that_it_matches(gpu: SimulatedGpu) -> None:
    script = 'begin(); [call("nvmlDeviceGetCount_v2", byref(count)) for _ in range(5)]'
    faults = "nvmlDeviceGetC*: error=15 after=2 for=2"
    assert child(gpu, script, faults=faults) == [0, 0, 15, 15, 0]


def test_latency_is_added(gpu: SimulatedGpu) -> None:
    script = """
import time
begin(); started = time.monotonic()
call("nvmlDeviceGetCount_v2", byref(count))
out.append(time.monotonic() - started)
"""
    faults = Faults(calls=[CallFault(function="nvmlDeviceGetCount_v2", latency_us=50_000)])
    code, took_s = child(gpu, script, faults=faults)
    assert code == 0
    assert took_s >= 0.05


def test_another_process_changes_inside_a_call(gpu: SimulatedGpu) -> None:
    """A reading between two lists that differ: the race that a double collect must see.

    caller:  list            memory (the change happens here)   list
    tenant:       3 GiB                        5 GiB
    """
    script = """
begin()
first = listed("nvmlDeviceGetComputeRunningProcesses_v3")
v1 = (c_ulonglong * 3)(); nvml.nvmlDeviceGetMemoryInfo(device, v1)
out += [first, v1[2], listed("nvmlDeviceGetComputeRunningProcesses_v3")]
nvml.nvmlDeviceGetMemoryInfo(device, v1); out.append(v1[2])
"""
    change = CallFault(function="nvmlDeviceGetMemoryInfo", charge_bytes="+2GiB", for_count=1)
    fixed = 506 * MIB
    with gpu.tenant("3GiB", context_bytes=0) as tenant:
        before, used_bytes, after, again_bytes = child(gpu, script, faults=Faults(calls=[change]))
        assert records(before, 24) == [(tenant.pid, 3 * GIB)]
        assert used_bytes == again_bytes == 5 * GIB + fixed
        assert records(after, 24) == [(tenant.pid, 5 * GIB)]
    # With nobody to change, the bytes are held by nobody.
    before, used_bytes, after, _ = child(gpu, script, faults=Faults(calls=[change]))
    assert (before[1], used_bytes, after[1]) == (0, 2 * GIB + fixed, 0)
    assert gpu.status().devices[0].unattributed_bytes == 2 * GIB + 6 * MIB


def test_missing_symbols(gpu: SimulatedGpu) -> None:
    gone = (
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "cuMemGetInfo_v2",
    )
    script = f"""
cu = ctypes.CDLL("libcuda.so.1")
found, result = c_void_p(), c_int()
out += [hasattr(nvml, n) or hasattr(cu, n) for n in {gone!r}]
out += [hasattr(nvml, "nvmlDeviceGetMemoryInfo"), hasattr(cu, "cuMemAlloc_v2")]
out.append(cu.cuGetProcAddress_v2(
    b"cuMemGetInfo", byref(found), 12000, c_ulonglong(0), byref(result)))
begin(); hold(1 << 30)
out += [listed("nvmlDeviceGetComputeRunningProcesses_v2")[1]]
"""
    assert child(gpu, script, faults=Faults(missing=gone)) == [
        *(False, False, False),
        *(True, True, 500, 1),
    ]
    assert child(gpu, script) == [True, True, True, True, True, 0, 1]
    with pytest.raises(ValueError, match="nvmlNoSuch"):
        gpu.environ(faults=Faults(missing=["nvmlNoSuch"]))


def test_integrated_devices_have_no_totals() -> None:
    with SimulatedGpu(integrated=True) as gpu:
        script = """
begin()
call("nvmlDeviceGetMemoryInfo", device, (c_ulonglong * 3)())
call("nvmlDeviceGetMemoryInfo_v2", device, (c_ulonglong * 5)(0x02000028))
hold(1 << 30); out.append(listed("nvmlDeviceGetComputeRunningProcesses_v2")[:2])
"""
        assert child(gpu, script) == [3, 3, [0, 1]]


def test_bad_faults_end_the_program_with_one_sentence(gpu: SimulatedGpu) -> None:
    done = gpu.run(
        [sys.executable, "-c", PRELUDE + "nvml.nvmlInit_v2()"],
        text=True,
        capture_output=True,
        timeout=60,
        faults="nvmlInit_v2: eror=3",
    )
    assert done.returncode == 70
    assert '"eror" is not understood in the rule "nvmlInit_v2"' in done.stderr
