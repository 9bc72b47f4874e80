"""Random starts beside random neighbours: a few fixed seeds, and fresh ones that are printed.

The law and its 200 recorded seeds: bench/engine/random_starts.py.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from random_starts import Lanes, Row, line
from starts_plan import SORTS, draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.demo import Bench

pytestmark = pytest.mark.engine

FRESH_COUNT = 3
ENGINE = "eager-v2"  # what takes longer has tests of its own, and the recorded seeds
# Two or more of each sort of neighbours.
FIXED_SEEDS = (1, 3, 4, 7, 8, 9, 10, 11, 12, 14, 17, 25)


@pytest.fixture(scope="module")
def lanes(bench: Bench) -> Iterator[Lanes]:
    with Lanes(replace(bench, folder=bench.folder.parent / "random-starts"), 1) as found:
        yield found


@pytest.fixture(scope="module")
def run(lanes: Lanes, say: Callable[[str], None]) -> Callable[[int], Row]:
    lanes.start_alone((ENGINE, "second"))

    def carry_out(seed: int) -> Row:
        row: Row = lanes.run(draw(seed))
        say(line(row))
        return row

    return carry_out


@pytest.mark.parametrize("seed", FIXED_SEEDS)
def test_native_holds_the_law(run: Callable[[int], Row], seed: int) -> None:
    assert run(seed)["broken"] == []


def test_native_holds_the_law_of_seeds_that_nobody_chose(run: Callable[[int], Row]) -> None:
    first = 1000 + secrets.randbelow(1_000_000)
    fresh = [seed for seed in range(first, first + 100) if draw(seed).engine == ENGINE]
    for seed in fresh[:FRESH_COUNT]:
        assert run(seed)["broken"] == [], f"seed {seed}"


def test_a_seed_is_always_the_same_plan() -> None:
    assert {draw(seed).sort for seed in FIXED_SEEDS} == set(SORTS)
    assert all(draw(seed) == draw(seed) for seed in range(50))
