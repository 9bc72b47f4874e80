"""A timeline with devices: what each entry says of the GPU, on the simulated one."""

from __future__ import annotations

import sys
from pathlib import Path

import memacct
from memacct._units import GIB, MIB
from memacct.sim import SimulatedGpu

SCRIPT = """
import ctypes, sys
import memacct
from memacct import _core
with memacct.Timeline(sys.argv[1], devices="auto", breakdown=False):
    memacct.checkpoint("before")
    cu = ctypes.CDLL("libcuda.so.1")
    made = ctypes.c_void_p()
    assert cu.cuInit(0) == 0
    assert cu.cuDevicePrimaryCtxRetain(ctypes.byref(made), 0) == 0
    assert cu.cuCtxSetCurrent(made) == 0
    memacct.checkpoint("context")
    pointer = ctypes.c_ulonglong()
    assert cu.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(1 << 30)) == 0
    uuid = memacct.snapshot().devices[0].uuid
    _core.set_allocator_reader(lambda: [_core.AllocatorMemory(uuid, 1 << 30, 1 << 20)])
    memacct.checkpoint("allocated")
    def lost():
        raise memacct.DriverError("nvmlDeviceGetMemoryInfo_v2", 15, "lost")
    _core.set_allocator_reader(lost)
    memacct.checkpoint("lost")
    memacct.checkpoint("still lost")
"""


def test_entries_tell_what_is_ours_on_the_device(tmp_path: Path) -> None:
    with SimulatedGpu(total_bytes="32GiB", context_bytes="400MiB") as machine:
        path = tmp_path / "gpu.jsonl"
        done = machine.run(
            [sys.executable, "-c", SCRIPT, str(path)], text=True, capture_output=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    (record,) = memacct.read_timeline(path).records
    baseline, before, context, allocated, lost, *rest = record.entries
    assert baseline.devices == before.devices == ()
    assert context.devices is not None
    assert allocated.devices is not None
    assert [device.own_bytes for device in context.devices] == [400 * MIB]
    (device,) = allocated.devices
    assert device.own_bytes == 400 * MIB + GIB
    assert (device.allocator_reserved_bytes, device.allocator_allocated_bytes) == (GIB, MIB)
    assert device.non_torch_bytes == 400 * MIB
    (delta,) = allocated.device_deltas(context) or ()
    assert (delta.own_bytes, delta.free_bytes) == (GIB, -GIB)
    # A driver that fails takes its part of the entries with it, and is told of once.
    assert [entry.name for entry in rest] == ["still lost", "end"]
    assert [entry.devices for entry in (lost, *rest)] == [None] * 3
    assert lost.host.rss_bytes > 0
    assert done.stderr.count("nvmlDeviceGetMemoryInfo_v2 returned 15 (lost)") == 1
    check = record.identity()
    assert check is not None
    assert check.holds
