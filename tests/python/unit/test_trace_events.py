"""Who moved between samples, and the floor of what stays behind, from made-up samples."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from memacct._trace_events import (
    FOREIGN,
    Held,
    ProcessKey,
    Sample,
    foreign_bytes_of,
    foreign_events,
    residue_trend,
)
from memacct._units import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN, TREE = 0, 1
HOUR_NS = 3600 * 10**9


def sample(n: int, **held: int | tuple[int, int]) -> Sample:
    """A sample at n microseconds; ``p7=5``: the foreign process 7 holds 5 bytes."""
    processes = {}
    for name, value in held.items():
        owner, size = value if isinstance(value, tuple) else (FOREIGN, value)
        processes[ProcessKey(int(name[1:]), 100)] = Held(owner, size, f"n{name[1:]}")
    return Sample(n * 1000, 10, processes)


def told(samples: Sequence[Sample], min_bytes: int = 0) -> list[tuple[str, int, int, int, int]]:
    return [
        (e.kind, e.pid, e.change_bytes, e.after_ns, e.before_ns)
        for e in foreign_events(samples, min_bytes)
    ]


def test_each_kind_of_move() -> None:
    samples = [
        sample(1, p7=5),
        sample(2, p7=8, p9=2),
        sample(3, p7=6, p9=2),
        sample(4, p9=2),
    ]
    assert told(samples) == [
        ("grow", 7, 3, 1000, 2010),
        ("appear", 9, 2, 1000, 2010),
        ("shrink", 7, -2, 2000, 3010),
        ("exit", 7, -6, 3000, 4010),
    ]
    events = list(foreign_events(samples, 0))
    assert [event.name for event in events] == ["n7", "n9", "n7", "n7"]
    assert str(events[0]) == "pid 7 (n7) grow +3 B"
    assert (events[0].before_bytes, events[0].after_bytes) == (5, 8)


def test_own_and_tree_do_not_count_but_a_change_of_sides_does() -> None:
    samples = [
        sample(1, p7=(OWN, 5), p8=(TREE, 5), p9=4),
        sample(2, p7=(OWN, 9), p8=5, p9=(TREE, 4)),
    ]
    assert told(samples) == [
        ("reclassified", 8, 5, 1000, 2010),
        ("reclassified", 9, -4, 1000, 2010),
    ]


def test_a_number_that_is_given_again_is_another_process() -> None:
    def of(start: int, n: int) -> Sample:
        return Sample(n * 1000, 10, {ProcessKey(7, start): Held(FOREIGN, 5, "")})

    assert [(e.kind, e.change_bytes) for e in foreign_events([of(1, 1), of(2, 2)], 0)] == [
        ("exit", -5),
        ("appear", 5),
    ]


def test_small_moves_are_added_up_and_none_is_lost() -> None:
    samples = [sample(n, p7=5 * n) for n in range(1, 8)]
    assert told(samples, 12) == [
        ("grow", 7, 15, 1000, 4010),
        ("grow", 7, 15, 4000, 7010),
    ]
    assert told(samples[:3], 12) == [("grow", 7, 10, 1000, 3010)]  # what is left at the end
    there_and_back = [sample(1, p7=5), sample(2, p7=9), sample(3, p7=5), sample(4, p7=50)]
    assert told(there_and_back, 12) == [("grow", 7, 45, 3000, 4010)]
    brief = [sample(1), sample(2, p7=5), sample(3), sample(4)]
    assert told(brief, 12) == []
    assert told(brief) == [("appear", 7, 5, 1000, 2010), ("exit", 7, -5, 2000, 3010)]


def test_nothing_to_compare() -> None:
    assert told([]) == []
    assert told([sample(1, p7=5)]) == []


ROWS = st.dictionaries(
    st.integers(1, 4),
    st.tuples(st.sampled_from([OWN, TREE, FOREIGN]), st.integers(0, 40)),
    max_size=4,
)


@given(rows=st.lists(ROWS, max_size=12), min_bytes=st.integers(0, 60))
def test_the_events_sum_up_to_the_change_of_foreign(
    rows: list[dict[int, tuple[int, int]]], min_bytes: int
) -> None:
    samples = [sample(n, **{f"p{k}": v for k, v in row.items()}) for n, row in enumerate(rows)]
    totals = [sum(map(foreign_bytes_of, each.processes.values())) for each in samples]
    events = list(foreign_events(samples, min_bytes))
    assert sum(event.change_bytes for event in events) == (totals[-1] - totals[0] if rows else 0)
    for event in events:
        assert event.change_bytes == event.after_bytes - event.before_bytes != 0
        assert event.after_ns < event.before_ns
    if min_bytes <= 1:
        for (first, second), (low, high) in zip(
            itertools.pairwise(samples),
            itertools.pairwise(totals),
            strict=True,
        ):
            between = [e for e in events if e.after_ns == first.taken_ns]
            between = [e for e in between if e.before_ns == second.taken_ns + 10]
            assert sum(event.change_bytes for event in between) == high - low


# ---------------------------------------------------------------- residue


def sleeping(hours: int, residue: int) -> list[tuple[int, int]]:
    """A minute's samples of an engine that sleeps every other minute."""
    points = []
    for minute in range(hours * 60):
        awake = minute % 2 == 0
        floor = 412 * MIB + residue * minute // 60
        points.append((minute * HOUR_NS // 60, floor + (40_000 * MIB if awake else 0)))
    return points


def test_a_floor_that_rises_under_a_load_that_comes_and_goes() -> None:
    """412 to 5184 MiB in a day: about 199 MiB an hour, below 40 GiB of work."""
    trend = residue_trend(
        sleeping(24, 199 * MIB), reserved=(), windows_count=24, alarm_bytes_per_hour=64 * MIB
    )
    assert trend.slope_bytes_per_hour is not None
    assert abs(trend.slope_bytes_per_hour - 199 * MIB) < 2 * MIB
    assert trend.alarm
    assert trend.change_bytes is not None
    assert abs(trend.change_bytes - 23 * 199 * MIB) < 8 * MIB
    assert len(trend.floors) == 24
    assert trend.samples_count == 24 * 60


def test_no_alarm_where_only_the_load_changes() -> None:
    for points in (sleeping(24, 0), sleeping(24, 10 * MIB), sleeping(24, -30 * MIB)):
        trend = residue_trend(points, reserved=(), windows_count=24, alarm_bytes_per_hour=64 * MIB)
        assert not trend.alarm
    # One window in which it never slept is no trend.
    odd = [(t, b + (30_000 * MIB if t // HOUR_NS == 20 else 0)) for t, b in sleeping(24, 0)]
    assert not residue_trend(
        odd, reserved=(), windows_count=24, alarm_bytes_per_hour=64 * MIB
    ).alarm


def test_what_the_allocator_could_give_back_is_no_residue() -> None:
    own = [(n * HOUR_NS, 500 * MIB + n * 100 * MIB) for n in range(10)]
    reserved = [(n * HOUR_NS, n * 100 * MIB) for n in range(10)]
    plain = residue_trend(own, reserved=(), windows_count=5, alarm_bytes_per_hour=64 * MIB)
    less = residue_trend(own, reserved=reserved, windows_count=5, alarm_bytes_per_hour=64 * MIB)
    assert plain.alarm
    assert not less.alarm
    assert less.slope_bytes_per_hour == 0
    late = residue_trend(own, reserved=reserved[5:], windows_count=5, alarm_bytes_per_hour=1)
    assert late.samples_count == 5


def test_too_few_points_have_no_slope() -> None:
    for points in ([], [(5, 7)]):
        trend = residue_trend(points, reserved=(), windows_count=4, alarm_bytes_per_hour=1)
        assert trend.slope_bytes_per_hour is None
        assert trend.change_bytes is None
        assert not trend.alarm
