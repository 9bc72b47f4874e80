"""Neighbours that move during a reading, threads, forks, and NVML taken away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from device_process import DeviceProcess

from memacct._units import GIB, MIB
from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
MEMORY = "nvmlDeviceGetMemoryInfo_v2"
ATTEMPTS_COUNT = 8


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", reserved_bytes="500MiB") as machine:
        yield machine


# ------------------------------------------------------- torn readings
#
#   list 1      memory      list 2          a change in the memory call, before it reads, is
#   A  ......   B  ......   B               one that list 1 missed: the lists differ


@pytest.mark.parametrize("moves_count", [1, 2, 5])
def test_a_torn_collect_is_repeated(gpu: SimulatedGpu, moves_count: int) -> None:
    # The first memory call only learns the total; the collects' calls come after it.
    faults = f"{MEMORY}: charge=+2MiB after=1 for={moves_count}"
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        reading = process.read()
        assert reading["attempts_count"] == moves_count + 1
        assert reading["consistent"]
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["foreign_bytes"] == GIB + CONTEXT_BYTES + moves_count * 2 * MIB
        assert reading["unattributed_bytes"] == 0
        assert reading["own_read_bounds_bytes"] is None


def test_a_neighbour_that_never_rests_is_told(gpu: SimulatedGpu) -> None:
    faults = f"{MEMORY}: charge=+2MiB"
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        reading = process.read()
        assert not reading["consistent"]
        assert reading["attempts_count"] == ATTEMPTS_COUNT
        # Our own number stood still through the collect: it is exact all the same.
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["own_read_bounds_bytes"] == [CONTEXT_BYTES, CONTEXT_BYTES]
        others_at_most = reading["device_used_bytes"] - CONTEXT_BYTES
        assert reading["foreign_read_bounds_bytes"] == [0, others_at_most]
        assert reading["unattributed_bytes"] is None
        assert reading["attribution"]["own_bounds_bytes"] == [CONTEXT_BYTES, CONTEXT_BYTES]


def test_a_number_known_on_one_side_only_is_no_bound(gpu: SimulatedGpu) -> None:
    """Every second list fails, so each collect is torn and ours was read once at the most."""
    lists = "nvmlDeviceGetComputeRunningProcesses_v2"
    faults = "; ".join(f"{lists}: error=999 after={n} for=1" for n in range(1, 8, 2))
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        reading = process.read()
        assert not reading["consistent"]
        assert reading["attempts_count"] == ATTEMPTS_COUNT
        assert reading["own_bytes"] == CONTEXT_BYTES  # as the last list has it
        assert reading["own_read_bounds_bytes"] is None
        bounds = reading["attribution"]["own_bounds_bytes"]
        assert bounds == [None, reading["device_used_bytes"]]


def test_own_memory_that_never_rests_has_bounds(gpu: SimulatedGpu) -> None:
    """A thread of ours allocates all the while; the driver is slow, so each collect is torn."""
    with DeviceProcess(gpu, faults=f"{MEMORY}: latency_us=30000") as process:
        reading = process.run(
            """
import threading
context()
stop = threading.Event()
def grow():
    call("cuInit", 0)
    while not stop.is_set():
        allocate(2 * 2**20)
        stop.wait(0.002)  # the pace of the growth, far quicker than the driver
thread = threading.Thread(target=grow)
thread.start()
result = reading()
stop.set()
thread.join()
"""
        )
        assert not reading["consistent"]
        assert reading["attempts_count"] == ATTEMPTS_COUNT
        low, high = reading["own_read_bounds_bytes"]
        # We are alone, so what the device had in use then was ours.
        assert low <= reading["device_used_bytes"] <= high
        assert low < high
        assert reading["attribution"]["own_bounds_bytes"] == [low, high]


def test_cuda_and_nvml_are_joined_or_told_apart(gpu: SimulatedGpu) -> None:
    faults = "cuMemGetInfo_v2: charge=+2MiB"
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        assert process.read()["consistent"]
        assert not process.run("result = reading(0, with_cuda=True)")["consistent"]


LISTS = "nvmlDeviceGetComputeRunningProcesses_v2"


def visits(memory_call: int, list_call: int, count: int = 1) -> str:
    """There before that memory call, and gone again before that list; in so many collects."""
    return (
        f"{MEMORY}: charge=+64MiB after={memory_call} for={count}; "
        f"{LISTS}: charge=-64MiB after={list_call} for={count}"
    )


@pytest.mark.parametrize("readings_count", [0, 1])
def test_there_and_back_is_told(gpu: SimulatedGpu, readings_count: int) -> None:
    """No list shows the visit, but the memory's sum does, at the first reading and at a later one.

    The first takes a memory call for the total, and three collects, the last two to be sure.
    """
    faults = visits(1, 1) if readings_count == 0 else visits(4, 5)
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        for _ in range(readings_count):
            first = process.read()
            assert (first["consistent"], first["attempts_count"]) == (True, 1)
        reading = process.read()
        assert reading["consistent"]
        assert reading["attempts_count"] == 2
        assert reading["unattributed_bytes"] == 0


def test_the_same_visit_again_and_again_passes_for_memory_of_nobody(gpu: SimulatedGpu) -> None:
    """The limit: calls that answer the same as if nothing moved cannot be told from that."""
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=visits(1, 1, count=3)) as process:
        process.run("context()")
        reading = process.read()
        assert reading["consistent"]
        assert reading["unattributed_bytes"] == 64 * MIB
        assert process.read()["unattributed_bytes"] == 0


def test_a_process_that_ends_between_the_lists(gpu: SimulatedGpu) -> None:
    """Its last 1 GiB goes in the memory call, so the lists differ, and the collect is repeated."""
    faults = f"{MEMORY}: charge=-{1024 + 400}MiB after=1 for=1"
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        reading = process.read()
        assert reading["consistent"]
        assert reading["attempts_count"] == 2
        assert reading["foreign_bytes"] == 0


# ---------------------------------------------------------------- threads


def test_threads_read_while_a_neighbour_moves(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB") as tenant, DeviceProcess(gpu) as process:
        process.run(
            """
