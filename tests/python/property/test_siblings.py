"""Laws of what an engine's other processes hold, over lists that the driver could report."""

from __future__ import annotations

from dataclasses import replace

import pytest
from device_world import OWN_PID, TREE_PID, World
from hypothesis import given
from hypothesis import strategies as st

from memacct.accounting.consumption import ConsumptionFollower, consumed
from memacct.accounting.equation import device_equation, engine_equation
from memacct.accounting.foreign import foreign_changes
from memacct.accounting.siblings import Sibling, engine_processes, siblings_bytes

SIZES = st.integers(0, 1 << 36)
TOTAL = 1 << 44


# Numbers 2 to 5 are the engine's, 6 to 9 are neighbours'.
OURS = (2, 3, 4, 5)
LISTED = st.lists(
    st.tuples(st.integers(2, 9), SIZES), max_size=6, unique_by=lambda record: record[0]
).map(tuple)
WORLDS = st.builds(World, own=SIZES, tree=SIZES, foreign=LISTED, unattributed=SIZES)


def held_by_siblings(world: World) -> int:
    return sum(value or 0 for pid, value in world.foreign if pid in OURS)


@given(before=WORLDS, after=WORLDS)
def test_the_engine_is_charged_with_its_siblings_and_with_nobody_else(
    before: World, after: World
) -> None:
    found = consumed(before.reading(), after.reading(*OURS))
    assert before.own is not None
    assert before.tree is not None
    assert after.own is not None
    assert after.tree is not None
    beside = held_by_siblings(after) - held_by_siblings(before)
    assert found.consumed_bytes == after.own - before.own + after.tree - before.tree + beside
    assert (found.siblings_bytes, found.source) == (beside, "own+tree+siblings")
    assert found.is_measured
    assert found.bounds_bytes == (found.consumed_bytes, found.consumed_bytes)
    assert found.reason == ""


@given(before=WORLDS, after=WORLDS)
def test_what_the_engine_takes_and_what_others_take_is_what_the_device_lost(
    before: World, after: World
) -> None:
    follower = ConsumptionFollower(before.reading(*OURS))
    now = after.reading(*OURS)
    follower.follow(now)
    neighbours = sum(b or 0 for pid, b in after.foreign if pid not in OURS)
    neighbours -= sum(b or 0 for pid, b in before.foreign if pid not in OURS)
    assert follower.last_grown_bytes == neighbours + after.unattributed - before.unattributed


@given(before=WORLDS, after=WORLDS, later=WORLDS)
def test_when_a_sibling_becomes_known_makes_no_difference(
    before: World, after: World, later: World
) -> None:
    early = ConsumptionFollower(before.reading(*OURS))
    late = ConsumptionFollower(before.reading())
    early.follow(after.reading(*OURS))
    late.follow(after.reading(2))
    assert (
        early.follow(later.reading(*OURS)).consumed_bytes
        == late.follow(later.reading(*OURS)).consumed_bytes
    )


@given(world=WORLDS)
def test_a_sibling_that_ended_has_given_back(world: World) -> None:
    follower = ConsumptionFollower(world.reading())
    follower.follow(world.reading(*OURS))
    without = replace(world, foreign=tuple(o for o in world.foreign if o[0] not in OURS))
    found = follower.follow(without.reading())  # its entry went with it
    assert found.consumed_bytes == -held_by_siblings(world)


@given(world=WORLDS, baseline=WORLDS)
def test_the_equation_holds_with_siblings_to_the_byte(world: World, baseline: World) -> None:
    siblings = world.reading(*OURS).siblings
    device, first = world.device(), baseline.device()
    plain = device_equation(device, baseline=first)
    rows = device_equation(device, baseline=first, siblings=siblings)
    assert sum(row.now_bytes or 0 for row in rows) == TOTAL
    for column in ("now_bytes", "since_start_bytes"):
        assert sum(getattr(row, column) or 0 for row in rows) == sum(
            getattr(row, column) or 0 for row in plain
        )
    by_name = {row.name: row for row in rows}
    assert by_name["siblings"].now_bytes == held_by_siblings(world)
    assert by_name["siblings"].since_start_bytes == held_by_siblings(world) - held_by_siblings(
        baseline
    )
    split = engine_equation(
        device,
        weights_bytes=3,
        allocator_reserved_bytes=5,
        activations_peak_bytes=11,
        graphs_bytes=13,
        kv_cache_bytes=17,
        siblings=siblings,
    )
    assert sum(row.planned_bytes or 0 for row in split) == TOTAL


