"""The CPU build of vLLM (0.32.0): page cache that the kernel can take back is not held."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import memacct
from memacct._units import GIB, MIB
from memacct.demo.engine import EngineOptions, EngineResult, EngineRun
from memacct.demo.table import reports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from memacct.demo import Bench

pytestmark = pytest.mark.engine

REQUESTED_BYTES = 3 * GIB
# A checkpoint that stays mapped while the worker serves, in page cache only.
MAPPED_BYTES = 320 * MIB
MARGIN_BYTES = 128 * MIB
# Two starts do not touch quite the same pages; the KV cache is whole blocks.
DRIFT_BYTES = 16 * MIB


def node_total_bytes() -> int:
    """What vLLM takes the share of: all memory of the first NUMA node."""
    with open("/sys/devices/system/node/node0/meminfo", encoding="ascii") as file:  # noqa: PTH123
        for line in file:
            if "MemTotal" in line:
                return int(line.split()[-2]) * 1024
    raise ValueError("node0 has no MemTotal")


def start(
    options: EngineOptions,
    python: Path,
    bench: Bench,
    name: str,
    trees: list[memacct.TreeSnapshot] | None = None,
) -> EngineResult:
    """Starts an engine; while it serves, its process tree is added to `trees`."""
    run = EngineRun(
        options,
        python=python,
        model=bench.model,
        folder=bench.folder / name,
        total_bytes=node_total_bytes(),
        environ=os.environ,
        limit_s=bench.limit_s,
        stay=trees is not None,
    )
    with run:
        if trees is not None and run.wait_result() and run.process is not None:
            trees.append(memacct.snapshot_tree(run.process.pid))
            run.go("served")
        return run.finish()


@pytest.fixture(scope="module")
def options(bench: Bench) -> EngineOptions:
    checkpoint = bench.folder / "mapped.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with checkpoint.open("wb") as file:
        file.truncate(MAPPED_BYTES)
    environ = {"MEMACCT_STAGE_MAP": str(checkpoint)}
    return EngineOptions(budget_bytes=REQUESTED_BYTES, environ=environ)


@pytest.fixture(scope="module")
def stock(
    options: EngineOptions, cpu_python: Path, bench: Bench, say: Callable[[str], None]
) -> EngineResult:
    say("engine start: cpu-stock")
    return start(options, cpu_python, bench, "cpu-stock")


@pytest.fixture(scope="module")
def trees() -> list[memacct.TreeSnapshot]:
    """The native engine's process tree while it served."""
    return []


@pytest.fixture(scope="module")
def native(
    options: EngineOptions,
    cpu_python: Path,
    bench: Bench,
    say: Callable[[str], None],
    trees: list[memacct.TreeSnapshot],
) -> EngineResult:
    say("engine start: cpu-native")
    return start(options.native(), cpu_python, bench, "cpu-native", trees)


def report(native: EngineResult) -> dict[str, int]:
    assert native.served, native.error
    (found,) = [told for told in reports(native) if "rank" in told]
    return found


def test_it_counts_what_the_worker_holds(native: EngineResult) -> None:
    told = report(native)
    assert told["margin_bytes"] == MARGIN_BYTES
    assert told["native_bytes"] == told["requested_bytes"] - told["held_bytes"] - MARGIN_BYTES
    assert told["final_bytes"] == told["native_bytes"]
    assert not told["clamped"]


def test_the_mapped_checkpoint_is_not_held(native: EngineResult) -> None:
    told = report(native)
    assert told["rss_bytes"] - told["held_bytes"] > MAPPED_BYTES


def test_the_kv_cache_is_larger_by_what_can_be_reclaimed(
    native: EngineResult, stock: EngineResult
) -> None:
    assert stock.served, stock.error
    assert native.kv_cache_bytes is not None
    assert stock.kv_cache_bytes is not None
    told = report(native)
    reclaimable_bytes = told["rss_bytes"] - told["held_bytes"]
    larger_bytes = native.kv_cache_bytes - stock.kv_cache_bytes
    assert abs(larger_bytes - (reclaimable_bytes - MARGIN_BYTES)) <= DRIFT_BYTES


def test_the_peak_stays_within_what_was_requested(native: EngineResult) -> None:
    """The KV cache is resident in full as soon as it is allocated, and requests were served."""
    (worker,) = native.workers
    # The peak was last: page cache that is mapped now was mapped then.
    held_peak_bytes = worker["peak_rss_bytes"] - worker["rss_file_bytes"]
    requested_bytes = report(native)["requested_bytes"]
    assert requested_bytes - MARGIN_BYTES - DRIFT_BYTES < held_peak_bytes <= requested_bytes


def test_both_numbers_are_in_the_log(native: EngineResult) -> None:
    (line,) = [line for line in native.key_lines() if "memacct: KV cache budget" in line]
    assert "held" in line
    assert "vLLM's own reading would have given" in line


def test_its_own_code_computes_for_less_than_50_ms_in_each_process(native: EngineResult) -> None:
    """Besides the one walk through the page tables, which is the kernel's: 10 to 40 ms."""
    told = reports(native)
    assert {one["kind"] for one in told} == {"main", "engine_core", "worker"}
    walks_ns = [one["snapshot"]["span_ns"] if "snapshot" in one else 0 for one in told]
    assert sum(walks_ns) > 0
    for one, walk_ns in zip(told, walks_ns, strict=True):
        assert one["overhead_cpu_ns"] - walk_ns < 50_000_000, one["kind"]


def test_its_processes_are_known_by_their_roles(
    native: EngineResult, trees: list[memacct.TreeSnapshot]
) -> None:
    assert native.served, native.error
    (tree,) = trees
    assert tree.complete
    assert tree.processes[0].title.endswith("request.json")
    (core,) = [process for process in tree.processes if process.role == "engine_core"]
    assert core.depth >= 1
    # The worker is in a process of its own or in the engine core's; it holds the KV cache.
    (holder,) = [process for process in tree.processes if process.role == "worker"] or [core]
    assert holder.host is not None
    assert holder.host.pss_anon_bytes is not None
    assert holder.host.pss_anon_bytes > GIB
    assert tree.rss_bytes is not None
    assert tree.pss_bytes is not None
    assert tree.pss_bytes < tree.rss_bytes
