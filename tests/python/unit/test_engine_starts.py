"""Merging the reports of an engine's processes: rows, sums, and what is not there."""

from __future__ import annotations

from typing import Any

import pytest
from engine_reports import core, head, main, worker

from memacct._units import GIB
from memacct.report.engine_starts import NO_REPORT, is_fine, merge_reports
from memacct.report.engine_text import start_text


def lacking(start: dict[str, Any]) -> list[tuple[int, int | None]]:
    return [(lack["data_parallel_rank"], lack["rank"]) for lack in start["missing"]]


def test_a_row_for_each_rank_and_their_sums() -> None:
    workers = [worker(201, 1), worker(200, 0)]
    start = merge_reports(main(world_size=2), [{**core(150), "workers": workers}])
    assert [row["rank"] for row in start["rows"]] == [0, 1]
    assert start["sums"]["requested_bytes"] == 32 * GIB
    assert start["sums"]["own_bytes"] == 2 * GIB
    assert start["sums"]["budget_bytes"] == 30 * GIB
    assert start["sums"]["stock_bytes"] == 24 * GIB
    assert start["sums"]["processes_count"] == 4
    assert start["sums"]["overhead_ns"] == 4 * 10_000_000
    assert start["missing"] == []
    assert is_fine(start)


def test_a_process_that_is_both_core_and_rank_is_counted_once() -> None:
    one = worker(150, overhead_ns=25_000_000)
    start = merge_reports(main(), [{**core(150), "workers": [one]}])
    assert start["sums"]["processes_count"] == 2
    assert start["sums"]["overhead_ns"] == 35_000_000


def test_an_unknown_term_makes_its_sum_unknown() -> None:
    workers = [worker(200, 0), worker(201, 1, stock_bytes=None)]
    start = merge_reports(main(world_size=2), [{**core(150), "workers": workers}])
    assert start["sums"]["stock_bytes"] is None
    assert start["sums"]["budget_bytes"] == 30 * GIB
    assert start["rows"][1]["stock_ended"]
    assert not start["rows"][0]["stock_ended"]


def test_a_stock_rank_got_what_stock_gives() -> None:
    start = merge_reports(main(), [{**core(150), "workers": [worker(150, status="stock")]}])
    assert start["rows"][0]["stock_bytes"] == start["rows"][0]["budget_bytes"] == 15 * GIB


def test_ranks_that_did_not_report_are_known_from_the_configuration() -> None:
    workers = [worker(200, 0), worker(202, 2)]
    start = merge_reports(main(world_size=4), [{**core(150), "workers": workers}])
    assert lacking(start) == [(0, 1), (0, 3)]
    assert not is_fine(start)
    assert f"rank 3: no report: {NO_REPORT}" in start_text(start).splitlines()


def test_engines_that_did_not_report_at_all_are_known_too() -> None:
    setup = {"data_parallel_size": 2, "data_parallel_size_local": 2}
    start = merge_reports(main(**setup), [{**core(150), "workers": [worker(150)]}])
    assert lacking(start) == [(1, 0)]


def test_of_engines_elsewhere_the_folder_may_be_elsewhere_too() -> None:
    setup = {"data_parallel_size": 2, "data_parallel_size_local": 1}
    start = merge_reports(main(**setup), [{**core(150), "workers": [worker(150)]}])
    assert start["missing"][0]["reason"].endswith("or its report_dir is on another machine")


@pytest.mark.parametrize(
    "setup", [{"data_parallel_external_lb": True}, {"data_parallel_by_environment": True}]
)
def test_an_engine_with_a_main_process_of_its_own_waits_for_no_other(
    setup: dict[str, Any],
) -> None:
    told = {**main(data_parallel_size=2, **setup), "data_parallel_rank": 1}
    ranks = [worker(150, data_parallel_rank=1)]
    start = merge_reports(told, [{**core(150, data_parallel_rank=1), "workers": ranks}])
    assert start["missing"] == []


def test_a_rank_that_answered_without_memacct_is_missing_with_its_reason() -> None:
    there = {"kind": "worker", "status": "missing", "reason": NO_REPORT, "rank": 1, "pid": 201}
    start = merge_reports(main(world_size=2), [{**core(150), "workers": [worker(200), there]}])
    assert lacking(start) == [(0, 1)]
    assert start["rows"][1]["pid"] == 201
    assert start["rows"][1]["budget_bytes"] is None


def test_an_engine_core_without_memacct_is_told_apart_from_one_that_fails() -> None:
    absent = {"kind": "engine_core", "status": "missing", "reason": NO_REPORT}
    start = merge_reports(main(), [absent])
    assert lacking(start) == [(0, 0), (0, None)]
    assert f"engine core: no report: {NO_REPORT}" in start_text(start)
    failing = {**absent, "reason": "RuntimeError: dead"}
    reasons = [lack["reason"] for lack in merge_reports(main(), [failing])["missing"]]
    assert reasons == ["its engine core could not be asked: RuntimeError: dead", failing["reason"]]


def test_a_failed_start_is_told_with_its_step_and_error() -> None:
    error = {"step": "determine_available_memory", "type": "ValueError", "message": "no\nroom"}
    start = merge_reports(main(), [{**core(150), "workers": [worker(150, error=error)]}])
    assert start["failures"] == [{"data_parallel_rank": 0, "who": "rank 0", **error}]
    assert not is_fine(start)
    text = start_text(start)
    assert "rank 0: ended in determine_available_memory: ValueError: no" in text
    assert "FAILED" in text


def test_a_start_that_ended_early_is_no_missing_plugin() -> None:
    error = {"step": "workers", "type": "RuntimeError", "message": "x"}
    start = merge_reports(main(), [core(150, state="failed", error=error)])
    assert start["missing"][0]["reason"] == "its start ended before it had anything to report"


@pytest.mark.parametrize("keys", [{"clamped": True}, {"status": "fallback", "reason": "no driver"}])
def test_a_clamped_or_fallen_back_rank_is_not_fine(keys: dict[str, Any]) -> None:
    start = merge_reports(main(), [{**core(150), "workers": [worker(150, **keys)]}])
    assert not is_fine(start)


def test_a_report_on_request_is_read_like_a_file() -> None:
    # What the process said at its start is under "start" there.
    live = head("worker", 150, rank=0, status="native", start=worker(150), now={})
    from_rpc = merge_reports(main(), [{**core(150), "workers": [live]}])
    from_file = merge_reports(main(), [{**core(150), "workers": [worker(150)]}])
    assert from_rpc["rows"] == from_file["rows"]


def test_the_text_has_each_number_in_gib() -> None:
    start = merge_reports(main(), [{**core(150), "workers": [worker(150)]}])
    lines = start_text(start).splitlines()
    assert lines[0].startswith("engine 1795310242947245416, 2026-11-22 ")
    row = next(line.split() for line in lines if line.startswith("0 "))
    assert row[:9] == "0 node-a 150 GPU-00000000 16.00 1.00 15.00 12.00 +3.00".split()  # noqa: SIM905
    assert row[-1] == "native"


def test_names_cannot_break_the_table() -> None:
    odd = worker(150, hostname="a\nb", device="x\x1b[2J", status="fallback", reason="c\nd")
    start = merge_reports(main(model="m\n"), [{**core(150), "workers": [odd]}])
    assert len(start_text(start).splitlines()) == 4
    assert "\x1b" not in start_text(start)
