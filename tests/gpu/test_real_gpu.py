"""What only a real GPU can answer: each assumption about its driver that memacct makes.

Run with ``pytest tests/gpu -rP``: each test also prints the figure that it found. Needs the
driver and memacct, nothing else. Skipped where NVML lists no device. Expects nobody else to
move memory on device 0 meanwhile.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct import SourceUnavailableError, _core
from memacct._units import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator


def has_device() -> bool:
    try:
        return len(_core.list_devices()) > 0
    except SourceUnavailableError:
        return False


def can_unshare() -> bool:
    tool = shutil.which("unshare")
    return (
        tool is not None
        and subprocess.run([tool, "-pf", "true"], check=False, capture_output=True).returncode == 0
    )


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_device(), reason="NVML lists no device on this machine"),
]
needs_unshare = pytest.mark.skipif(not can_unshare(), reason="no right to make a pid namespace")

RELEASE_DEADLINE_S = 10.0


@pytest.fixture
def process() -> Iterator[DeviceProcess]:
    with DeviceProcess(None) as one:
        yield one


def located(process: DeviceProcess) -> dict[str, Any]:
    """A reading of a process whose record is found, by an allocation if need be."""
    process.run("_core.identify(0)")
    reading = process.read()
    if reading["own_bytes"] is None:
        pytest.skip(f"own bytes are unknown here: {reading['attribution']['reason']}")
    return reading


# ---------------------------------------------------------------- (1) record sizes


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("nvmlDeviceGetComputeRunningProcesses", (16,)),
        ("nvmlDeviceGetComputeRunningProcesses_v2", (24,)),
        ("nvmlDeviceGetComputeRunningProcesses_v3", (24, 32)),
    ],
)
def test_record_size(process: DeviceProcess, symbol: str, expected: tuple[int, ...]) -> None:
    process.run("context()")
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    if not hasattr(nvml, symbol):
        pytest.skip(f"this driver has no {symbol}")
    assert nvml.nvmlInit_v2() == 0
    device, count = ctypes.c_void_p(), ctypes.c_uint(64)
    assert nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) == 0
    buffer = (ctypes.c_ubyte * (64 * 32 + 64))(*([0xAA] * (64 * 32 + 64)))
    assert getattr(nvml, symbol)(device, ctypes.byref(count), buffer) == 0
    found = _core._probe_stride(bytes(buffer), capacity_bytes=len(buffer), count=count.value)
    print(f"{symbol}: {count.value} records of {found} bytes")
    assert found in expected


# ---------------------------------------------------------------- (3) own is what we allocated


@pytest.mark.parametrize("size_mib", [2, 64, 1022])
def test_an_allocation_is_own_to_the_byte(process: DeviceProcess, size_mib: int) -> None:
    process.run("context()")
    before = located(process)
    process.run(f"allocate({size_mib * MIB})")
    after = process.read()
    process.run("release()")
    released = process.read()
    print(
        f"cuMemAlloc of {size_mib} MiB: own {after['own_bytes'] - before['own_bytes']:+d}, "
        f"free {after['free_bytes'] - before['free_bytes']:+d}; context {before['own_bytes']}"
    )
    assert after["own_bytes"] - before["own_bytes"] == size_mib * MIB
    assert released["own_bytes"] == before["own_bytes"]


VMM = """
class Properties(ctypes.Structure):  # CUmemAllocationProp: pinned memory of device 0
    _fields_ = [("kind", ctypes.c_int), ("handles", ctypes.c_int), ("where", ctypes.c_int),
                ("device", ctypes.c_int), ("win32", ctypes.c_void_p), ("flags", ctypes.c_ulong)]
handle = ctypes.c_uint64()
properties = Properties(1, 0, 1, 0, None, 0)
call("cuMemCreate", ctypes.byref(handle), ctypes.c_size_t(64 * 2**20),
     ctypes.byref(properties), ctypes.c_uint64(0))
"""
POOL = """
pointer = ctypes.c_uint64()
call("cuMemAllocAsync", ctypes.byref(pointer), ctypes.c_size_t(64 * 2**20), None)
call("cuCtxSynchronize")
"""
MANAGED = """
pointer = ctypes.c_uint64()
call("cuMemAllocManaged", ctypes.byref(pointer), ctypes.c_size_t(64 * 2**20), 1)
call("cuMemsetD8_v2", pointer, ctypes.c_ubyte(1), ctypes.c_size_t(64 * 2**20))
call("cuCtxSynchronize")
"""


@pytest.mark.parametrize(
    ("name", "source", "least_mib", "most_mib"),
    [("cuMemCreate", VMM, 64, 64), ("pool", POOL, 64, 128), ("managed", MANAGED, 0, 64)],
)
def test_other_kinds_of_memory(
    process: DeviceProcess, name: str, source: str, least_mib: int, most_mib: int
) -> None:
    process.run("context()")
    before = located(process)
    process.run(source)
    after = process.read()
    change = after["own_bytes"] - before["own_bytes"]
    print(
        f"{name} of 64 MiB: own {change:+d}, "
        f"unattributed {after['unattributed_bytes'] - before['unattributed_bytes']:+d}, "
        f"free {after['free_bytes'] - before['free_bytes']:+d}"
    )
    assert least_mib * MIB <= change <= most_mib * MIB


def test_memory_opened_from_another_process(process: DeviceProcess) -> None:
    """Whose is it that two processes share: known only from the figures."""
    with DeviceProcess(None) as opener:
        process.run("context()")
        opener.run("context()")
        first, second = located(process), located(opener)
        handle = process.run(
            f"""
