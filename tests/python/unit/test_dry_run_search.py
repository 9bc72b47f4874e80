"""The search for the last value that fits: right whatever it is foretold, and by few starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memacct.dry_run.search import Found, Outcome, Try, find_last

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GIB = 1 << 30


class Engine:
    """Fits while something is left; may want more from the first values on, or not exist."""

    def __init__(
        self, spare: Callable[[int], int], least: int = 0, cannot: Sequence[int] = ()
    ) -> None:
        self.spare, self.least, self.cannot = spare, least, cannot
        self.asked: list[int] = []

    def __call__(self, index: int) -> Try:
        assert index not in self.asked, "the same is not asked twice"
        self.asked.append(index)
        outcome: Outcome = "fits" if self.spare(index) >= 0 else "too much"
        if index in self.cannot:
            return Try(index=index, outcome="cannot")
        if index < self.least:
            return Try(index=index, outcome="too little")
        return Try(index=index, outcome=outcome, spare_bytes=self.spare(index))


def search(engine: Engine, count: int, first: int, guess: int | None) -> Found:
    return find_last(count, engine, first=first, foretell=lambda _: guess)


def line(answer: int) -> Callable[[int], int]:
    """Spare memory that falls evenly, and is gone after `answer`."""
    return lambda index: (answer - index) * GIB


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(1, 5000))
def test_the_last_that_fits_is_found_whatever_is_foretold(data: st.DataObject, count: int) -> None:
    answer = data.draw(st.integers(-1, count - 1))
    least = data.draw(st.integers(0, count))
    guesses = data.draw(st.lists(st.none() | st.integers(-10, count + 10), min_size=1))
    engine = Engine(line(answer), least)
    made = iter(guesses * (2 * count + 10))
    found = find_last(
        count,
        engine,
        first=data.draw(st.integers(-5, count + 5)),
        foretell=lambda _: next(made),
    )
    assert found.index == (answer if answer >= least else None)
    assert found.rising is None
    assert len(engine.asked) <= 10 + 3 * count.bit_length()


@pytest.mark.parametrize("count", [10, 10_000, 1_000_000])
def test_a_right_foretelling_takes_three_starts(count: int) -> None:
    """The first tells where the answer is, the second is it, the third shows that it is all."""
    answer = count // 3
    engine = Engine(line(answer))
    found = search(engine, count, first=count - 1, guess=answer)
    assert found.index == answer
    assert engine.asked == [count - 1, answer, answer + 1]


def test_a_proof_saves_the_start_beyond() -> None:
    engine = Engine(line(500))
    found = find_last(
        1000,
        engine,
        first=999,
        foretell=lambda _: 500,
        prove=lambda made: "no block is left" if made.index == 500 else None,
    )
    assert (found.index, engine.asked, found.beyond) == (500, [999, 500], "no block is left")


def test_what_fits_at_the_end_takes_one_start() -> None:
    engine = Engine(line(10_000))
    found = search(engine, 1000, first=999, guess=None)
    assert (found.index, engine.asked) == (999, [999])


@pytest.mark.parametrize("wrong", [-1, 1, -5, 5, -100, 100])
def test_a_wrong_foretelling_costs_few_more(wrong: int) -> None:
    """The step doubles: about twice the logarithm of how wrong it is."""
    answer, count = 40_000, 131_072
    engine = Engine(line(answer))
    found = search(engine, count, first=answer + wrong, guess=answer + wrong)
    assert found.index == answer
    assert len(engine.asked) <= 4 + 2 * abs(wrong).bit_length()


def test_without_any_foretelling_it_halves() -> None:
    count = 1 << 17
    engine = Engine(line(77_777))
    found = search(engine, count, first=count - 1, guess=None)
    assert found.index == 77_777
    assert len(engine.asked) <= 19


def test_values_without_an_engine_are_passed_over() -> None:
    engine = Engine(line(6), cannot=(3, 5, 6, 7))
    found = search(engine, 12, first=6, guess=6)
    assert found.index == 4
    assert 8 in engine.asked  # the next that has one does not fit


def test_nothing_fits() -> None:
    engine = Engine(line(-1))
    found = search(engine, 100, first=50, guess=0)
    assert (found.index, found.beyond) == (None, "none fits")


def test_memory_that_rises_is_told_and_looked_beyond() -> None:
    """More is left at 60 than at 40: what fits there is found, or at least not denied."""
    spare = {index: (10 - index if index < 50 else 90 - index) * GIB for index in range(100)}
    engine = Engine(spare.__getitem__)
    found = find_last(100, engine, first=60, foretell=lambda _: None)
    assert found.index == 90
    engine = Engine(spare.__getitem__)
    found = find_last(100, engine, first=40, foretell=lambda tries: 5 if len(tries) < 2 else 99)
    assert found.index is not None
    assert spare[found.index] >= 0


def test_a_rise_between_two_that_do_not_fit_is_told() -> None:
    values = {0: 5, 1: -9, 2: -9, 3: -1, 4: -8, 5: 3, 6: -2, 7: -9}
    engine = Engine(lambda index: values[index] * GIB)
    guesses = iter([1, 0])
    found = find_last(8, engine, first=3, foretell=lambda _: next(guesses, None))
    assert found.rising is not None
    assert found.index == 5, "the one beyond was looked for and found"


def test_what_asks_for_too_little_does_not_count_as_rising() -> None:
    """With less asked for more is free: nothing to look beyond the answer for."""
    tries = [
        Try(index=0, outcome="too little", spare_bytes=-2 * GIB),
        Try(index=1, outcome="too little", spare_bytes=-GIB),
        Try(index=2, outcome="fits", spare_bytes=3 * GIB),
        Try(index=3, outcome="too much", spare_bytes=-GIB),
    ]
    found = find_last(9, tries.__getitem__, first=0, foretell=len)
    assert (found.index, found.rising, len(found.tries)) == (2, None, 4)
