"""snapshot() with devices: a child process on the simulated GPU, through the real loader."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import memacct
from memacct import _convert
from memacct._units import GIB, MIB
from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

PRELUDE = """
import ctypes, json, mmap, os, pickle, sys
import memacct
from memacct import _core
GIB, MIB = 1 << 30, 1 << 20
out = {}
def context(ordinal=0):
    cu = ctypes.CDLL("libcuda.so.1")
    made = ctypes.c_void_p()
    assert cu.cuInit(0) == 0
    assert cu.cuDevicePrimaryCtxRetain(ctypes.byref(made), ordinal) == 0
    assert cu.cuCtxSetCurrent(made) == 0
    return cu
def allocate(cu, size):
    pointer = ctypes.c_ulonglong()
    assert cu.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)) == 0
def send(snapshot):
    return pickle.dumps(snapshot).hex()
"""


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", count=2, context_bytes="400MiB") as machine:
        yield machine


def child(gpu: SimulatedGpu, script: str) -> dict[str, Any]:
    done = gpu.run(
        [sys.executable, "-c", PRELUDE + script + "\nprint(json.dumps(out))"],
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def received(data: str) -> memacct.Snapshot:
    snapshot: memacct.Snapshot = pickle.loads(bytes.fromhex(data))  # noqa: S301 (our own bytes)
    return snapshot


def test_auto_sees_a_device_from_the_context_on(gpu: SimulatedGpu) -> None:
    found = child(
        gpu,
        """
out["before"] = send(memacct.snapshot())
cu = context(1)
out["context"] = send(memacct.snapshot())
allocate(cu, GIB)
out["allocated"] = send(memacct.snapshot())
""",
    )
    before, context, allocated = (received(found[name]) for name in found)
    assert before.devices == ()
    assert context.devices is not None
    (device,) = context.devices
    assert device.cuda_ordinal == 1
    assert device.own_bytes == 400 * MIB
    assert device.attribution.source == "pid"
    delta = allocated - context
    assert delta.devices is not None
    assert delta.devices[0].uuid == device.uuid
    assert delta.devices[0].own_bytes == GIB
    assert delta.devices[0].free_bytes == -GIB
    assert delta.devices[0].foreign_bytes == 0
    # The device was not in the first snapshot: by how much it changed is unknown, not 0.
    (appeared,) = (allocated - before).devices or ()
    assert appeared.uuid == device.uuid
    assert appeared.own_bytes is None
    assert device.uuid in str(delta)


def test_the_device_equation_survives_plain_data(gpu: SimulatedGpu) -> None:
    found = child(gpu, 'context(); out["s"] = send(memacct.snapshot(devices="all"))')
    snapshot = received(found["s"])
    assert snapshot.devices is not None
    assert [device.index for device in snapshot.devices] == [0, 1]
    device = snapshot.devices[0]
    terms = (device.free_bytes, device.reserved_bytes, device.own_bytes, device.tree_bytes)
    known = [t for t in (*terms, device.foreign_bytes, device.unattributed_bytes) if t is not None]
    assert len(known) == 6
    assert sum(known) == device.total_bytes
    text = json.dumps(snapshot.to_dict())
    assert _convert.from_dict(memacct.Snapshot, json.loads(text)) == snapshot
    assert "DeviceMemory(uuid=" in repr(snapshot)


def test_devices_by_ordinal_and_uuid(gpu: SimulatedGpu) -> None:
    found = child(
        gpu,
        """
first, second = memacct.snapshot("counters", "all").devices
out["uuids"] = [first.uuid, second.uuid]
picked = memacct.snapshot("counters", [1, first.uuid]).devices
out["picked"] = [device.uuid for device in picked]
try:
    memacct.snapshot(devices=["GPU-none"])
except ValueError as error:
    out["error"] = str(error)
""",
    )
    assert found["picked"] == found["uuids"][::-1]
    assert "GPU-none" in found["error"]


def test_the_allocator_is_asked_first_and_only_when_devices_are_read(gpu: SimulatedGpu) -> None:
    found = child(
        gpu,
        """
calls, blocks = [], []
def reader():
    calls.append(_core.monotonic_ns())
    block = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, len(block), mmap.PAGESIZE):
        block[offset] = 1
    blocks.append(block)
    return [_core.AllocatorMemory("GPU-x", 5 * GIB, 4 * GIB, peak_allocated_bytes=5 * GIB)]
_core.set_allocator_reader(reader)
before = memacct.snapshot()
memacct.snapshot(devices=None)
out["calls without devices"] = len(calls)
context()
first = memacct.snapshot()
out["order"] = first.taken_ns <= calls[0] <= first.taken_ns + first.span_ns
out["before host"] = (first - before).host.rss_anon_bytes >= 60 * MIB
out["torch"] = first.torch[0].to_dict()
_core.set_allocator_reader(lambda: None)
out["none"] = memacct.snapshot().torch is None
_core.set_allocator_reader(None)
out["unset"] = memacct.snapshot().torch is None
""",
    )
    told = found.pop("torch")
    assert {name: value for name, value in told.items() if value is not None} == {
        "uuid": "GPU-x",
        "reserved_bytes": 5 * GIB,
        "allocated_bytes": 4 * GIB,
        "peak_allocated_bytes": 5 * GIB,
    }
    assert found.pop("calls without devices") == 0
    assert all(found.values()), found


def test_an_error_of_the_allocator_reader_is_passed_on(gpu: SimulatedGpu) -> None:
    found = child(
        gpu,
        """
context()
def reader():
    raise LookupError("no stats")
_core.set_allocator_reader(reader)
try:
    memacct.snapshot()
except LookupError as error:
    out["error"] = str(error)
_core.set_allocator_reader(lambda: [1])
try:
    memacct.snapshot()
except TypeError as error:
    out["type"] = str(error)
_core.set_allocator_reader(None)
out["works"] = len(memacct.snapshot().devices)
""",
    )
    assert found["error"] == "no stats"
    assert (
        found["type"] == "the allocator reader must return AllocatorMemory objects or None, not [1]"
    )
    assert found["works"] == 1


def test_without_nvml_all_devices_are_unknown_and_auto_has_none() -> None:
    script = """
import memacct
print([memacct.snapshot("counters", which).devices for which in ("auto", "all", [0], None)])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "MEMACCT_NVML_LIBRARY": "/nonexistent/libnvidia-ml.so.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[(), None, None, None]"


def test_threads_read_devices_and_host_at_once(gpu: SimulatedGpu) -> None:
    found = child(
        gpu,
        """
import threading
cu = context()
allocate(cu, GIB)
owns, errors = [], []
def work(devices):
    try:
        for _ in range(50):
            snapshot = memacct.snapshot("counters", devices)
            owns.extend(device.own_bytes for device in snapshot.devices or ())
    except BaseException as error:
        errors.append(repr(error))
threads = [threading.Thread(target=work, args=(d,)) for d in ("auto", "auto", [0], None)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out["owns"] = sorted(set(owns)); out["count"] = len(owns); out["errors"] = errors
""",
    )
    assert found == {"owns": [GIB + 400 * MIB], "count": 150, "errors": []}
