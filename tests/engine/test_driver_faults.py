"""A driver that does not say whose memory it is: the engine starts, at least as stock would."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from memacct.demo import TOLERANCE_BYTES, Runner, SimulatedWorld
from memacct.demo.scenarios import ALLOCATES, RELEASES
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
