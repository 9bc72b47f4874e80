"""The vote of the active rung: ours is named or nobody, whatever the neighbours do."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from memacct import _core
from memacct._units import GIB, MIB

UNIT_BYTES = 2 * MIB
AMOUNTS = 32
MATCHES = 10
LEAD = 5
STEPS = 20
US, THEM = 5, 9

Rows = list[tuple[int, int | None]]
Step = tuple[Rows, Rows, int]


def draws(seed: int) -> list[int]:
    """The amounts of one run, in units, the first 0; drawn as run_fingerprint() draws them."""
    generator = random.Random(seed)  # noqa: S311 (a test's)
    amounts = [0]
    while len(amounts) <= STEPS:
        skipped = generator.randrange(AMOUNTS - 1)
        amounts.append(skipped if skipped < amounts[-1] else skipped + 1)
    return amounts


def run(ours: list[int] | None, theirs: list[int], changes: list[int]) -> int | None:
    """Who is named, by lists of what each holds in units; `ours` None: we are not listed."""
    steps: list[Step] = []
    for i, change in enumerate(changes):
        lists: list[Rows] = []
        for at in (i, i + 1):
            rows: Rows = [(THEM, GIB + theirs[at] * UNIT_BYTES)]
            if ours is not None:
                rows.insert(0, (US, GIB + ours[at] * UNIT_BYTES))
            lists.append(rows)
        steps.append((lists[0], lists[1], change * UNIT_BYTES))
        named, still_open = _core._fingerprint_vote(steps, STEPS - i - 1)
        if named is not None or not still_open:
            return named
    return None


def differences(amounts: list[int]) -> list[int]:
    return [b - a for a, b in itertools.pairwise(amounts)]


SEEDS = st.integers(0, 2**32)
UNITS = st.lists(st.integers(0, 200), min_size=STEPS + 1, max_size=STEPS + 1)


def test_the_bound_in_the_note_is_the_binomials() -> None:
    bound = Fraction(math.comb(STEPS, MATCHES), (AMOUNTS - 1) ** MATCHES)
    assert 2.2e-10 < bound < 2.3e-10
    assert 64 * bound < Fraction(15, 10**9)
    # Fifty pairs, two runs each, one neighbour each.
    assert 2 * 50 * bound < Fraction(23, 10**9)


@given(seed=SEEDS)
def test_ten_steps_name_us_beside_one_that_stands_still(seed: int) -> None:
    amounts = draws(seed)
    changes = differences(amounts)
    assert run(amounts, [7] * (STEPS + 1), changes) == US
    assert run(amounts, [7] * (STEPS + 1), changes[: MATCHES - 1]) is None


@given(seed=SEEDS, theirs=UNITS)
def test_one_that_moves_at_will_is_never_named(seed: int, theirs: list[int]) -> None:
    amounts = draws(seed)
    changes = differences(amounts)
    assert run(amounts, theirs, changes) in {US, None}
    assert run(None, theirs, changes) is None


@given(seed=SEEDS, other=SEEDS, offset=st.integers(0, 3))
def test_the_same_procedure_of_another_process_is_never_named(
    seed: int, other: int, offset: int
) -> None:
    amounts = draws(seed)
    theirs = ([0] * offset + draws(other))[: STEPS + 1]
    if differences(theirs) == differences(amounts):
        return  # Hypothesis may give both the same seed
    assert run(amounts, theirs, differences(amounts)) == US
    assert run(None, theirs, differences(amounts)) is None


@given(seed=SEEDS, delay=st.integers(1, 3))
def test_a_late_copy_is_never_named(seed: int, delay: int) -> None:
    amounts = draws(seed)
    theirs = ([0] * delay + amounts)[: STEPS + 1]
    assert run(amounts, theirs, differences(amounts)) == US
    assert run(None, theirs, differences(amounts)) is None


@given(seed=SEEDS)
def test_a_copy_without_delay_leaves_nobody(seed: int) -> None:
    amounts = draws(seed)
    assert run(amounts, amounts, differences(amounts)) is None


@given(seed=SEEDS, disturbed=st.sets(st.integers(0, STEPS - 1), max_size=STEPS - MATCHES))
def test_our_other_threads_cost_steps_and_nothing_else(seed: int, disturbed: set[int]) -> None:
    amounts = draws(seed)
    ours = list(amounts)
    for step in sorted(disturbed):  # something stays from that step on
        ours = [*ours[: step + 1], *(units + 300 for units in ours[step + 1 :])]
    assert run(ours, [7] * (STEPS + 1), differences(amounts)) == US


def test_it_ends_when_nobody_can_win_any_more() -> None:
    still: Rows = [(US, GIB), (THEM, None)]
    steps: list[Step] = [(still, still, UNIT_BYTES)] * (STEPS - MATCHES)
    assert _core._fingerprint_vote(steps, MATCHES) == (None, True)
    assert _core._fingerprint_vote([*steps, steps[0]], MATCHES - 1) == (None, False)


def test_a_lead_is_needed() -> None:
    """Both moved as we did ten times; one of them five times more."""
    amounts = [i % 2 for i in range(2 * MATCHES)]
    both = [
        ([(US, GIB + a * UNIT_BYTES), (THEM, GIB + a * UNIT_BYTES)],
         [(US, GIB + b * UNIT_BYTES), (THEM, GIB + b * UNIT_BYTES)], (b - a) * UNIT_BYTES)
        for a, b in itertools.pairwise(amounts)
    ]  # fmt: skip
    alone: Step = ([(US, GIB), (THEM, GIB)], [(US, GIB + UNIT_BYTES), (THEM, GIB)], UNIT_BYTES)
    steps: list[Step] = [*both[:MATCHES], *[alone] * (LEAD - 1)]
    assert _core._fingerprint_vote(steps)[0] is None
    assert _core._fingerprint_vote([*steps, alone])[0] == US


def test_0_bytes_and_not_available_match_nothing() -> None:
    rows = [
        ([(US, 0)], [(US, UNIT_BYTES)], UNIT_BYTES),
        ([(US, UNIT_BYTES)], [(US, 0)], -UNIT_BYTES),
        ([(US, None)], [(US, UNIT_BYTES)], UNIT_BYTES),
        ([], [(US, UNIT_BYTES)], UNIT_BYTES),
    ]
    assert _core._fingerprint_vote(rows * MATCHES)[0] is None
