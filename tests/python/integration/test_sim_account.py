"""The account is exact, shared by processes, and forgets the dead."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from memacct._units import GIB, MIB
from memacct.sim import DeviceStatus, SimulatedGpu, Tenant, TenantError

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_BYTES = 2 * MIB
CONTEXT_BYTES = 400 * MIB


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(
        total_bytes="32GiB", count=2, reserved_bytes="500MiB", unattributed_bytes="3MiB"
    ) as machine:
        yield machine


def assert_adds_up(device: DeviceStatus) -> None:
    held = sum(process.process_used_bytes for process in device.processes)
    parts = device.reserved_bytes + device.unattributed_bytes + held + device.free_bytes
    assert parts == device.total_bytes


def rounded(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


def test_an_empty_machine(gpu: SimulatedGpu) -> None:
    for device in gpu.status().devices:
        assert device.processes == ()
        assert device.free_bytes == 32 * GIB - 503 * MIB
        assert_adds_up(device)


def test_every_change_is_exact_and_adds_up(gpu: SimulatedGpu) -> None:
    choose = random.Random(5)  # noqa: S311 (a repeatable series)
    with gpu.tenant() as one, gpu.tenant() as two, gpu.tenant(device=1):
        for _ in range(40):
            tenant = choose.choice((one, two))
            before = gpu.status().devices[0].process_used_bytes(tenant.pid)
            size_bytes = choose.randrange(1, 300 * MIB)
            if choose.random() < 0.5 and tenant.held_bytes >= rounded(size_bytes):
                tenant.free(size_bytes)
                change = -rounded(size_bytes)
            else:
                tenant.allocate(size_bytes)
                change = rounded(size_bytes)
            device, other = gpu.status().devices
            assert device.process_used_bytes(tenant.pid) == before + change
            assert tenant.held_bytes + CONTEXT_BYTES == before + change
            assert_adds_up(device)
            assert other.free_bytes == 32 * GIB - 503 * MIB - CONTEXT_BYTES


def test_out_of_memory_is_whole_or_not_at_all(gpu: SimulatedGpu) -> None:
    with gpu.tenant("30GiB") as tenant:
        before = gpu.status()
        with pytest.raises(TenantError, match="out of memory"):
            tenant.allocate("2GiB")
        assert gpu.status() == before
        tenant.allocate(before.devices[0].free_bytes - 1 * MIB)  # all but the odd MiB
        assert gpu.status().devices[0].free_bytes == 1 * MIB
    with pytest.raises(TenantError, match="out of memory"):
        gpu.tenant("33GiB")
    with pytest.raises(TenantError, match="no such device"):
        gpu.tenant("1GiB", device=7)


def test_a_killed_process_holds_nothing_even_as_a_zombie(gpu: SimulatedGpu) -> None:
    with gpu.tenant() as witness:
        tenant = gpu.tenant("9GiB")
        os.kill(tenant.pid, signal.SIGKILL)
        os.waitid(os.P_PID, tenant.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        device = gpu.status().devices[0]
        assert [process.pid for process in device.processes] == [witness.pid]
        assert witness.allocate("20GiB").device_free_bytes == device.free_bytes - 20 * GIB
        tenant.kill()


def test_a_process_killed_while_it_changes_the_account_blocks_nobody(gpu: SimulatedGpu) -> None:
    script = """
import ctypes
cu = ctypes.CDLL("libcuda.so.1"); c = ctypes.c_void_p(); p = ctypes.c_ulonglong()
cu.cuInit(0); cu.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0); cu.cuCtxSetCurrent(c)
print("ready", flush=True)
while True:
    cu.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(4 << 20)); cu.cuMemFree_v2(p)
"""
    for _ in range(10):
        busy = gpu.popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert busy.stdout is not None
        with busy.stdout:
            busy.stdout.readline()
            busy.kill()
        busy.wait()
        device = gpu.status().devices[0]
        assert device.processes == ()
        assert_adds_up(device)


def test_one_that_executes_another_program_holds_nothing(gpu: SimulatedGpu) -> None:
    script = """
import ctypes, os
cu = ctypes.CDLL("libcuda.so.1"); c = ctypes.c_void_p()
cu.cuInit(0); cu.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0)
os.execvp("cat", ["cat"])
"""
    with gpu.popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write(b"here\n")
        cat.stdin.flush()
        assert cat.stdout.readline() == b"here\n"  # so the new program runs
        assert gpu.status().devices[0].processes == ()
        cat.stdin.close()


def test_many_processes_change_it_at_once(gpu: SimulatedGpu) -> None:
    script = """
import ctypes
cu = ctypes.CDLL("libcuda.so.1"); c = ctypes.c_void_p(); p = ctypes.c_ulonglong()
cu.cuInit(0); cu.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0); cu.cuCtxSetCurrent(c)
for i in range(2000):
    assert cu.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(i % 7 * 700_001 + 1)) == 0
    if i % 4:
        assert cu.cuMemFree_v2(p) == 0
print(flush=True); input()
"""
    busy = [
        gpu.popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    held: list[int] = []
    for process in busy:
        assert process.stdout is not None
        process.stdout.readline()
    device = gpu.status().devices[0]
    assert_adds_up(device)
    held = [device.process_used_bytes(process.pid) for process in busy]
    for process in busy:
        process.communicate()
    assert len(set(held)) == 1, "all made the same requests"
    assert held[0] > CONTEXT_BYTES
    assert gpu.status().devices[0].processes == ()


def test_the_machine_is_gone_at_the_end() -> None:
    with SimulatedGpu() as gpu:
        path = f"/dev/shm/memacct_sim.{gpu.machine}"
        assert os.path.exists(path)  # noqa: PTH110
    assert not os.path.exists(path)  # noqa: PTH110


def test_a_tenant_starts_and_ends_with_its_block(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB", context_bytes=0) as tenant:
        assert isinstance(tenant, Tenant)
        assert gpu.status().devices[0].process_used_bytes(tenant.pid) == GIB
    assert gpu.status().devices[0].processes == ()


def test_managed_memory_is_held_by_nobody_who_is_listed(gpu: SimulatedGpu) -> None:
    script = """
import ctypes
cu = ctypes.CDLL("libcuda.so.1"); c = ctypes.c_void_p(); p = ctypes.c_ulonglong()
cu.cuInit(0); cu.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0); cu.cuCtxSetCurrent(c)
assert cu.cuMemAllocManaged(ctypes.byref(p), ctypes.c_size_t(3 << 30), 1) == 0
print(flush=True); input()
assert cu.cuMemFree_v2(p) == 0
assert cu.cuMemAllocManaged(ctypes.byref(p), ctypes.c_size_t(1000), 1) == 0
print(flush=True); input()
"""
    with gpu.popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        for managed_bytes in (3 * GIB, PAGE_BYTES):
            holder.stdout.readline()
            device = gpu.status().devices[0]
            assert_adds_up(device)
            assert device.process_used_bytes(holder.pid) == CONTEXT_BYTES
            assert device.unattributed_bytes == 3 * MIB + managed_bytes
            holder.stdin.write(b"\n")
    device = gpu.status().devices[0]
    assert device.unattributed_bytes == 3 * MIB
    assert_adds_up(device)