import threading
context()
stop = threading.Event()
bad, counts = [], []
def read():
    n = 0
    while not stop.is_set() or n < 50:
        d = _core.read_device(0)
        n += 1
        terms = (d.free_bytes, d.reserved_bytes, d.own_bytes, d.tree_bytes, d.foreign_bytes)
        rest = d.unattributed_bytes if d.consistent else d.total_bytes - sum(terms)
        if d.own_bytes != 400 * 2**20 or sum(terms) + rest != d.total_bytes:
            bad.append(d.to_dict())
    counts.append(n)
threads = [threading.Thread(target=read) for _ in range(4)]
for t in threads: t.start()
"""
        )
        for _ in range(50):
            tenant.allocate(20 * MIB)
            tenant.free(20 * MIB)
        bad, counts = process.run("stop.set()\nfor t in threads: t.join()\nresult = [bad, counts]")
        assert bad == []
        assert len(counts) == 4


def test_a_slow_driver_stops_no_other_thread(gpu: SimulatedGpu) -> None:
    """Neither the thread in the driver nor the one that waits for it holds the GIL."""
    with DeviceProcess(gpu, faults=f"{MEMORY}: latency_us=200000 after=1 for=2") as process:
        order = process.run(
            """
import threading
context()
order = []
def read():
    order.append("begin")
    _core.read_device(0)
    order.append("end")
threads = [threading.Thread(target=read) for _ in range(2)]
for t in threads: t.start()
while order.count("begin") < 2: pass
order.append("main")
for t in threads: t.join()
result = order
"""
        )
        assert order == ["begin", "begin", "main", "end", "end"]


# ---------------------------------------------------------------- fork


def test_a_forks_child_reports_itself(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run("context()")
        assert process.read()["own_bytes"] == CONTEXT_BYTES
        child = process.run('result = in_fork("result = [_core.driver_state(), reading()]")')
        state, reading = child["result"]
        assert state == "uninitialised"
        assert reading["own_bytes"] == 0
        assert reading["foreign_bytes"] == CONTEXT_BYTES
        assert process.read()["own_bytes"] == CONTEXT_BYTES


def test_a_child_makes_its_own_context(gpu: SimulatedGpu) -> None:
    """The parent has only read; nothing of the driver was initialised before the fork."""
    with DeviceProcess(gpu) as process:
        assert process.read()["own_bytes"] == 0
        answer = process.run(
            'result = in_fork("context(); allocate(2**21); result = [os.getpid(), reading()]")'
        )
        pid, reading = answer["result"]
        assert reading["own_bytes"] == CONTEXT_BYTES + 2 * MIB
        assert reading["attribution"]["own_pid"] == pid
        assert process.read()["own_bytes"] == 0


def test_a_fork_while_another_thread_reads(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu, faults=f"{MEMORY}: latency_us=2000") as process:
        answers = process.run(
            """
import threading, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads, rightly
stop = threading.Event()
def read():
    while not stop.is_set():
        _core.read_device(0)
thread = threading.Thread(target=read)
thread.start()
result = [in_fork("result = reading()['own_bytes']", limit_s=20) for _ in range(20)]
stop.set()
thread.join()
"""
        )
        assert answers == [{"result": 0}] * 20


# ---------------------------------------------------------------- NVML taken away


def test_somebody_shuts_nvml_down(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run("context()")
        before = process.read()
        process.run(
            """
nvml = ctypes.CDLL("libnvidia-ml.so.1")
count = ctypes.c_uint()
for _ in range(100):
    nvml.nvmlShutdown()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 1: break
else:
    raise RuntimeError("it stays initialised")
