"""The profiling pass of a real process on the simulated GPU, beside neighbours that move."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import memacct
from memacct._units import GIB, MIB
from memacct.profile import profile_pass
from memacct.sim import CallFault, Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE = Path(__file__).parents[1] / "helpers" / "profiled_engine.py"


@contextmanager
def engine(
    gpu: SimulatedGpu, faults: Faults | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    process: subprocess.Popen[str] = gpu.popen(
        [sys.executable, str(ENGINE), json.dumps(options)],
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


CONTEXT_BYTES = 400 * MIB


@pytest.mark.parametrize(("start", "world"), [("driver", "own"), ("", "own"), ("", "host")])
def test_the_context_may_be_made_inside_the_pass(start: str, world: Any) -> None:
    found = run_beside("3GiB", Faults(pids=world), budget_bytes=8 * GIB, start=start)
    assert found["source"] == "own+tree", found["reason"]
    assert found["consumed"] == CONTEXT_BYTES + 512 * MIB
    assert found["foreign_delta"] == 3 * GIB


@pytest.mark.parametrize("caching", ["cached", "emptied"])
def test_the_transient_peak_counts_once(caching: str) -> None:
    # 1 GiB was taken and given back at 384 MiB of weights; 128 MiB came after it.
    found = run_beside("3GiB", budget_bytes=8 * GIB, caching=caching)
    kept = GIB if caching == "cached" else 0
    assert found["consumed"] == 512 * MIB + kept
    assert found["transient_peak"] == GIB - 128 * MIB
    still_to_come = 0 if caching == "cached" else GIB - 128 * MIB
    assert found["budget"]["final_bytes"] == 8 * GIB - 512 * MIB - kept - still_to_come


def test_a_driver_that_falls_silent_does_not_charge_us_what_others_did_before() -> None:
    lists = "nvmlDeviceGetComputeRunningProcesses*"
    # Two calls a reading (the identification's, the baseline's, the mark's), and two more where
    # a reading looks again because what is in use and nobody's has changed.
    silent = Faults(calls=[CallFault(function=lists, error=999, after_count=8)])
    found = run_beside("3GiB", silent, budget_bytes=8 * GIB)
    assert found["source"] == "held_over"
    assert found["marks"][1] == ["weights", 384 * MIB]
    assert found["consumed"] == 512 * MIB
    assert found["foreign_delta"] is None


def test_a_pass_is_entered_once_and_marked_inside() -> None:
    found = run_beside("")
    assert "entered once" in found["entered_again"]
    assert "only inside" in found["marked_late"]


def test_the_budget_is_clamped_to_what_the_neighbours_left() -> None:
    found = run_beside("20GiB", budget_bytes=8 * GIB, margin_bytes=64 * MIB)
    # 32 GiB less both contexts, the neighbour's 27 GiB and our 512 MiB.
    free = 32 * GIB - 800 * MIB - 27 * GIB - 512 * MIB
    assert found["budget"]["clamped"]
    assert found["budget"]["final_bytes"] == free - 64 * MIB
    assert "20.00 GiB more than at start" in found["budget"]["reason"]


def test_the_error_policy_stops() -> None:
    found = run_beside("20GiB", budget_bytes=8 * GIB, on_shortfall="error")
    assert "no longer fit" in found["error"]


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