@given(before=WORLDS, after=WORLDS)
def test_a_process_is_the_engines_or_foreign_and_never_both(before: World, after: World) -> None:
    siblings = after.reading(*OURS).siblings
    first, last = before.device(), after.device()
    foreign = {change.pid for change in foreign_changes(first, last, siblings)}
    rows = engine_processes(last, siblings, baseline=first)
    assert not foreign & {row.pid for row in rows}
    assert not foreign & set(OURS)
    total = sum(row.process_used_bytes or 0 for row in rows)
    assert last.own_bytes is not None
    assert last.tree_bytes is not None
    assert total == last.own_bytes + last.tree_bytes + held_by_siblings(after)
    known = {row.pid: row for row in rows}
    for row in rows:
        assert row.since_start_bytes is not None
        then = dict(before.foreign).get(row.pid, 0) if row.pid in OURS else None
        if then is not None:
            assert known[row.pid].since_start_bytes == (row.process_used_bytes or 0) - then


@given(before=WORLDS, after=WORLDS)
def test_what_is_the_workers_own_or_below_it_counts_once(before: World, after: World) -> None:
    # A child that has registered too, as a forked one does.
    plain = consumed(before.reading(*OURS), after.reading(*OURS))
    found = consumed(before.reading(*OURS), after.reading(OWN_PID, TREE_PID, *OURS))
    assert found.consumed_bytes == plain.consumed_bytes


def test_a_hidden_sibling_is_unknown_and_not_nothing() -> None:
    before = World(foreign=((2, 100), (7, 5)))
    found = consumed(before.reading(2), World(own=30, foreign=((2, None), (7, 900))).reading(2))
    assert (found.consumed_bytes, found.source) == (20, "own+tree")
    assert found.siblings_bytes is None
    assert found.bounds_bytes == (None, None)
    assert "the engine's other processes" in found.reason
    rows = device_equation(
        World(foreign=((2, None),)).device(), siblings=before.reading(2).siblings
    )
    assert {r.name: r.now_bytes for r in rows if r.name in ("siblings", "foreign")} == {
        "siblings": None,
        "foreign": None,
    }


def test_a_sibling_that_gets_hidden_keeps_its_last_number() -> None:
    follower = ConsumptionFollower(World(foreign=((2, 100),)).reading(2))
    follower.follow(World(own=30, foreign=((2, 150),)).reading(2))
    found = follower.follow(World(own=40, foreign=((2, None),)).reading(2))
    assert (found.consumed_bytes, found.siblings_bytes) == (80, None)
    assert "last known number stands" in found.reason


def test_children_and_siblings_are_held_over_apart() -> None:
    follower = ConsumptionFollower(World(tree=0, foreign=((2, 0),)).reading(2))
    follower.follow(World(tree=3, foreign=((2, 5),)).reading(2))
    both = follower.follow(World(tree=None, foreign=((2, None),)).reading(2))
    assert (both.consumed_bytes, both.source) == (8, "own")
    one = follower.follow(World(tree=None, foreign=((2, 50),)).reading(2))
    assert (one.consumed_bytes, one.source) == (53, "own+siblings")


def test_a_listed_sibling_of_an_unlisted_process_is_unknown() -> None:
    device = World(own=None, foreign=((2, 5),)).device()
    assert siblings_bytes(device, World().reading(2).siblings) is None
    assert siblings_bytes(device, ()) == 0


@pytest.mark.parametrize("baseline", [World(), None])
def test_rows_name_each_processs_place(baseline: World | None) -> None:
    me = Sibling(pid=OWN_PID, role="worker", rank=0)
    siblings = (Sibling(pid=2, role="EngineCore"), Sibling(pid=3, role="gone"))
    device = World(own=10, tree=4, foreign=((2, 682), (7, 900))).device()
    first = None if baseline is None else baseline.device()
    rows = engine_processes(device, siblings, own=me, baseline=first)
    assert [(row.pid, row.owner, row.role, row.rank, row.process_used_bytes) for row in rows] == [
        (2, "sibling", "EngineCore", None, 682),
        (OWN_PID, "own", "worker", 0, 10),
        (1000, "tree", "child of worker rank 0", None, 4),
    ]
    expected = [None] * 3 if baseline is None else [682, 0, 4]
    assert [row.since_start_bytes for row in rows] == expected
