"""The simulated GPU's MIG: instances, as NVML and the driver show them; unlike devices."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memacct._units import GIB, MIB
from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
NO_PERMISSION = 4
NOT_FOUND = 6

PROLOGUE = """
import ctypes, json, os
from ctypes import byref, c_int, c_size_t, c_uint, c_ulonglong, c_void_p, create_string_buffer
nv, cu = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.CDLL("libcuda.so.1")
assert nv.nvmlInit_v2() == 0
out = []
def handle(key, function="nvmlDeviceGetHandleByUUID"):
    found = c_void_p()
    code = getattr(nv, function)(key, byref(found))
    return found if code == 0 else code
def of(index, place):
    found = c_void_p()
    code = nv.nvmlDeviceGetMigDeviceHandleByIndex(
        handle(index, "nvmlDeviceGetHandleByIndex_v2"), place, byref(found))
    return found if code == 0 else code
def text(function, device):
    room = create_string_buffer(96)
    assert getattr(nv, function)(device, room, 96) == 0
    return room.value.decode()
def number(function, device):
    value = c_uint(77)
    code = getattr(nv, function)(device, byref(value))
    return value.value if code == 0 else -code
def memory(device):
    values = (c_ulonglong * 3)()
    assert nv.nvmlDeviceGetMemoryInfo(device, values) == 0
    return list(values)
def records(device):
    count, room = c_uint(9), (c_uint * 54)()
    code = nv.nvmlDeviceGetComputeRunningProcesses_v3(device, byref(count), room)
    rows = [room[6 * i: 6 * i + 6] for i in range(count.value)]
    return code or [[row[0], row[2] + (row[3] << 32), row[4], row[5]] for row in rows]
def seen():
    if code := cu.cuInit(0):
        return -code
    count = c_int()
    assert cu.cuDeviceGetCount(byref(count)) == 0
    found = []
    for ordinal in range(count.value):
        both = []
        for function in ("cuDeviceGetUuid_v2", "cuDeviceGetUuid"):
            uuid = (ctypes.c_ubyte * 16)()
            assert getattr(cu, function)(uuid, ordinal) == 0
            both.append(bytes(uuid).hex())
        found.append(both)
    return found
"""


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    """One divided device (its second place is empty) and one that is not."""
    with SimulatedGpu(
        count=2,
        total_bytes=["141GiB", "24GiB"],
        name=["NVIDIA H200", "NVIDIA L4"],
        reserved_bytes="1GiB",
        mig=["16GiB", 0, "32GiB"],
        mig_reserved_bytes="100MiB",
    ) as machine:
        yield machine


def child(gpu: SimulatedGpu, script: str, **env: str) -> list[Any]:
    environ = {**gpu.environ(), **env}
    done = subprocess.run(
        [sys.executable, "-c", f"{PROLOGUE}{script}\nprint(json.dumps(out))"],
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def hex_of(uuid: str) -> str:
    return uuid.partition("-")[2].replace("-", "")


def test_nvml_shows_the_instances(gpu: SimulatedGpu) -> None:
    small, large = gpu.status().instances
    assert small.uuid.startswith("MIG-")
    shown, more = child(
        gpu,
        """
small, large = of(0, 0), of(0, 2)
out.append([
    [text("nvmlDeviceGetUUID", d), text("nvmlDeviceGetName", d), memory(d)[0],
     number("nvmlDeviceIsMigDeviceHandle", d), number("nvmlDeviceGetGpuInstanceId", d),
     number("nvmlDeviceGetComputeInstanceId", d), number("nvmlDeviceGetIndex", d),
     handle(text("nvmlDeviceGetUUID", d).encode()).value == d.value]
    for d in (small, large)])
current, pending, whole = c_uint(), c_uint(), c_void_p()
first = handle(0, "nvmlDeviceGetHandleByIndex_v2")
modes = []
for i in (0, 1):
    device = handle(i, "nvmlDeviceGetHandleByIndex_v2")
    assert nv.nvmlDeviceGetMigMode(device, byref(current), byref(pending)) == 0
    modes.append(current.value)
assert nv.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(large, byref(whole)) == 0
out.append([modes, of(0, 1), whole.value == first.value,
            number("nvmlDeviceGetMaxMigDeviceCount", first),
            number("nvmlDeviceGetGpuInstanceId", first)])
""",
    )
    assert shown == [
        [small.uuid, "NVIDIA H200 MIG 1g.16gb", 16 * GIB, 1, 7, 0, 0, True],
        [large.uuid, "NVIDIA H200 MIG 1g.32gb", 32 * GIB, 1, 9, 0, 2, True],
    ]
    assert more == [[1, 0], NOT_FOUND, True, 7, -2]


def test_a_machine_without_mig_supports_none() -> None:
    with SimulatedGpu() as gpu:
        assert child(
            gpu,
            """
current = c_uint()
out.append(nv.nvmlDeviceGetMigMode(
    handle(0, "nvmlDeviceGetHandleByIndex_v2"), byref(current), byref(current)))