allocate({64 * MIB})
handle = (ctypes.c_ubyte * 64)()
code = cuda().cuIpcGetMemHandle(handle, ctypes.c_uint64(_pointers[-1]))
result = list(handle) if code == 0 else code
"""
        )
        if isinstance(handle, int):
            pytest.skip(f"cuIpcGetMemHandle returned {handle}")
        opener.run(
            f"""
class Handle(ctypes.Structure):
    _fields_ = [("data", ctypes.c_ubyte * 64)]
pointer = ctypes.c_uint64()
call("cuIpcOpenMemHandle_v2", ctypes.byref(pointer), Handle((ctypes.c_ubyte * 64)(*{handle})), 1)
"""
        )
        owner, other = process.read(), opener.read()
        print(
            f"64 MiB shared: owner {owner['own_bytes'] - first['own_bytes']:+d}, "
            f"opener {other['own_bytes'] - second['own_bytes']:+d}, "
            f"unattributed {other['unattributed_bytes'] - second['unattributed_bytes']:+d}"
        )
        assert owner["own_bytes"] - first["own_bytes"] == 64 * MIB


# ---------------------------------------------------------------- (4) the equation


def test_the_equation_and_what_nobody_holds(process: DeviceProcess) -> None:
    process.run(f"context(); allocate({GIB})")
    located(process)
    reading = process.run("result = reading(0, with_cuda=True)")
    parts = ("free", "reserved", "own", "tree", "foreign", "unattributed")
    print({part: reading[f"{part}_bytes"] for part in parts}, reading["attribution"])
    print(
        f"cuMemGetInfo: total {reading['cuda_total_bytes'] - reading['total_bytes']:+d}, "
        f"free {reading['cuda_free_bytes'] - reading['free_bytes']:+d} against NVML"
    )
    if reading["foreign_bytes"] is None:
        pytest.skip(f"foreign is unknown here: {reading['attribution']['reason']}")
    assert sum(reading[f"{part}_bytes"] for part in parts) == reading["total_bytes"]
    assert reading["consistent"]


# ---------------------------------------------------------------- (5) and (8) namespaces


def test_how_this_process_is_found(process: DeviceProcess) -> None:
    process.run("context()")
    passive = process.read()["attribution"]
    active = process.run("result = attempt(_core.identify, 0)")
    found = process.run("result = _core.driver_diagnosis()['process']")
    print(passive, active, found)
    assert active["source"] in ("pid", "nspid", "fingerprint")


@needs_unshare
def test_in_a_pid_namespace_of_its_own() -> None:
    with DeviceProcess(None, prefix=["unshare", "-pf", "--mount-proc"]) as inner:
        inner.run("context()")
        passive = inner.read()
        held_bytes = passive["own_bytes"]
        active = inner.run("result = attempt(_core.identify, 0)")
        reading = inner.read()
        print(f"passive {passive['attribution']}; active {active}")
        # Outside the machine's own namespace identify() always allocates.
        identified = inner.run("result = _core.driver_diagnosis()['process']['identified_pid']")
        assert identified == active["own_pid"] is not None
        assert reading["own_bytes"] > 0
        assert held_bytes in (None, reading["own_bytes"])
        assert reading["free_bytes"] == passive["free_bytes"]


# ---------------------------------------------------------------- (6) asking costs nothing


def test_reading_makes_no_context(process: DeviceProcess) -> None:
    before = _core.read_device(0)
    process.run("call('cuInit', 0)")
    initialised = process.run("result = [reading(), attempt(_core.read_devices)]")
    asked = process.run(
        "import memacct; [memacct.snapshot() for _ in range(10)]; "
        "attempt(_core.identify, 0); result = reading(0, with_cuda=True)"
    )
    print(f"cuInit alone: free {initialised[0]['free_bytes'] - before.free_bytes:+d}")
    assert initialised[1] == []
    assert asked["cuda_free_bytes"] is None
    assert asked["free_bytes"] == initialised[0]["free_bytes"]
    assert all(
        row["process_used_bytes"] in (None, 0)
        for row in asked["processes"]
        if row["pid"] == process.pid
    )


# ---------------------------------------------------------------- (7) release after SIGKILL


def test_a_killed_process_gives_its_memory_back() -> None:
    before = _core.read_device(0).free_bytes
    victim = DeviceProcess(None)
    victim.run(f"context(); allocate({GIB})")
    assert _core.read_device(0).free_bytes <= before - GIB
    victim.kill()
    killed_s = time.monotonic()
    while _core.read_device(0).free_bytes < before:
        assert time.monotonic() - killed_s < RELEASE_DEADLINE_S, "its memory is still held"
    print(f"free again {time.monotonic() - killed_s:.3f} s after its end was reaped")


def test_a_forks_child_reports_itself(process: DeviceProcess) -> None:
    process.run("context()")
    located(process)
    child = process.run('result = in_fork("result = [_core.driver_state(), reading()]")')
    state, reading = child["result"]
    assert state == "uninitialised"
    assert reading["own_bytes"] == 0
