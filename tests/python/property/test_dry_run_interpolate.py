"""What is reckoned from runs is what a run says, to the token; what is not sure is not reckoned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from analytic_engine import AnalyticEngine
from dry_runs import a_machine, a_request
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memacct._units import GIB, MIB
from memacct.dry_run.interpolate import interpolate

if TYPE_CHECKING:
    from memacct.dry_run.result import DryRun

UTILIZATION, LENGTH, KV = "--gpu-memory-utilization", "--max-model-len", "--kv-cache-memory-bytes"
UTILIZATIONS = st.integers(1, 100).map(lambda percent: f"{percent / 100:.2f}")


def told(run: DryRun) -> tuple[object, ...]:
    """What must be the same of a run and of what is reckoned in its place."""
    rank = run.ranks[0]
    refusal = run.refusal and (run.refusal.kind, run.refusal.missing and run.refusal.missing.bytes)
    rows = [{row.name: row.amount.bytes for row in each} for each in (rank.peak, rank.started)]
    starts = run.verdict == "starts"
    return (
        run.verdict,
        run.kv_tokens,
        run.concurrency,
        run.kv_blocks_count,
        run.settings if starts else None,
        refusal,
        (rank.requested_bytes, rank.free_at_start_bytes, rank.kv_room_bytes),
        rank.kv_cache and rank.kv_cache.bytes if starts else None,
        rows if starts else rows[0],
    )


@settings(max_examples=60, deadline=None)
@given(base=UTILIZATIONS, wanted=UTILIZATIONS, neighbour=st.integers(0, 3 * GIB))
def test_another_utilization_beside_another_neighbour(
    base: str, wanted: str, neighbour: int
) -> None:
    engine = AnalyticEngine()
    run = engine(a_request(UTILIZATION, base, LENGTH, "8192"))
    asked = a_request(
        f"{UTILIZATION}={wanted}",
        LENGTH,
        "8192",
        machine=a_machine(neighbours_bytes=(neighbour,) if neighbour else ()),
    )
    found = interpolate(asked, [run])
    assume(found is not None)
    assert found is not None
    assert found.origin == "interpolated"
    assert told(found) == told(engine(asked))
    rank = found.ranks[0]
    for rows in (rank.peak, rank.started):
        assert not rows or sum(row.amount.bytes for row in rows) == rank.total_bytes


@pytest.mark.parametrize("wanted", ["0.50", "0.60", "0.70", "0.80"])
def test_less_is_always_reckoned(wanted: str) -> None:
    engine = AnalyticEngine()
    run = engine(a_request(UTILIZATION, "0.9", LENGTH, "4096"))
    found = interpolate(a_request(UTILIZATION, wanted, LENGTH, "4096"), [run])
    assert found is not None
    assert (found.verdict, found.kv_tokens) == ("starts", replace(engine(found.request)).kv_tokens)


def test_growing_into_what_may_be_wanted_for_a_moment_is_left_to_a_run() -> None:
    engine = AnalyticEngine()
    run = engine(a_request(UTILIZATION, "0.5", LENGTH, "4096"))
    assert interpolate(a_request(UTILIZATION, "0.7", LENGTH, "4096"), [run]) is not None
    assert interpolate(a_request(UTILIZATION, "0.94", LENGTH, "4096"), [run]) is None


@given(base=st.integers(GIB, 3 * GIB), wanted=st.integers(1, 3 * GIB))
@settings(max_examples=30, deadline=None)
def test_another_given_size_of_the_cache(base: int, wanted: int) -> None:
    engine = AnalyticEngine()
    run = engine(a_request(KV, str(base), LENGTH, "4096"))
    asked = a_request(KV, str(wanted), LENGTH, "4096")
    found = interpolate(asked, [run])
    assume(found is not None)
    assert found is not None
    assert told(found) == told(engine(asked))


@given(lengths=st.lists(st.integers(1, 60_000), min_size=3, max_size=3, unique=True))
@settings(max_examples=30, deadline=None)
def test_a_length_between_two_runs_that_measured_the_same(lengths: list[int]) -> None:
    low, wanted, high = sorted(lengths)
    engine = AnalyticEngine()
    runs = [engine(a_request(LENGTH, str(each))) for each in (low, high)]
    asked = a_request(LENGTH, str(wanted))
    found = interpolate(asked, runs)
    assert found is not None
    assert told(found) == told(engine(asked))
    assert interpolate(asked, runs[:1]) is None, "one side is not enough"
    other = replace(runs[1].ranks[0], kv_room_bytes=(runs[1].ranks[0].kv_room_bytes or 0) - 1)
    assert interpolate(asked, [runs[0], replace(runs[1], ranks=(other,))]) is None


@pytest.mark.parametrize(
    "arguments",
    [
        (UTILIZATION, "0.8", "--num-gpu-blocks-override", "100"),
        (UTILIZATION, "0.8", KV, str(GIB)),
        (UTILIZATION, "0.8", LENGTH, "4096"),
        (UTILIZATION, "0.8", LENGTH, "auto"),
        (UTILIZATION, "0.8", "--data-parallel-size", "2"),
    ],
)
def test_what_a_run_does_not_tell_is_not_reckoned(arguments: tuple[str, ...]) -> None:
    engine = AnalyticEngine(limit_tokens=8192)
    run = engine(a_request(UTILIZATION, "0.9"))
    assert interpolate(a_request(UTILIZATION, "0.8"), [run]) is not None
    assert interpolate(a_request(*arguments), [run]) is None


def test_what_older_and_newer_engines_need_differently_is_left_to_a_run() -> None:
    """Between the blocks of one request and one more it depends on the engine's version."""
    engine = AnalyticEngine(limit_tokens=8192)
    run = engine(a_request(KV, str(2 * GIB)))
    needed = 8192 * engine.token_bytes
    verdicts = {}
    for given_bytes in (needed - 1, needed, needed + 16 * engine.token_bytes):
        found = interpolate(a_request(KV, str(given_bytes)), [run])
        verdicts[given_bytes - needed] = found and found.verdict
    block = 16 * engine.token_bytes
    assert verdicts == {-1: "does not fit", 0: None, block: "starts"}


def test_models_with_states_and_few_blocks_are_run() -> None:
    """Their graphs are cut to the blocks: 8 for each sequence are surely enough."""
    engine = AnalyticEngine(limit_tokens=8192)
    run = replace(engine(a_request(UTILIZATION, "0.9")), kv_request_blocks_count=600)
    assert interpolate(a_request(UTILIZATION, "0.85"), [run]) is not None
    assert interpolate(a_request(UTILIZATION, "0.55"), [run]) is None


def test_a_context_is_part_of_what_a_neighbour_holds() -> None:
    engine = AnalyticEngine(limit_tokens=8192)
    run = engine(a_request(UTILIZATION, "0.5"))
    machine = a_machine(neighbours_bytes=(MIB,))
    found = interpolate(a_request(UTILIZATION, "0.5", machine=machine), [run])
    assert found is not None
    free = [each.ranks[0].free_at_start_bytes or 0 for each in (run, found)]
    assert free[0] - free[1] == 2 * MIB, "whole pages"
