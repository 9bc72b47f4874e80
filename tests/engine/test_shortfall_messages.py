"""A real vLLM 0.33.0 that does not fit: what the log says, and that what it advises is right.

Each suggestion is applied to the same engine beside the same neighbour, which then starts; one
step less does not.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from warm_place import MODEL_LEN, report, rows, suggestion

from memacct._units import GIB, MIB
from memacct.demo.neighbour import Neighbour
from memacct.demo.scenarios import ALONE, EAGER
from memacct.demo.table import reports

if TYPE_CHECKING:
    from conftest import Starts
    from warm_place import Place

    from memacct.demo import EngineResult

pytestmark = pytest.mark.engine

STEP = 0.0001
ERROR = {"on_shortfall": "error"}
REFUSED_BY_VLLM = "ValueError: Free memory on device"
TOO_SMALL = "ValueError: To serve at least one request"
# Some MiB short of a KV cache for one request of MODEL_LEN tokens.
SCARCE = 0.0142
TOKEN_BYTES = 4 * 2 * 4 * 64 * 2  # layers, keys and values, heads, their size, bfloat16
BLOCK_TOKENS = 16


@pytest.fixture(scope="module")
def refused(place: Place) -> EngineResult:
    """Half of the GPU is asked for, of which the neighbour holds more."""
    place.hold(20 * GIB)
    return place.start("refused", ERROR, gpu_memory_utilization=0.5)


@pytest.fixture(scope="module")
def scarce(place: Place) -> EngineResult:
    """The budget is too small for one request, whatever the neighbour does."""
    place.hold(0)
    return place.start("scarce", {}, gpu_memory_utilization=SCARCE)


def table(log: str) -> dict[str, list[str]]:
    """The log's first table, by its rows' names."""
    lines = [line.partition("] ")[2] for line in log.splitlines() if "_shortfall.py" in line]
    first = next(n for n, line in enumerate(lines) if line.startswith("GiB "))
    last = next(n for n, line in enumerate(lines) if line.startswith("total "))
    cells = [[c for c in line.split("  ") if c] for line in lines[first + 1 : last + 1]]
    return {name.strip(): [value.strip() for value in values] for name, *values in cells}


def test_a_refused_start_says_who_holds_what(place: Place, refused: EngineResult) -> None:
    assert str(refused.error).startswith("BudgetError: vLLM asks for 16.00 GiB of this GPU")
    told = table(refused.log())
    (name,) = (name for name in told if name.startswith(f"pid {place.neighbour.pid} "))
    assert "memacct_neighbour.py" in name
    assert told[name][0] == f"{20 + 400 / 1024:.2f}"  # with its context
    assert told["total"][-1] == "the sum, equal to the byte"
    free = rows(refused)["free"]
    assert -free["planned_bytes"] == 16 * GIB - free["now_bytes"] > 0


def test_the_utilization_that_it_advises_starts_and_one_step_more_does_not(
    place: Place, refused: EngineResult
) -> None:
    value = suggestion(refused, "gpu_memory_utilization")
    started = place.start("applied", ERROR, gpu_memory_utilization=value)
    assert started.served, started.error
    more = place.start("one-more", gpu_memory_utilization=value + STEP)
    assert str(more.error).startswith(REFUSED_BY_VLLM)


def test_the_release_and_the_gpu_that_it_advises(place: Place, refused: EngineResult) -> None:
    release_bytes = suggestion(refused, "wait")
    assert suggestion(refused, "device") == place.gpu.status().devices[1].uuid
    place.hold(20 * GIB - release_bytes)
    started = place.start("released", ERROR, gpu_memory_utilization=0.5)
    assert started.served, started.error
    place.hold(20 * GIB)


def test_clamp_starts_with_what_is_free_less_the_margin(
    place: Place, refused: EngineResult
) -> None:
    started = place.start("clamped", {"margin": "512MiB"}, gpu_memory_utilization=0.5)
    assert started.served, started.error
    assert "the start goes on with" in started.log()
    requested_bytes = report(started)["requested_bytes"]
    spare_bytes = rows(refused)["free"]["now_bytes"] - 512 * MIB - requested_bytes
    assert 0 <= spare_bytes < 64  # of a float


def test_wait_waits_for_a_predecessor_that_is_still_exiting(place: Place) -> None:
    place.hold(10 * GIB)
    with Neighbour(place.neighbour.environ) as predecessor:
        predecessor.command(f"hold {10 * GIB}")
        started = place.start(
            "waits",
            {"on_shortfall": "wait", "wait_s": 60},
            once_said={"waiting for up to 60 s": predecessor.__exit__},
            gpu_memory_utilization=0.5,
        )
        pid = predecessor.pid
    assert started.served, started.error
    assert f"pid {pid} (" in started.log()
    assert "memacct: waited " in started.log()
    told = report(started)
    assert told["requested_bytes"] == 16 * GIB
    # The baseline is that of after the wait: nobody has moved since.
    assert told["foreign_delta_bytes"] == 0


def test_a_small_budget_says_what_is_missing(scarce: EngineResult) -> None:
    assert str(scarce.error).startswith(TOO_SMALL)
    told = rows(scarce)
    assert told["weights"]["now_bytes"] > 200 * MIB
    assert told["activations peak"]["planned_bytes"] > 0
    # One request, and the block that vLLM keeps back.
    assert told["KV cache"]["planned_bytes"] == (MODEL_LEN + BLOCK_TOKENS) * TOKEN_BYTES


def test_the_utilization_that_it_advises_holds_one_request(
    place: Place, scarce: EngineResult
) -> None:
    value = suggestion(scarce, "gpu_memory_utilization")
    assert value > SCARCE
    started = place.start("scarce-u", {}, gpu_memory_utilization=value)
    assert started.served, started.error
    less = place.start("scarce-u-less", {}, gpu_memory_utilization=value - STEP)
    assert str(less.error).startswith(TOO_SMALL)


def test_the_longest_request_that_it_advises_fits(place: Place, scarce: EngineResult) -> None:
    value = suggestion(scarce, "max_model_len")
    settings = {"gpu_memory_utilization": SCARCE}
    started = place.start("scarce-l", {}, max_model_len=value, **settings)
    assert started.served, started.error
    more = place.start("scarce-l-more", {}, max_model_len=value + 1, **settings)
    assert str(more.error).startswith(TOO_SMALL)


def test_the_batched_tokens_that_it_advises_start(place: Place, scarce: EngineResult) -> None:
    started = place.start(
        "scarce-t",
        {},
        gpu_memory_utilization=SCARCE,
        max_num_batched_tokens=suggestion(scarce, "max_num_batched_tokens"),
    )
    assert started.served, started.error


def cache_sizes(log: str, text: str) -> list[int]:
    """The sizes of `--kv-cache-memory` in the line that has this text."""
    (line,) = (line for line in log.splitlines() if text in line)
    return [int(size) for size in re.findall(r"--kv-cache-memory=(\d+)", line)]


def test_the_kv_cache_memory_that_it_advises_counts_the_neighbours(place: Place) -> None:
    place.hold(4 * GIB)
    grown = place.start(
        "grown",
        {},
        at_cue=("profiling", lambda: place.neighbour.command(f"hold {3 * GIB}")),
        gpu_memory_utilization=0.4,
    )
    assert grown.served, grown.error
    within_request, all_free = cache_sizes(grown.log(), "with the neighbours as they are now")
    stock_request, stock_free = cache_sizes(grown.log(), "Replace gpu_memory_utilization")
    # vLLM counts what was free at the start: the neighbour's growth is not in it.
    assert abs(stock_free - all_free - 3 * GIB) <= 4 * MIB
    assert abs(stock_request - within_request) <= 4 * MIB
    settings = {"gpu_memory_utilization": 0.4}
    started = place.start("all-free", {}, kv_cache_memory_bytes=all_free, **settings)
    assert started.served, started.error
    refused = place.start("stock-free", {}, kv_cache_memory_bytes=stock_free, **settings)
    assert "out of memory" in str(refused.error)
    # And that, too, says who holds what.
    assert rows(refused)["free"]["now_bytes"] < stock_free


def test_each_worker_of_a_core_of_its_own_explains_its_gpu(starts: Starts) -> None:
    options = replace(
        EAGER,
        tensor_parallel_size=2,
        plugins="memacct",
        additional_config={"memacct": {"profiler": "native"}},
        arguments={"gpu_memory_utilization": 0.0085, "max_model_len": MODEL_LEN},
    )
    result = starts.stock(replace(ALONE, key="scarce-tp2", engines=(options,), device_count=2))
    assert "No available memory for the cache blocks" in str(result.error)
    told = sorted((r for r in reports(result) if "rank" in r), key=lambda r: int(r["rank"]))
    assert [r["rank"] for r in told] == [0, 1]
    for each in told:
        suggested = {s["change"]: s["value"] for s in each["shortfall"]["suggestions"]}
        assert suggested["gpu_memory_utilization"] > 0.0085
        # There is no other GPU for an engine that has several.
        assert "device" not in suggested
