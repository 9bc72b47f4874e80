"""The active rung: beside neighbours that move, in one that moves, and where it must not run."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct._units import GIB, MIB
from memacct.sim import CallFault, Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTEXT_BYTES = 400 * MIB
LARGEST_BYTES = 62 * MIB
LIST = "nvmlDeviceGetComputeRunningProcesses_v2"
HOST = Faults(pids="host")
# So slow that two who do it at once do it by turns, also on one core.
SLOW = CallFault(function=LIST, latency_us=200)
MOVER = """
import random, threading
context()
stop = threading.Event()
moves_count = 0
def move():
    global moves_count
    call("cuInit", 0)
    held = 0
    while not stop.is_set():
        if held and random.random() < 0.5:
            release()
            held -= 1
        elif held < 8:
            allocate(random.randrange(1, 32) * 2**21)
            held += 1
        moves_count += 1
    for _ in range(held):
        release()
mover = threading.Thread(target=move)
mover.start()
"""
STILL = "stop.set(); mover.join(); result = moves_count"


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB") as machine:
        yield machine


def listed(pid: int) -> int:
    """The number under which the world "host" lists it (faults.cpp)."""
    return ((pid - 1) ^ (1 << 21)) + 1


def identify(process: DeviceProcess) -> dict[str, Any]:
    attribution: dict[str, Any] = process.run("result = attempt(_core.identify, 0)")
    return attribution


def identify_often(process: DeviceProcess, count: int) -> list[int | None]:
    """Each time afresh: the number it found, None if it found none."""
    pids: list[int | None] = process.run(
        f"""
result = []
for _ in range({count}):
    _core.forget_identity()
    found = _core.identify(0)
    result.append(found.own_pid if found.source == "fingerprint" else None)
"""
    )
    return pids


def changes(file: Path) -> list[int]:
    """What was in use after each change that the trace tells of."""
    rows = (line.split() for line in file.read_text().splitlines())
    return [int(row[-1].removeprefix("used=")) for row in rows if "read" not in row]


# ---------------------------------------------------------------- two at once


def test_two_at_once_find_their_own_fifty_times(gpu: SimulatedGpu) -> None:
    slow = Faults(pids="host", calls=[SLOW])
    with DeviceProcess(gpu, faults=slow) as one, DeviceProcess(gpu, faults=slow) as two:
        for process in (one, two):
            process.run("context()")
        with ThreadPoolExecutor() as pool:
            found = pool.map(identify_often, (one, two), (50, 50))
            for process, pids in zip((one, two), found, strict=True):
                assert set(pids) <= {listed(process.pid), None}
                assert pids.count(listed(process.pid)) >= 45
        assert gpu.status().devices[0].device_used_bytes == 2 * CONTEXT_BYTES


def test_two_at_once_whose_own_records_are_hidden_find_nobody(gpu: SimulatedGpu) -> None:
    """The other's record is the only one that could win."""
    hidden = Faults(pids="host", pid_bytes={"self": 0}, calls=[SLOW])
    with DeviceProcess(gpu, faults=hidden) as one, DeviceProcess(gpu, faults=hidden) as two:
        for process in (one, two):
            process.run("context()")
        with ThreadPoolExecutor() as pool:
            for pids in pool.map(identify_often, (one, two), (50, 50)):
                assert pids == [None] * 50


# ---------------------------------------------------------------- those who move


def test_a_neighbour_that_moves_at_random_all_the_time(gpu: SimulatedGpu) -> None:
    """Until it has moved a thousand times beside us, and ten searches at least."""
    deadline_s = time.monotonic() + 60
    with DeviceProcess(gpu) as neighbour, DeviceProcess(gpu, faults=HOST) as process:
        neighbour.run(MOVER)
        process.run("context()")
        moves_count = 0
        while moves_count < 1000:
            assert time.monotonic() < deadline_s
            assert identify_often(process, 10) == [listed(process.pid)] * 10
            moves_count = neighbour.run("result = moves_count")
        neighbour.run(STILL)


def test_another_thread_of_ours_costs_the_answer_at_most(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=HOST) as process:
        process.run(MOVER)
        assert set(identify_often(process, 5)) <= {listed(process.pid), None}
        assert process.run(STILL) > 0
        assert identify_often(process, 1) == [listed(process.pid)]
        assert gpu.status().devices[0].process_used_bytes(process.pid) == CONTEXT_BYTES


# ---------------------------------------------------------------- bounds


