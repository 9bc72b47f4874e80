"""A real vLLM 0.33.0 beside neighbours that move: the promises of the demo, one by one."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest

from memacct._units import GIB, MIB
from memacct.demo import SCENARIOS, TOLERANCE_BYTES, Scenario
from memacct.demo.table import clamp_warning, reports

if TYPE_CHECKING:
    from conftest import Starts

pytestmark = pytest.mark.engine

BY_KEY = {scenario.key: scenario for scenario in SCENARIOS}
OVERHEAD_BUDGET_NS = 100_000_000  # of a start's tens of seconds, in each process
EXACT = [scenario for scenario in SCENARIOS if not scenario.clamps]


def name(scenario: Scenario) -> str:
    return scenario.key


@pytest.mark.parametrize("scenario", EXACT, ids=name)
def test_native_kv_cache_is_that_of_the_isolated_engine(starts: Starts, scenario: Scenario) -> None:
    for row in starts.rows(scenario):
        assert row.native_outcome == "served", row.native_error
        assert row.difference_bytes is not None
        assert abs(row.difference_bytes) <= TOLERANCE_BYTES, row
        assert not row.native_clamped
        assert row.ok


@pytest.mark.parametrize("scenario", SCENARIOS, ids=name)
def test_native_tells_how_it_found_itself(starts: Starts, scenario: Scenario) -> None:
    expected = "fingerprint" if scenario.host_pids else "pid"
    for row in starts.rows(scenario):
        assert row.native_attribution == expected


def test_stock_ends_with_its_assertion_when_a_neighbour_releases(starts: Starts) -> None:
    stock = starts.stock(BY_KEY["b"])
    assert stock.outcome == "failed"
    assert stock.error is not None
    assert stock.error.startswith("AssertionError: Error in memory profiling")


@pytest.mark.parametrize("key", ["c", "f"])
def test_stock_charges_itself_what_a_neighbour_allocates(starts: Starts, key: str) -> None:
    scenario = BY_KEY[key]
    stock, isolated = starts.stock(scenario), starts.isolated(scenario)
    assert stock.kv_cache_bytes is not None
    assert isolated.kv_cache_bytes is not None
    short_bytes = isolated.kv_cache_bytes - stock.kv_cache_bytes
    assert abs(short_bytes - 3 * GIB) <= TOLERANCE_BYTES


def test_stock_engines_started_together_disturb_each_other(starts: Starts) -> None:
    for row in starts.rows(BY_KEY["d"]):
        if row.stock_outcome == "served":
            assert row.stock_bytes is not None
            assert row.isolated_bytes is not None
            assert row.isolated_bytes - row.stock_bytes > 100 * MIB
        else:
            assert row.stock_error


def test_stock_multiplies_a_neighbours_move_by_the_number_of_graphs(starts: Starts) -> None:
    (row,) = starts.rows(BY_KEY["e"])
    assert row.stock_bytes is not None
    assert row.isolated_bytes is not None
    assert row.isolated_bytes - row.stock_bytes > 10 * 256 * MIB


def test_native_clamps_and_serves_when_the_budget_no_longer_fits(starts: Starts) -> None:
    (row,) = starts.rows(BY_KEY["g"])
    native = starts.native(BY_KEY["g"])
    assert native.served, native.error
    assert clamp_warning(native) is not None
    assert row.native_bytes is not None
    # The neighbour left 12 GiB: nearly all of it is used, and not a byte that is not there.
    assert 11 * GIB < row.native_bytes < 12 * GIB


@pytest.mark.parametrize("scenario", SCENARIOS, ids=name)
def test_native_writes_a_report_for_each_worker(starts: Starts, scenario: Scenario) -> None:
    for result in starts.outcomes(scenario, "native"):
        ranks = [report for report in reports(result) if "rank" in report]
        assert [report["pid"] for report in ranks] == [worker["pid"] for worker in result.workers]
        assert result.kv_cache_bytes is not None
        assert ranks[0]["final_bytes"] >= result.kv_cache_bytes > 0


def test_native_adds_less_than_100_ms_to_each_process_of_a_start(starts: Starts) -> None:
    results = [result for scenario in SCENARIOS for result in starts.outcomes(scenario, "native")]
    told = [report for result in results for report in reports(result)]
    assert {report["pid"] for report in told} > {w["pid"] for r in results for w in r.workers}
    assert max(report["overhead_cpu_ns"] for report in told) < OVERHEAD_BUDGET_NS
    # A single start may have waited for a processor; half of them have not.
    assert median(report["overhead_ns"] for report in told) < OVERHEAD_BUDGET_NS
