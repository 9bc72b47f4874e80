"""Laws of the engine's arithmetic, over device states that the driver could report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from device_world import World
from hypothesis import given
from hypothesis import strategies as st

import memacct
from memacct.accounting.budget import BudgetTerms, decide_budget
from memacct.accounting.consumption import ConsumptionFollower, Reading, consumed
from memacct.accounting.equation import device_equation, engine_equation
from memacct.accounting.foreign import foreign_changes
from memacct.report.text import render_equation

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = st.integers(0, 1 << 40)
GROWTH = st.integers(-(1 << 38), 1 << 38)


NEIGHBOURS = st.lists(
    st.tuples(st.integers(2, 9), SIZES), max_size=4, unique_by=lambda record: record[0]
).map(tuple)


@given(own=SIZES, later=SIZES, tree=SIZES, tree_later=SIZES, then=NEIGHBOURS, now=NEIGHBOURS)
def test_neighbours_are_in_no_consumption(
    *,
    own: int,
    later: int,
    tree: int,
    tree_later: int,
    then: tuple[tuple[int, int], ...],
    now: tuple[tuple[int, int], ...],
) -> None:
    before = World(own=own, tree=tree, foreign=then).reading()
    after = World(own=later, tree=tree_later, foreign=now, unattributed=5).reading()
    found = consumed(before, after)
    assert found.consumed_bytes == later + tree_later - own - tree
    assert found.source == "own+tree"
    assert found.is_measured
    assert found.bounds_bytes == (found.consumed_bytes, found.consumed_bytes)


@given(own=SIZES, later=SIZES, moved=GROWTH)
def test_alone_the_native_and_the_stock_reading_agree(own: int, later: int, moved: int) -> None:
    del moved
    before, after = World(own=own).reading(), World(own=later).reading()
    assert consumed(before, after).consumed_bytes == before.free_bytes - after.free_bytes


@given(taken=SIZES, released=SIZES)
def test_without_a_record_the_allocator_bounds_from_below(taken: int, released: int) -> None:
    before = World(own=None, unattributed=released + (1 << 20)).reading(allocator=0)
    after = World(own=None, unattributed=taken + (1 << 20)).reading(allocator=taken)
    found = consumed(before, after)
    device = before.free_bytes - after.free_bytes
    assert device == taken - released
    assert found.consumed_bytes == max(taken, device)
    assert found.source == ("allocator_bound" if released > 0 else "device")
    assert found.reason == "hidden"
    assert not found.is_measured


@given(moved=st.integers(0, 1 << 38), later=st.lists(SIZES, max_size=4))
def test_what_the_driver_stops_telling_is_held_over(moved: int, later: list[int]) -> None:
    # A neighbour moves while all is known; from then on it stands still and nobody is told.
    before = World(own=5, foreign=((2, 1 << 40),))
    follower = ConsumptionFollower(before.reading())
    now = replace(before, own=50, foreign=((2, (1 << 40) + moved),))
    assert follower.follow(now.reading()).consumed_bytes == 45
    for own in later:
        hidden = replace(now, own=None, unattributed=own)
        found = follower.follow(hidden.reading())
        assert (found.consumed_bytes, found.source) == (own - 5, "held_over")
        assert not found.is_measured
        assert "stand still" in found.reason
    again = follower.follow(replace(now, own=60).reading())
    assert (again.consumed_bytes, again.source) == (55, "own+tree")


def test_what_is_held_over_is_not_below_what_the_allocator_took() -> None:
    follower = ConsumptionFollower(World(own=5, foreign=((2, 100),)).reading(allocator=0))
    follower.follow(World(own=50, foreign=((2, 100),)).reading(allocator=40))
    # The neighbour leaves unseen, which looks as if we had given back.
    found = follower.follow(World(own=None, unattributed=50).reading(allocator=40))
    assert (found.consumed_bytes, found.source) == (40, "held_over")


def test_a_driver_that_never_told_leaves_the_stock_reading() -> None:
    follower = ConsumptionFollower(World(own=None, unattributed=9).reading())
    found = follower.follow(World(own=None, unattributed=30).reading())
    assert (found.consumed_bytes, found.source) == (21, "device")


def test_children_that_get_hidden_keep_their_last_number() -> None:
    follower = ConsumptionFollower(World(own=1, tree=0).reading())
    follower.follow(World(own=5, tree=3).reading())
    found = follower.follow(World(own=6, tree=None).reading())
    assert (found.consumed_bytes, found.source) == (8, "own")


def test_without_any_account_the_stock_reading_stands() -> None:
    found = consumed(Reading(free_bytes=100), Reading(free_bytes=60))
    assert (found.consumed_bytes, found.source) == (40, "device")
    assert found.bounds_bytes == (None, None)
    assert "could not be read" in found.reason


def test_a_hidden_tree_is_said_and_not_taken_for_nothing() -> None:
    found = consumed(World(own=1).reading(), World(own=5, tree=None).reading())
    assert (found.consumed_bytes, found.source) == (4, "own")
    assert found.bounds_bytes == (None, None)
    assert "children" in found.reason


@given(
    world=st.builds(
        World,
        own=st.integers(1 << 38, 1 << 40),
        tree=SIZES,
        foreign=NEIGHBOURS,
        unattributed=GROWTH,
    )
)
def test_the_equation_adds_up_to_the_byte(world: World) -> None:
    device = world.device()
    rows = device_equation(device)
    assert sum(row.now_bytes or 0 for row in rows) == device.total_bytes
    split = engine_equation(
        device,
        weights_bytes=3,
        allocator_reserved_bytes=5,
        activations_peak_bytes=11,
        graphs_bytes=13,
        kv_cache_bytes=17,
        baseline=device,
    )
    for column in ("now_bytes", "planned_bytes"):
        assert sum(getattr(row, column) or 0 for row in split) == device.total_bytes
    assert "equal to the byte" in render_equation(split, device.total_bytes)


def test_an_equation_with_a_hidden_term_is_not_claimed_to_hold() -> None:
    device = World(own=None).device()
    text = render_equation(device_equation(device), device.total_bytes)
    assert "not checked" in text
    assert "equal" not in text
    own = next(line for line in text.splitlines() if line.startswith("own"))
    assert "?" in own


def test_a_wrong_sum_is_shown() -> None:
    rows = device_equation(World().device())
    wrong = (replace(rows[0], now_bytes=(rows[0].now_bytes or 0) + 1), *rows[1:])
    assert "equal" not in render_equation(wrong, World().total)


def test_each_kind_of_foreign_move_is_told_largest_first() -> None:
    before = World(foreign=((2, 10), (3, 50), (4, 7), (5, None), (6, None), (7, 1))).device()
    after = World(foreign=((2, 40), (3, 20), (8, 100), (5, None), (6, 4), (7, 1))).device()
    told = {c.pid: (c.event, c.delta_bytes) for c in foreign_changes(before, after)}
    assert told == {
        8: ("appeared", 100),
        2: ("grew", 30),
        3: ("shrank", -30),
        4: ("left", -7),
        6: ("changed", None),
    }
    assert [c.pid for c in foreign_changes(before, after)] == [8, 2, 3, 4, 6]


@given(then=NEIGHBOURS, now=NEIGHBOURS)
def test_foreign_changes_add_up_to_the_foreign_change(
    then: tuple[tuple[int, int], ...], now: tuple[tuple[int, int], ...]
) -> None:
    before, after = World(foreign=then).device(), World(foreign=now).device()
    assert before.foreign_bytes is not None
    assert after.foreign_bytes is not None
    moved = sum(change.delta_bytes or 0 for change in foreign_changes(before, after))
    assert moved == after.foreign_bytes - before.foreign_bytes


def terms(*, wanted: int = 100, free: int = 500, grown: int = 0, margin: int = 10) -> BudgetTerms:
    return BudgetTerms(
        wanted_bytes=wanted,
        still_to_come_bytes=20,
        margin_bytes=margin,
        free_bytes=free,
        grown_bytes=grown,
    )


def no_pause(seconds: float) -> float:
    raise AssertionError(f"a pause of {seconds} s was not asked for")


@given(wanted=SIZES, free=SIZES, grown=GROWTH, margin=SIZES)
def test_a_budget_never_exceeds_what_is_wanted_nor_what_fits_once_a_neighbour_grew(
    wanted: int, free: int, grown: int, margin: int
) -> None:
    given_terms = terms(wanted=wanted, free=free, grown=grown, margin=margin)
    budget = decide_budget(lambda: given_terms, pause=no_pause)
    if grown > 0:
        # Never less than alone, where the wanted budget left less than the margin too.
        assert budget.final_bytes == min(wanted, max(free - 20 - margin, wanted - grown))
    else:
        assert budget.final_bytes == wanted
    assert budget.clamped == (budget.final_bytes < wanted)
    values = {candidate.name: candidate.value_bytes for candidate in budget.candidates}
    assert values == {"wanted": wanted, "fits": free - 20 - margin}


def test_the_error_policy_says_what_does_not_fit() -> None:
    with pytest.raises(
        memacct.BudgetError, match=r"hold 60 B more.* 50 B of the wanted budget of 100 B"
    ):
        decide_budget(lambda: terms(free=80, grown=60), on_shortfall="error", pause=no_pause)


@pytest.mark.parametrize(
    ("needed_polls", "final", "clamped", "waited"),
    [(0, 100, False, 0.0), (3, 100, False, 0.3), (99, 50, True, 1.0)],
)
def test_waiting_ends_when_it_fits_or_when_time_is_up(
    needed_polls: int, final: int, clamped: bool, waited: float
) -> None:
    read, paused = neighbour_that_leaves_after(needed_polls)
    budget = decide_budget(
        read, on_shortfall="wait", wait_s=1.0, pause=lambda s: paused.append(s) or s
    )
    assert (budget.final_bytes, budget.clamped) == (final, clamped)
    assert budget.waited_s == pytest.approx(waited)
    assert sum(paused) == pytest.approx(waited)


def neighbour_that_leaves_after(
    polls: int,
) -> tuple[Callable[[], BudgetTerms], list[float]]:
    paused: list[float] = []

    def read() -> BudgetTerms:
        return terms() if len(paused) >= polls else terms(free=80, grown=60)

    return read, paused