"""
        )
        after = process.read()
        assert after["source"] == before["source"] == "nvml_v2"
        assert after["own_bytes"] == CONTEXT_BYTES


@pytest.mark.parametrize("code", [17, 999])
def test_nvml_is_initialised_again_when_access_comes_back(gpu: SimulatedGpu, code: int) -> None:
    """nvidia-docker#1671: the control group takes the devices away, and gives them back."""
    functions = ("nvmlInitWithFlags", "nvmlInit_v2")
    faults = "; ".join(f"{name}: error={code} for=1" for name in functions)
    with DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        before = process.read()
        assert (before["source"], before["own_bytes"]) == ("cuda", None)
        after = process.read()
        assert (after["source"], after["own_bytes"]) == ("nvml_v2", CONTEXT_BYTES)


def test_access_that_stays_away_is_not_asked_for_in_a_loop(
    gpu: SimulatedGpu, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    faults = "nvmlDeviceGetMemoryInfo*: error=999; nvmlInitWithFlags: error=3"
    with DeviceProcess(gpu, faults=faults, env={"MEMACCT_SIM_LOG": str(log)}) as process:
        process.run(
            """
begin_ns = _core.monotonic_ns()
answers = [attempt(_core.read_device, 0) for _ in range(100)]
assert all("999" in answer["text"] for answer in answers), answers
"""
        )
        seconds = process.run("result = (_core.monotonic_ns() - begin_ns) / 1e9")
    initialised_count = log.read_text().count("nvmlInitWithFlags returns 3")
    # At first, at once after the first failure, and after each second that has passed.
    assert 2 <= initialised_count <= 2 + int(seconds) + 1


def test_a_lost_device_stays_lost_over_an_initialisation() -> None:
    with SimulatedGpu(count=2) as gpu:
        rules = "nvmlDeviceGetMemoryInfo_v2: error=15 for=1"
        with DeviceProcess(gpu, faults=rules) as process:
            assert process.run("result = attempt(_core.read_device, 0)")["raised"] == "DriverError"
            process.run(
                """
nvml = ctypes.CDLL("libnvidia-ml.so.1")
count = ctypes.c_uint()
while nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0: nvml.nvmlShutdown()
"""
            )
            assert process.read(1)["index"] == 1  # initialises again
            error = process.run("result = attempt(_core.read_device, 0)")
            assert (error["raised"], "15" in error["text"]) == ("DriverError", True)


def test_closed_devices_open_again(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run("context()")
        process.read()
        for _ in range(3):
            process.run("_core.close_devices(); _core.close_devices()")
            assert process.read()["own_bytes"] == CONTEXT_BYTES


def test_a_lost_device_stays_lost_until_closed(gpu: SimulatedGpu) -> None:
    rule = "nvmlDeviceGetMemoryInfo_v2: error=15 for=1"
    with DeviceProcess(gpu, faults=rule) as process:
        for _ in range(2):
            error = process.run("result = attempt(_core.read_device, 0)")
            assert error["raised"] == "DriverError"
            assert "15" in error["text"]
        process.run("_core.close_devices()")
        assert process.read()["total_bytes"] == 32 * GIB


def test_one_lost_device_does_not_hide_the_other() -> None:
    with SimulatedGpu(count=2) as gpu:
        rule = "nvmlDeviceGetMemoryInfo_v2: error=15 for=1"
        with DeviceProcess(gpu, faults=rule) as process:
            (left,) = process.run("result = attempt(_core.read_devices, 'all')")
            assert left["index"] == 1
            notes = process.run("result = _core.driver_diagnosis()['notes']")
            assert any("left out" in note for note in notes)


@pytest.mark.parametrize("code", [15, 16])
@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetName", "nvmlDeviceGetPciInfo*", "nvmlDeviceGetUUID"]
)
def test_a_device_lost_before_its_first_reading_hides_no_other(function: str, code: int) -> None:
    with SimulatedGpu(count=3) as gpu:
        rule = f"{function}: error={code} for=1"
        with DeviceProcess(gpu, faults=rule) as process:
            for _ in range(2):
                left = process.run("result = attempt(_core.read_devices, 'all')")
                assert [device["index"] for device in left] == [1, 2]
                error = process.run("result = attempt(_core.read_device, 0)")
                assert error["raised"] == "DriverError"
                assert str(code) in error["text"]
            listed = process.run("result = [d.index for d in _core.list_devices()]")
            assert listed == [0, 1, 2]


def test_no_driver_at_all() -> None:
    with SimulatedGpu() as gpu:
        env = {"MEMACCT_NVML_LIBRARY": "/nonexistent/libnvidia-ml.so.1"}
        with DeviceProcess(gpu, env=env) as process:
            assert process.run("result = attempt(_core.read_devices)") == []
            for call in ("_core.list_devices", "_core.read_devices, 'all'", "_core.read_device, 0"):
                error = process.run(f"result = attempt({call})")
                assert error["raised"] == "SourceUnavailableError"
                assert "/nonexistent" in error["text"]
            # A live context is still readable, by CUDA alone.
            process.run("context()")
            reading = process.read()
            assert reading["source"] == "cuda"
            assert reading["index"] is None
            assert reading["own_bytes"] is None