""",
        ) == [3]
        assert gpu.status().instances == ()


def test_an_instance_has_its_own_account_and_the_device_the_sum(gpu: SimulatedGpu) -> None:
    small, large = gpu.status().instances
    with (
        gpu.tenant("3GiB", device=small.uuid) as one,
        gpu.tenant("5GiB", device=large.uuid) as other,
    ):
        gpu.change_unattributed(GIB, device=2)
        status = gpu.status()
        for instance, tenant, held in zip(status.instances, (one, other), (3, 5), strict=True):
            assert [p.pid for p in instance.processes] == [tenant.pid]
            assert instance.process_used_bytes(tenant.pid) == held * GIB + CONTEXT_BYTES
            assert instance.parent_index == 0
        whole = status.devices[0]
        assert sorted(p.pid for p in whole.processes) == sorted((one.pid, other.pid))
        assert whole.unattributed_bytes == GIB
        assert whole.reserved_bytes == GIB + 200 * MIB
        assert whole.device_used_bytes == 8 * GIB + 2 * CONTEXT_BYTES + GIB + GIB + 200 * MIB
        assert status.instances[0].device_used_bytes == 4 * GIB + CONTEXT_BYTES + 100 * MIB
        assert status.devices[1].device_used_bytes == GIB
        with pytest.raises(Exception, match="out of memory"):
            one.allocate("13GiB")  # the device has more than 100 GiB


@pytest.mark.parametrize("allowed", [False, True])
def test_who_is_on_a_divided_device_takes_a_permission(allowed: bool) -> None:
    with SimulatedGpu(mig=["16GiB", "16GiB"], mig_monitor=allowed) as gpu:
        instance = gpu.status().instances[1]
        with gpu.tenant("1GiB", device=instance.uuid) as tenant:
            row = [tenant.pid, GIB + CONTEXT_BYTES, 8, 0]
            assert child(
                gpu,
                """
for d in (handle(0, "nvmlDeviceGetHandleByIndex_v2"), of(0, 0), of(0, 1)):
    out.append(records(d))
""",
            ) == [[row] if allowed else NO_PERMISSION, [], [row]]


def test_the_driver_gives_one_instance(gpu: SimulatedGpu) -> None:
    first, second = (device.uuid for device in gpu.status().devices)
    small, large = (instance.uuid for instance in gpu.status().instances)
    both = {uuid: [[hex_of(uuid), hex_of(first)]] for uuid in (small, large)}
    whole = [[hex_of(second), hex_of(second)]]
    no_device = -100
    for value, expected in (
        (None, both[small]),
        ("0", both[small]),
        ("1,0", both[small]),
        ("1", whole),
        (first, both[small]),
        (large, both[large]),
        (f"{large},{small}", both[large]),
        (large[:5], no_device),  # the beginning of both
        (f"MIG-{first}/9/0", both[large]),
        (f"MIG-{first}/8/0", no_device),
        ("MIG-", no_device),
        (f" {large}", no_device),
    ):
        env = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
        assert child(gpu, "out.append(seen())", CUDA_DEVICE_ORDER="PCI_BUS_ID", **env) == [
            expected
        ], value


def test_the_driver_s_memory_is_the_instance_s(gpu: SimulatedGpu) -> None:
    small, large = gpu.status().instances
    with gpu.tenant("3GiB", device=small.uuid):
        assert child(
            gpu,
            """
assert cu.cuInit(0) == 0
context, free, total = c_void_p(), c_size_t(), c_size_t()
assert cu.cuDevicePrimaryCtxRetain(byref(context), 0) == 0
assert cu.cuCtxSetCurrent(context) == 0
assert cu.cuMemGetInfo_v2(byref(free), byref(total)) == 0
out += [total.value, free.value, memory(of(0, 2))]
""",
            CUDA_VISIBLE_DEVICES=large.uuid,
        ) == [
            32 * GIB,
            32 * GIB - CONTEXT_BYTES - 100 * MIB,
            [32 * GIB, 32 * GIB - CONTEXT_BYTES - 100 * MIB, CONTEXT_BYTES + 100 * MIB],
        ]


@pytest.mark.parametrize("order", [None, "FASTEST_FIRST", "PCI_BUS_ID"])
def test_the_fastest_device_is_the_first(order: str | None) -> None:
    env = {} if order is None else {"CUDA_DEVICE_ORDER": order}
    with SimulatedGpu(count=3, total_bytes=["8GiB", "24GiB", "24GiB"], speeds=[1, 3, 3]) as gpu:
        uuids = [hex_of(device.uuid) for device in gpu.status().devices]
        indices = [0, 1, 2] if order == "PCI_BUS_ID" else [1, 2, 0]
        assert child(gpu, "out.append(seen())", **env) == [[[uuids[i]] * 2 for i in indices]]
        env["CUDA_VISIBLE_DEVICES"] = "2,0"
        assert child(gpu, "out.append(seen())", **env) == [
            [[uuids[indices[i]]] * 2 for i in (2, 0)]
        ]
        with gpu.tenant("1GiB", device=0):  # tenants count the machine's devices
            assert gpu.status().devices[0].processes


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Exception, match="has not that much"):
        SimulatedGpu(total_bytes="24GiB", mig=["16GiB", "16GiB"]).__enter__()
    with pytest.raises(Exception, match="DEVICE=SIZE"):
        SimulatedGpu(mig={1: ["1GiB"]}).__enter__()
    with pytest.raises(Exception, match="3 sizes for 2 devices"):
        SimulatedGpu(count=2, total_bytes=["1GiB"] * 3).__enter__()
