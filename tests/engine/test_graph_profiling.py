"""CUDA-graph profiling beside a neighbour that moves in its second sample, to the byte.

vLLM measures the first two graphs of n and takes the second for each of the others: what a
neighbour takes during the second sample is charged to the engine n - 1 times.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest
from starts_plan import ENGINES, GRAPH_SIZES

from memacct._units import MIB
from memacct.demo.scenarios import GRAPH_PROFILING, GRAPHS
from memacct.demo.warm import Pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Starts

    from memacct.demo import EngineResult, Scenario
    from memacct.demo.warm import WarmEngines

    Estimate = Callable[[str, str, int], int]

pytestmark = pytest.mark.engine

# Each capture is two counted calls: this one begins the second sample's.
SECOND_CAPTURE = Pause(kind="graphs", call=2)
HELD_BYTES = 1024 * MIB
RUNNERS = ["graphs-v1", "graphs-v2"]
# A graph of the warm fixture's machine costs 4 MiB: so much less leaves a sample above the 1 MiB
# that vLLM takes at least.
EXACT_MOVES = [256 * MIB, 2 * MIB, -2 * MIB]
LARGE_RELEASE = -512 * MIB


@pytest.fixture(scope="session")
def estimate(warm: WarmEngines) -> Estimate:
    """The engine's estimate with a profiler and a move; each start is made once."""

    @cache
    def find(runner: str, profiler: str, moved_bytes: int) -> int:
        result = start(warm, runner, profiler, moved_bytes)
        assert result.served, result.error
        found: int = result.workers[0]["graphs_estimate_bytes"]
        return found

    return find


def start(warm: WarmEngines, runner: str, profiler: str, moved_bytes: int) -> EngineResult:
    options = ENGINES[runner] if profiler == "stock" else ENGINES[runner].native()
    name = f"graphs-{runner}-{profiler}-{moved_bytes}"
    with warm.machine.gpu.tenant(HELD_BYTES) as neighbour:
        engine = warm.start(options, name, pauses=(SECOND_CAPTURE,))
        assert engine.wait() == "pause 0"
        if moved_bytes > 0:
            neighbour.allocate(moved_bytes)
        elif moved_bytes < 0:
            neighbour.free(-moved_bytes)
        return engine.finish()


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("moved_bytes", [*EXACT_MOVES, LARGE_RELEASE])
def test_native_leaves_the_neighbour_out_to_the_byte(
    estimate: Estimate, runner: str, moved_bytes: int
) -> None:
    assert estimate(runner, "native", moved_bytes) == estimate(runner, "stock", 0)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("moved_bytes", [256 * MIB, -2 * MIB])
def test_stock_multiplies_it_by_the_graphs_that_it_does_not_measure(
    estimate: Estimate, runner: str, moved_bytes: int
) -> None:
    off_bytes = estimate(runner, "stock", moved_bytes) - estimate(runner, "stock", 0)
    assert off_bytes == moved_bytes * (len(GRAPH_SIZES) - 1)


V1_GRAPHS = replace(
    GRAPH_PROFILING,
    key="v1e",
    engines=(replace(GRAPHS, environ={"VLLM_USE_V2_MODEL_RUNNER": "0"}),),
)


@pytest.mark.parametrize("scenario", [GRAPH_PROFILING, V1_GRAPHS], ids=["v2", "v1"])
def test_with_torch_compile_native_leaves_it_out_to_the_byte(
    starts: Starts, scenario: Scenario
) -> None:
    """The demo's own starts: compiled, as many graphs as vLLM takes by itself."""
    isolated = starts.isolated(scenario).workers[0]["graphs_estimate_bytes"]
    assert isolated > 0
    assert starts.native(scenario).workers[0]["graphs_estimate_bytes"] == isolated
