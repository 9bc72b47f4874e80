"""Other shapes of the same engine: both model runners, tensor parallel, one process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from memacct._units import GIB, MIB
from memacct.demo import TOLERANCE_BYTES, Scenario
from memacct.demo.scenarios import ALLOCATES, EAGER, GRAPH_PROFILING, GRAPHS

if TYPE_CHECKING:
    from conftest import Starts

pytestmark = pytest.mark.engine

V1 = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
V1_RUNNER = "vllm.v1.worker.gpu_model_runner.GPUModelRunner"
V2_RUNNER = "vllm.v1.worker.gpu.model_runner.GPUModelRunner"

V1_ALLOCATES = replace(ALLOCATES, key="v1c", engines=(replace(EAGER, environ=V1),))
V1_GRAPHS = replace(GRAPH_PROFILING, key="v1e", engines=(replace(GRAPHS, environ=V1),))
TWO_GPUS = replace(
    ALLOCATES,
    key="tp2",
    title="tensor parallel 2, neighbour allocates 3 GiB on the second GPU",
    engines=(replace(EAGER, tensor_parallel_size=2),),
    device_count=2,
    neighbour_device=1,
)
ONE_PROCESS = replace(
    ALLOCATES,
    key="inproc",
    engines=(replace(EAGER, environ={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}),),
)


def assert_native_is_isolated(starts: Starts, scenario: Scenario) -> None:
    native, isolated = starts.native(scenario), starts.isolated(scenario)
    assert native.served, native.error
    together = zip(native.workers, isolated.workers, strict=True)
    for found, alone in together:
        difference_bytes = found["kv_cache_bytes"] - alone["kv_cache_bytes"]
        assert abs(difference_bytes) <= TOLERANCE_BYTES


def test_the_default_runner_is_v2(starts: Starts) -> None:
    assert starts.native(ALLOCATES).workers[0]["runner"] == V2_RUNNER


def test_v1_runner(starts: Starts) -> None:
    assert_native_is_isolated(starts, V1_ALLOCATES)
    assert starts.native(V1_ALLOCATES).workers[0]["runner"] == V1_RUNNER


def test_v1_runner_with_cuda_graphs(starts: Starts) -> None:
    assert_native_is_isolated(starts, V1_GRAPHS)


def test_v1_runner_stock_multiplies_a_neighbours_move(starts: Starts) -> None:
    stock, isolated = starts.stock(V1_GRAPHS), starts.isolated(V1_GRAPHS)
    assert isolated.kv_cache_bytes is not None
    # A stock engine whose budget is eaten up by the estimate does not start at all.
    assert isolated.kv_cache_bytes - (stock.kv_cache_bytes or 0) > 10 * 256 * MIB


def test_tensor_parallel_with_a_neighbour_on_one_gpu(starts: Starts) -> None:
    assert_native_is_isolated(starts, TWO_GPUS)
    assert [worker["rank"] for worker in starts.native(TWO_GPUS).workers] == [0, 1]


def test_tensor_parallel_stock_shrinks_on_both_gpus(starts: Starts) -> None:
    stock, isolated = starts.stock(TWO_GPUS), starts.isolated(TWO_GPUS)
    for found, alone in zip(stock.workers, isolated.workers, strict=True):
        short_bytes = alone["kv_cache_bytes"] - found["kv_cache_bytes"]
        assert abs(short_bytes - 3 * GIB) <= TOLERANCE_BYTES


def test_engine_in_the_process_of_its_caller(starts: Starts) -> None:
    assert_native_is_isolated(starts, ONE_PROCESS)