def test_what_is_held_is_bounded(gpu: SimulatedGpu, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with DeviceProcess(gpu, faults=HOST, env={"MEMACCT_SIM_TRACE": str(trace)}) as process:
        process.run("context()")
        made_count = len(changes(trace))
        assert identify(process)["source"] == "fingerprint"
        used_bytes = changes(trace)[made_count:]
        assert CONTEXT_BYTES < max(used_bytes) <= CONTEXT_BYTES + LARGEST_BYTES
        assert used_bytes[-1] == CONTEXT_BYTES
        assert len(used_bytes) <= 20  # ten steps, each frees and allocates at most once


@pytest.mark.parametrize("told", [0, None])
def test_nothing_is_allocated_where_no_bytes_are_told(
    gpu: SimulatedGpu, tmp_path: Path, told: int | None
) -> None:
    trace = tmp_path / "trace"
    faults = Faults(pids="host", pid_bytes={"all": told})
    with (
        gpu.tenant("1GiB"),
        DeviceProcess(gpu, faults=faults, env={"MEMACCT_SIM_TRACE": str(trace)}) as process,
    ):
        process.run("context()")
        before = changes(trace)
        assert "tells no process's bytes" in identify(process)["reason"]
        assert changes(trace) == before


def test_out_of_memory_in_between(gpu: SimulatedGpu) -> None:
    faults = Faults(
        pids="host", calls=[CallFault(function="cuMemAlloc_v2", error=2, after_count=3)]
    )
    with DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        found = identify(process)
        assert (found["source"], found["own_pid"]) == ("none", None)
        assert "cuMemAlloc_v2 returned 2" in found["reason"]
        assert gpu.status().devices[0].process_used_bytes(process.pid) == CONTEXT_BYTES


def test_free_memory_that_gets_short_in_between(gpu: SimulatedGpu) -> None:
    """A neighbour takes nearly all while the fifth list is read."""
    take = CallFault(function=LIST, charge_bytes="+32GiB", after_count=6, for_count=1)
    with (
        gpu.tenant("1GiB"),
        DeviceProcess(gpu, faults=Faults(pids="host", calls=[take])) as process,
    ):
        process.run("context()")
        found = identify(process)
        assert found["source"] == "none"
        assert "MiB are free" in found["reason"]
        assert gpu.status().devices[0].process_used_bytes(process.pid) == CONTEXT_BYTES


def test_a_free_that_fails_ends_it(gpu: SimulatedGpu) -> None:
    fault = CallFault(function="cuMemFree_v2", error=1, for_count=1)
    with DeviceProcess(gpu, faults=Faults(pids="host", calls=[fault])) as process:
        process.run("context()")
        assert "cuMemFree_v2 returned 1" in identify(process)["reason"]
        left_bytes = gpu.status().devices[0].process_used_bytes(process.pid) - CONTEXT_BYTES
        assert 0 < left_bytes <= LARGEST_BYTES


# ---------------------------------------------------------------- stream captures

CAPTURE = """
import threading
def begin(mode):
    call("cuInit", 0)
    call("cuCtxSetCurrent", current)
    call("cuStreamBeginCapture_v2", stream, mode)
context()
current, stream = ctypes.c_void_p(), ctypes.c_void_p()
call("cuCtxGetCurrent", ctypes.byref(current))
call("cuStreamCreate", ctypes.byref(stream), 0)
"""
END = "graph = ctypes.c_void_p(); call('cuStreamEndCapture', stream, ctypes.byref(graph))"


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("begin", ["begin({mode})", "other({mode})"])
def test_a_stream_capture_is_unharmed(gpu: SimulatedGpu, mode: int, begin: str) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=HOST) as process:
        process.run(CAPTURE)
        process.run(
            """
def other(mode):
    thread = threading.Thread(target=begin, args=(mode,))
    thread.start()
    thread.join()
"""
        )
        process.run(begin.format(mode=mode))
        assert identify(process)["source"] == "fingerprint"
        process.run(END)
        process.run(f"begin({mode})")
        with pytest.raises(AssertionError, match="cuMemAlloc_v2"):
            process.run(f"allocate({MIB})")  # what would have happened to it
        with pytest.raises(AssertionError, match="cuStreamEndCapture"):
            process.run(END)


def test_it_does_not_run_where_a_capture_cannot_be_protected(gpu: SimulatedGpu) -> None:
    faults = Faults(pids="host", missing=["cuThreadExchangeStreamCaptureMode"])
    with DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        assert "stream capture" in identify(process)["reason"]


# ---------------------------------------------------------------- what was found, later


def test_the_record_goes_and_comes_back_with_the_context(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=HOST) as process:
        process.run("context()")
        assert identify(process)["source"] == "fingerprint"
        process.run("call('cuCtxSetCurrent', None); call('cuDevicePrimaryCtxReset_v2', 0)")
        gone = process.read()
        assert gone["own_bytes"] == 0
        assert "not listed now" in gone["attribution"]["reason"]
        process.run(f"context(); allocate({GIB})")
        assert process.read()["own_bytes"] == GIB + CONTEXT_BYTES


def test_another_program_in_our_place_knows_nothing(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=HOST) as process:
        process.run("context()")
        assert identify(process)["source"] == "fingerprint"
        assert process.run("become_another_program()") is None
        process.run("context()")
        assert process.read()["own_bytes"] is None
