"""Random starts beside random neighbours: a few fixed seeds, and fresh ones that are printed.

The law and its 200 recorded seeds: bench/engine/random_starts.py.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from random_starts import Lanes, Row, line
from starts_plan import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.demo import Bench

pytestmark = pytest.mark.engine

FRESH_COUNT = 3
# One or more of each sort, both runners, with and without graphs.
FIXED_SEEDS = (1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13)


@pytest.fixture(scope="module")
def lanes(bench: Bench) -> Iterator[Lanes]:
    with Lanes(replace(bench, folder=bench.folder.parent / "random-starts"), 1) as found:
        yield found


def run(lanes: Lanes, seed: int, say: Callable[[str], None]) -> Row:
    plan = draw(seed)
    missing = {plan.engine, "second"} - {engine for engine, _ in lanes.alone}
    lanes.start_alone(missing)
    row = lanes.run(plan)
    say(line(row))
    return row


@pytest.mark.parametrize("seed", FIXED_SEEDS)
def test_native_holds_the_law(lanes: Lanes, say: Callable[[str], None], seed: int) -> None:
    assert run(lanes, seed, say)["broken"] == []


def test_native_holds_the_law_of_seeds_that_nobody_chose(
    lanes: Lanes, say: Callable[[str], None]
) -> None:
    for _ in range(FRESH_COUNT):
        seed = 1000 + secrets.randbelow(1_000_000)
        row = run(lanes, seed, say)
        assert row["broken"] == [], f"seed {seed}"
