"""The profiling pass of a real process on the simulated GPU, beside neighbours that move."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import memacct
from memacct._units import GIB, MIB
from memacct.profile import profile_pass
from memacct.sim import Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

# An engine in miniature: takes its context, then profiles while it loads 512 MiB. At each
# pause the test moves the neighbours.
ENGINE = """
import ctypes, dataclasses, json, sys
cuda = ctypes.CDLL("libcuda.so.1")
def check(code):
    assert code == 0, code
def allocate(size):
    pointer = ctypes.c_uint64()
    check(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)))
    return pointer
def pause(what):
    print(what, flush=True)
    sys.stdin.readline()
check(cuda.cuInit(0))
context = ctypes.c_void_p()
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
import memacct
from memacct.profile import profile_pass
options = json.loads(sys.argv[1])
try:
    with profile_pass(0, **options) as profiling:
        pause("started")
        allocate(384 << 20)
        profiling.mark("weights")
        allocate(128 << 20)
        pause("loaded")
    result = profiling.result
    print(json.dumps({
        "consumed": result.consumption.consumed_bytes,
        "source": result.consumption.source,
        "reason": result.consumption.reason,
        "foreign_delta": result.foreign_delta_bytes,
        "foreign": [[c.event, c.delta_bytes] for c in result.foreign],
        "marks": [[m.name, m.consumption.consumed_bytes] for m in result.marks],
        "budget": result.budget and dataclasses.asdict(result.budget),
        "attribution": result.marks[-1].reading.device.attribution.source,
    }))
except memacct.BudgetError as error:
    print(json.dumps({"error": str(error)}))
"""


@contextmanager
def engine(
    gpu: SimulatedGpu, faults: Faults | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    process: subprocess.Popen[str] = gpu.popen(
        [sys.executable, "-c", ENGINE, json.dumps(options)],
        faults=faults,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def reach(process: subprocess.Popen[str], what: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == what


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    assert process.wait(60) == 0
    return found


def run_beside(move: str, faults: Faults | None = None, **options: Any) -> dict[str, Any]:
    """Profiles while a neighbour of 7 GiB does ``move`` after the baseline."""
    with (
        SimulatedGpu(total_bytes="32GiB") as gpu,
        gpu.tenant("7GiB") as neighbour,
        engine(gpu, faults, **options) as process,
    ):
        reach(process, "started")
        if move == "free":
            neighbour.free()
        elif move:
            neighbour.allocate(move)
        go_on(process)
        reach(process, "loaded")
        go_on(process)
        return result_of(process)


WORLDS = {"own": "pid", "host": "fingerprint", "hidden": "pid"}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("move", ["", "free", "3GiB"])
def test_the_budget_does_not_move_with_the_neighbours(move: str, world: Any) -> None:
    found = run_beside(move, Faults(pids=world), budget_bytes=8 * GIB)
    moved = {"": 0, "free": -7 * GIB, "3GiB": 3 * GIB}[move]
    assert found["consumed"] == 512 * MIB
    assert found["budget"]["final_bytes"] == 8 * GIB - 512 * MIB
    assert not found["budget"]["clamped"]
    assert found["foreign_delta"] == moved
    assert found["source"] == "own+tree"
    assert found["attribution"] == WORLDS[world]
    assert found["marks"] == [["baseline", 0], ["weights", 384 * MIB], ["end", 512 * MIB]]
    if world != "hidden" and move:
        assert found["foreign"] == [["grew" if moved > 0 else "shrank", moved]]
    if world == "hidden":
        assert found["foreign"] == []


def test_the_budget_is_clamped_to_what_the_neighbours_left() -> None:
    found = run_beside("20GiB", budget_bytes=8 * GIB, margin_bytes=64 * MIB)
    # 32 GiB less both contexts, the neighbour's 27 GiB and our 512 MiB.
    free = 32 * GIB - 800 * MIB - 27 * GIB - 512 * MIB
    assert found["budget"]["clamped"]
    assert found["budget"]["final_bytes"] == free - 64 * MIB
    assert "20.00 GiB more than at start" in found["budget"]["reason"]


def test_the_error_policy_stops() -> None:
    found = run_beside("20GiB", budget_bytes=8 * GIB, on_shortfall="error")
    assert "does not fit" in found["error"]


def test_waiting_for_a_neighbour_that_leaves() -> None:
    with SimulatedGpu(total_bytes="32GiB") as gpu, gpu.tenant() as neighbour:
        options = {"budget_bytes": 8 * GIB, "on_shortfall": "wait", "wait_s": 60.0}
        with engine(gpu, **options) as process:
            reach(process, "started")
            neighbour.allocate("28GiB")
            # Two queries are the identification's and the baseline's; the end's reading and
            # the decision's follow. It leaves once the pass has certainly begun to wait.
            neighbour.when(nvml_process_queries=40, then="free")
            go_on(process)
            reach(process, "loaded")
            go_on(process)
            found = result_of(process)
    assert not found["budget"]["clamped"]
    assert found["budget"]["final_bytes"] == 8 * GIB - 512 * MIB
    assert found["budget"]["waited_s"] > 0


def test_an_unlisted_process_is_not_taken_for_nothing() -> None:
    # Numbers all N/A, no allocator: only the device's own change is left, and said to be.
    found = run_beside("3GiB", Faults(pid_bytes={"all": None}), budget_bytes=8 * GIB)
    assert found["source"] == "device"
    assert found["consumed"] == 512 * MIB + 3 * GIB
    assert found["reason"]


def test_a_pass_has_no_result_before_its_end() -> None:
    with pytest.raises(ValueError, match="no result before"):
        _ = profile_pass(0).result
    with pytest.raises(ValueError, match="only inside"):
        profile_pass(0).mark("weights")


def test_without_a_driver_it_says_so() -> None:
    with pytest.raises(memacct.SourceUnavailableError), profile_pass("GPU-none"):
        raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_bytes": -1}, "budget_bytes is -1"),
        ({"margin_bytes": -2}, "margin_bytes is -2"),
        ({"wait_s": -0.5}, "wait_s is -0.5"),
        ({"on_shortfall": "panic"}, r"'panic'; allowed is clamp \| wait \| error"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profile_pass(0, **options)
