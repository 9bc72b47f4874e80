"""A driver that does not say whose memory it is: the engine starts, at least as stock would."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from memacct.demo import TOLERANCE_BYTES, Runner, SimulatedWorld
from memacct.demo.scenarios import ALLOCATES, GRAPH_PROFILING, GROW_3_GIB, RELEASES
from memacct.sim import CallFault, Faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Starts

    from memacct.demo import Bench, EngineResult, Scenario

pytestmark = pytest.mark.engine

UNKNOWN_ERROR = 999
FAULTS = {
    "lists-fail": Faults(
        calls=[CallFault(function="nvmlDeviceGetComputeRunningProcesses*", error=UNKNOWN_ERROR)]
    ),
    "lists-missing": Faults(
        missing=[
            "nvmlDeviceGetComputeRunningProcesses",
            "nvmlDeviceGetComputeRunningProcesses_v2",
            "nvmlDeviceGetComputeRunningProcesses_v3",
        ]
    ),
    "own-bytes-not-available": Faults(pid_bytes={"all": None}),
    "memory-fails": Faults(
        calls=[CallFault(function="nvmlDeviceGetMemoryInfo*", error=UNKNOWN_ERROR)]
    ),
}


# Two calls a reading: those of the identification, of the baseline and of the profile run pass,
# and the driver falls silent between two samples of a CUDA graph.
FALLS_SILENT = Faults(
    calls=[
        CallFault(
            function="nvmlDeviceGetComputeRunningProcesses*", error=UNKNOWN_ERROR, after_count=10
        )
    ]
)
GRAPHS_AFTER_GROWTH = replace(
    GRAPH_PROFILING,
    key="silent",
    title="neighbour allocates 3 GiB during profiling, then the driver falls silent",
    moves=(GROW_3_GIB,),
)


def native_with(
    fault: str, scenario: Scenario, bench: Bench, say: Callable[[str], None]
) -> EngineResult:
    world = SimulatedWorld(python=bench.python, faults=FAULTS[fault])
    named = replace(scenario, key=f"{scenario.key}-{fault}")
    return Runner(bench, world, say).outcomes(named, "native")[0]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_engine_starts_as_stock_would(
    fault: str, starts: Starts, bench: Bench, say: Callable[[str], None]
) -> None:
    native = native_with(fault, ALLOCATES, bench, say)
    stock, isolated = starts.stock(ALLOCATES), starts.isolated(ALLOCATES)
    assert native.served, native.error
    assert native.kv_cache_bytes is not None
    assert stock.kv_cache_bytes is not None
    assert isolated.kv_cache_bytes is not None
    # Never worse than stock, never more than what is right.
    assert native.kv_cache_bytes >= stock.kv_cache_bytes - TOLERANCE_BYTES
    assert native.kv_cache_bytes <= isolated.kv_cache_bytes + TOLERANCE_BYTES


def test_without_lists_a_neighbour_that_releases_does_not_stop_the_start(
    bench: Bench, say: Callable[[str], None]
) -> None:
    native = native_with("lists-fail", RELEASES, bench, say)
    assert native.served, native.error
    assert native.kv_cache_bytes


def test_a_driver_that_falls_silent_between_graph_samples_costs_nothing(
    starts: Starts, bench: Bench, say: Callable[[str], None]
) -> None:
    isolated = starts.isolated(GRAPHS_AFTER_GROWTH)
    world = SimulatedWorld(python=bench.python, faults=FALLS_SILENT)
    native = Runner(bench, world, say, like=starts.runner).outcomes(GRAPHS_AFTER_GROWTH, "native")[
        0
    ]
    assert native.served, native.error
    assert "taken to stand still" in native.log()
    assert native.kv_cache_bytes is not None
    assert isolated.kv_cache_bytes is not None
    assert abs(native.kv_cache_bytes - isolated.kv_cache_bytes) <= TOLERANCE_BYTES
