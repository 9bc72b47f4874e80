"""A real vLLM 0.33.0 that sleeps and wakes beside a neighbour that takes what it gave back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from warm_place import Place, report

from memacct._units import GIB, MIB
from memacct.demo import SimulatedWorld
from memacct.demo.neighbour import Neighbour
from memacct.demo.warm import WarmEngines
from memacct.sim import CallFault, Faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.demo import Bench, EngineResult

pytestmark = pytest.mark.engine

SHARE = 0.3  # 9.6 GiB of the device
GROWTH_BYTES = 12 * GIB
SAYS_ASLEEP = "asleep, this process still holds"
NO_LISTS = Faults(calls=[CallFault(function="nvmlDeviceGetComputeRunningProcesses*", error=999)])


def sleeper(
    place: Place, name: str, memacct: dict[str, object] | None, level: int = 1
) -> EngineResult:
    """Goes to sleep while the neighbour takes more than it gives back, and wakes."""
    place.hold(0)
    return place.start(
        name,
        memacct,
        at_cue=("sleeping", lambda: place.hold(GROWTH_BYTES)),
        steps=(("sleep", level), ("wake_up",), ("generate",)),
        enable_sleep_mode=True,
        gpu_memory_utilization=SHARE,
    )


def test_stock_ends_with_its_assertion(place: Place) -> None:
    stock = sleeper(place, "sleeps-stock", None)
    assert stock.raw["steps"][0] == "AssertionError: Memory usage increased after sleeping."


@pytest.mark.parametrize("level", [1, 2])
def test_a_neighbour_that_allocates_meanwhile_does_not_end_it(place: Place, level: int) -> None:
    native = sleeper(place, f"sleeps-{level}", {"timeline": True}, level)
    assert native.raw["steps"] == ["done", "done", "done"]
    lines = "".join(p.read_text() for p in (native.log_path.parent / "memacct").glob("*.jsonl"))
    assert lines.count("Worker.sleep") == lines.count("Worker.wake_up") == 2  # begin and end
    slept, woke = report(native)["after_start"]
    # Weights and KV cache are gone, the context is not.
    assert slept["freed_bytes"] > 9 * GIB
    held = {row["name"]: row["now_bytes"] for row in slept["rows"]}
    own = ("weights", "other tensors", "torch cached", "torch asleep", "non-torch")
    assert sum(held.get(name, 0) for name in own) == slept["own_bytes"] < 1 * GIB
    assert held["torch asleep"] < -9 * GIB
    (other,) = (name for name in held if name.startswith(f"pid {place.neighbour.pid} "))
    assert held[other] == GROWTH_BYTES + 400 * MIB
    # What is woken is what was unmapped.
    assert woke["wanted_bytes"] == -held["torch asleep"]


def short_of_memory(place: Place, name: str, memacct: dict[str, object]) -> EngineResult:
    """Wakes when the neighbour has left too little, which it gives back when that is said."""
    folder = place.engines.bench.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "taken", folder / "released"]
    for file in files:
        file.unlink(missing_ok=True)
    place.hold(0)

    def take_all() -> None:
        place.neighbour.command(f"leave {4 * GIB}")
        files[0].touch()

    def release() -> None:
        place.neighbour.command("release")
        files[1].touch()

    return place.start(
        name,
        memacct,
        once_said={SAYS_ASLEEP: take_all, "waking takes ": release},
        steps=(
            ("sleep", 1),
            ("stay", str(files[0])),
            ("wake_up",),
            ("stay", str(files[1])),
            ("wake_up",),
            ("generate",),
        ),
        enable_sleep_mode=True,
        gpu_memory_utilization=SHARE,
    )


def test_waking_waits_for_memory(place: Place) -> None:
    native = short_of_memory(place, "wakes-late", {"on_shortfall": "wait", "wait_s": 60})
    assert native.raw["steps"] == ["done"] * 6
    assert f"pid {place.neighbour.pid} (" in native.log()
    assert "memacct: waited " in native.log()


def test_waking_says_what_is_missing_before_it_runs_out(place: Place) -> None:
    native = short_of_memory(place, "wakes-not", {"on_shortfall": "error"})
    refused = native.raw["steps"][2]
    assert refused.startswith("BudgetError: waking takes ")
    told = report(native)["shortfall"]
    (wait,) = told["suggestions"]
    assert wait["change"] == "wait"
    woke = next(e for e in report(native)["after_start"] if e["event"] == "wake_up")
    assert wait["value"] == woke["wanted_bytes"] - woke["free_bytes"] > 0
    # Nothing was mapped meanwhile: the same engine wakes when the memory is there.
    assert native.raw["steps"][3:] == ["done"] * 3


@pytest.fixture(scope="module")
def silent_place(bench: Bench) -> Iterator[Place]:
    """Where the driver tells nobody's memory."""
    world = SimulatedWorld(python=bench.python, faults=NO_LISTS)
    folder = replace(bench, folder=bench.folder.parent / "warm")
    with (
        world.machine(device_count=1, host_pids=False) as machine,
        WarmEngines(folder, machine, count=False) as engines,
        Neighbour(machine.neighbour_environ()) as neighbour,
    ):
        yield Place(engines, neighbour)


def test_it_sleeps_where_the_driver_tells_nothing(silent_place: Place) -> None:
    native = sleeper(silent_place, "sleeps-silent", {})
    assert native.raw["steps"] == ["done", "done", "done"]
    assert "its own did not grow" in native.log()
