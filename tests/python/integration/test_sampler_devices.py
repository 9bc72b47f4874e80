"""Devices under the sampler: who moved, what a slow or lost device does, what a program notices."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct._units import GIB, MIB
from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
MEMORY = "nvmlDeviceGetMemoryInfo_v2"
LIMIT_S = 30.0

SETUP = """
import time, memacct
def start(*args, **options):
    global sampler
    sampler = memacct.Sampler(*args, **options).start()
def eventually(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
def wait(more=2):
    # `more` readings that began after this call
    counts = sampler._native.device_counts
    before = counts().taken_count
    eventually(lambda: counts().taken_count > before + more)
"""


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", reserved_bytes="500MiB") as machine:
        yield machine


def trace_of(process: DeviceProcess) -> dict[str, Any]:
    trace: dict[str, Any] = process.run("sampler.stop(); result = sampler.trace().to_dict()")
    return trace


def events_of(process: DeviceProcess, arguments: str = "") -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = process.run(
        f"from dataclasses import asdict\n"
        f"result = [asdict(e) for e in sampler.trace().foreign_events({arguments})]"
    )
    return events


def test_who_moved_when_and_by_how_much(gpu: SimulatedGpu) -> None:
    """A neighbour appears, grows twice, shrinks and exits; each move between two known times."""
    with DeviceProcess(gpu) as process:
        process.run(SETUP + "context(); start(None, device_hz=200, driver_budget_ratio=1); wait()")
        moves: list[tuple[str, int, int, int]] = []

        def settle(kind: str, change: int, begun_ns: int) -> None:
            moves.append((kind, change, begun_ns, time.monotonic_ns()))
            process.run("wait()")

        begun = time.monotonic_ns()
        with gpu.tenant("1GiB") as tenant:
            process.run("wait()")
            appeared = time.monotonic_ns()
            begun_grow = time.monotonic_ns()
            tenant.allocate("3GiB")
            settle("grow", 3 * GIB, begun_grow)
            begun_shrink = time.monotonic_ns()
            tenant.free("2GiB")
            settle("shrink", -2 * GIB, begun_shrink)
            pid = tenant.pid
            begun_exit = time.monotonic_ns()
        settle("exit", -(2 * GIB + CONTEXT_BYTES), begun_exit)
        trace = trace_of(process)
        events = events_of(process)
    # Its context and its first allocation may fall between two samples, or not.
    start = [event for event in events if event["before_ns"] < begun_grow]
    assert start[0]["kind"] == "appear"
    assert sum(event["change_bytes"] for event in start) == GIB + CONTEXT_BYTES
    assert all(begun - 1e9 < event["after_ns"] < appeared for event in start)
    # Of an exit, a sample may see the memory go before the record does.
    rest = events[len(start) :]
    assert [(e["kind"], e["change_bytes"]) for e in rest[:2]] == [
        (k, c) for k, c, _, _ in moves[:2]
    ]
    assert sum(e["change_bytes"] for e in rest[2:]) == moves[2][1]
    assert rest[-1]["kind"] == "exit"
    for event, (_, _, began_ns, ended_ns) in zip(rest, moves, strict=False):
        assert event["after_ns"] < ended_ns
        assert event["before_ns"] > began_ns
    assert {event["pid"] for event in events} == {pid}
    assert {event["name"] for event in events} == {"memacct_simctl"}
    foreign = [row["foreign_bytes"] for row in trace["devices"]]
    assert sum(event["change_bytes"] for event in events) == foreign[-1] - foreign[0] == 0
    assert max(foreign) == 4 * GIB + CONTEXT_BYTES
    assert trace["error_counts"] == {}


def test_every_row_keeps_the_device_equation(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB") as tenant, DeviceProcess(gpu) as process:
        process.run(SETUP + "context(); start(None, device_hz=500, driver_budget_ratio=1); wait()")
        for _ in range(20):
            tenant.allocate(64 * MIB)
            tenant.free(64 * MIB)
        process.run("allocate(2**30); wait()")
        trace = trace_of(process)
    (device,) = trace["device_list"]
    assert device["uuid"].startswith("GPU-")
    assert device["index"] == 0
    for row in trace["devices"]:
        parts = ("free", "reserved", "own", "tree", "foreign", "unattributed")
        assert sum(row[f"{part}_bytes"] for part in parts) == row["total_bytes"]
        assert row["attribution"] == "pid"
        assert row["attempts_count"] >= 1
    last = trace["devices"][-1]
    assert last["own_bytes"] == CONTEXT_BYTES + GIB
    assert (last["own_low_bytes"], last["own_high_bytes"]) == (last["own_bytes"],) * 2
    listed = [row for row in trace["processes"] if row["taken_ns"] == last["taken_ns"]]
    assert {row["owner"]: row["process_used_bytes"] for row in listed} == {
        "own": CONTEXT_BYTES + GIB,
        "foreign": CONTEXT_BYTES + GIB,
    }
    assert json.loads(json.dumps(trace)) == trace


def test_small_moves_can_be_left_to_add_up(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB") as tenant, DeviceProcess(gpu) as process:
        process.run(SETUP + "context(); start(None, device_hz=500, driver_budget_ratio=1); wait()")
        for _ in range(8):
            tenant.allocate(4 * MIB)
            process.run("wait()")
        process.run("sampler.stop()")
        every, some = events_of(process), events_of(process, "min_bytes='10MiB'")
    assert [event["change_bytes"] for event in every] == [4 * MIB] * 8
    assert [event["change_bytes"] for event in some] == [12 * MIB, 12 * MIB, 8 * MIB]


def test_without_a_context_nothing_is_asked_until_there_is_one(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run(SETUP + "start(None, device_hz=200, driver_budget_ratio=1); wait()")
        before = process.run("result = sampler.trace().to_dict()")
        assert before["devices"] == []
        assert before["error_counts"] == {}
        process.run("context(); wait()")
        trace = trace_of(process)
    assert trace["devices"][-1]["own_bytes"] == CONTEXT_BYTES


def test_a_lost_device_is_counted_and_the_host_goes_on(gpu: SimulatedGpu) -> None:
    rule = f"{MEMORY}: error=15 after=20"
    with DeviceProcess(gpu, faults=rule) as process:
        process.run(
            SETUP
            + "context(); start(1000, device_hz=200, driver_budget_ratio=1)\n"
            + "eventually(lambda: sampler._native.device_counts().error_count >= 3)\n"
            + "n = sampler._native.host_counts().taken_count\n"
            + "eventually(lambda: sampler._native.host_counts().taken_count > n + 10)"
        )
        trace = trace_of(process)
    assert set(trace["error_counts"]) == {"driver"}
    assert trace["error_counts"]["driver"] == trace["device_counts"]["error_count"] >= 3
    assert "15" in trace["last_error"]
    assert trace["devices"]  # what was read before it was lost
    assert trace["host_counts"]["error_count"] == 0
    errors = [note for note in trace["notes"] if note[1] == "error"]
    assert errors
    assert "15" in errors[0][4]


def test_one_lost_device_hides_neither_the_other_nor_itself() -> None:
    with SimulatedGpu(count=2) as gpu:
        rule = f"{MEMORY}: error=15 for=1 after=40"
        with DeviceProcess(gpu, faults=rule) as process:
            process.run(
                SETUP
                + "start(None, device_hz=200, driver_budget_ratio=1, devices='all')\n"
                + "eventually(lambda: sampler._native.device_counts().error_count >= 3)\nwait()"
            )
            trace = trace_of(process)
        assert len(trace["device_list"]) == 2
        last = max(row["taken_ns"] for row in trace["devices"])
        left = [row for row in trace["devices"] if row["taken_ns"] > last - 1_000_000]
        assert len({row["device"] for row in left}) == 1
        assert trace["error_counts"]["driver"] >= 3


# ---------------------------------------------------------------- a slow driver

SLOW = f"{MEMORY}: latency_us=20000"


def test_a_slow_driver_lowers_the_rate_and_the_host_goes_on(gpu: SimulatedGpu) -> None:
    """Each reading takes some 20 ms: at 100 Hz and 10 % it can be had five times a second."""
    with DeviceProcess(gpu, faults=SLOW) as process:
        process.run(
            SETUP
            + "context(); start(500, device_hz=100, driver_budget_ratio=0.1)\n"
            + "eventually(lambda: sampler._native.device_counts().taken_count >= 6)"
        )
        trace = trace_of(process)
        (rate,) = process.run("result = [sampler.trace().device_hz_in_effect()]")
    counts = trace["device_counts"]
    times = [row["taken_ns"] for row in trace["devices"]]
    assert counts["skipped_count"] > 0
    assert counts["period_ns"] == 10_000_000
    assert counts["period_in_effect_ns"] > 50_000_000
    assert rate < 20  # of 100
    # The law of the budget: cost <= ratio * time + what may be saved + one reading.
    spans = [row["span_ns"] for row in trace["devices"]]
    elapsed = times[-1] - times[0]
    assert sum(spans[:-1]) <= 0.1 * elapsed + 20e6 + max(spans)
    assert any(note[1] == "gap" for note in trace["notes"])
    host = [row["taken_ns"] for row in trace["host"]]
    between = [t for t in host if times[0] <= t < times[0] + spans[0]]
    assert between, "no host sample during a reading of the device"


def test_a_stop_beside_a_slow_driver_waits_for_its_reading_only(gpu: SimulatedGpu) -> None:
    rule = f"{MEMORY}: latency_us=300000"
    with DeviceProcess(gpu, faults=rule) as process:
        process.run(SETUP + "context(); start(None, device_hz=1000, driver_budget_ratio=1)")
        process.run("eventually(lambda: sampler._native.device_counts().taken_count >= 1)")
        assert process.run("sampler.stop(); sampler.stop(); result = sampler.state") == "stopped"


def test_a_fork_beside_a_slow_driver(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu, faults=f"{MEMORY}: latency_us=3000") as process:
        process.run(
            SETUP
            + "import warnings; warnings.simplefilter('ignore')\n"
            + "context(); start(2000, device_hz=1000, driver_budget_ratio=1); wait()"
        )
        answers = process.run(
            """
sampler.trace()  # imports numpy, which each child would have to
result = [in_fork("sampler.stop(); result = [sampler.state, len(sampler.trace().host) > 0,"
                  " reading()['own_bytes']]", limit_s=20) for _ in range(10)]
"""
        )
        assert answers == [{"result": ["forked", True, 0]}] * 10
        assert process.run("wait(); result = sampler.state") == "running"


def test_residue_and_peaks_of_a_device(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run(SETUP + "context(); start(None, device_hz=500, driver_budget_ratio=1); wait()")
        process.run(
            "for _ in range(3):\n"
            "    allocate(2**30); wait(); release(); allocate(20 * 2**20); wait()\n"
            "sampler.stop()"
        )
        floors, alarm, calm, sampled, text = process.run(
            """
trace = sampler.trace()
trend = trace.residue_trend(windows_count=3, alarm_bytes_per_hour="64MiB")
calm = trace.residue_trend(windows_count=3, alarm_bytes_per_hour=2**62)
(peak,) = [p for p in trace.peaks() if p.name == "own_bytes"]
result = [trend.floors, trend.alarm, calm.alarm, peak.sampled_bytes, str(peak)]
"""
        )
    assert floors[0][1] == CONTEXT_BYTES
    assert floors[-1][1] > floors[0][1]
    assert (alarm, calm) == (True, False)
    assert sampled == CONTEXT_BYTES + GIB + 40 * MIB
    assert "at least" in text


def test_a_snapshot_waits_for_one_device_at_the_most() -> None:
    """Four slow devices, read without a pause: the program's own readings go in between."""
    with SimulatedGpu(count=4) as gpu:
        rule = f"{MEMORY}: latency_us=10000"
        with DeviceProcess(gpu, faults=rule) as process:
            process.run(
                SETUP
                + "context(); start(None, device_hz=1000, devices='all', driver_budget_ratio=1)\n"
                + "wait()"
            )
            readings = process.run(
                """
result = []
for _ in range(10):
    asked_ns = time.monotonic_ns()
    result.append([asked_ns, _core.read_device(0).taken_ns])
    wait(0)
"""
            )
            trace = trace_of(process)
        begun = [row["taken_ns"] for row in trace["devices"]]
        overtaken = [sum(asked < t < taken for t in begun) for asked, taken in readings]
        # One may begin between our question and our waiting.
        assert max(overtaken) <= 1, overtaken
        assert len(begun) >= 40
