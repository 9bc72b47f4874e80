"""Who holds what: rows that add up, named processes, and when each moved last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from memacct import _core
from memacct._convert import from_dict
from memacct.accounting.holders import EngineHolding, OtherProcess, holder_rows
from memacct.accounting.movements import Movements
from memacct.accounting.siblings import Sibling

if TYPE_CHECKING:
    from collections.abc import Mapping

TOTAL = 1 << 44
SIZES = st.integers(0, 1 << 36)
PIDS = st.integers(100, 120)
LISTS = st.dictionaries(PIDS, SIZES, max_size=20)
_NS_PER_S = 1_000_000_000


def device(
    others: Mapping[int, int | None], *, own: int = 0, kept: int = 7, at_s: float = 0
) -> _core.DeviceMemory:
    known = [size for size in others.values() if size is not None]
    hidden = len(known) < len(others)
    device_used = sum(known) + own
    return from_dict(
        _core.DeviceMemory,
        {
            "uuid": "GPU-0",
            "name": "GPU",
            "source": "nvml_v2",
            "taken_ns": int(at_s * _NS_PER_S),
            "span_ns": 1,
            "total_bytes": TOTAL,
            "free_bytes": TOTAL - kept - device_used,
            "device_used_bytes": device_used,
            "reserved_bytes": kept,
            "own_bytes": own,
            "tree_bytes": 0,
            "foreign_bytes": None if hidden else sum(known),
            "unattributed_bytes": None if hidden else 0,
            "processes": [
                {"pid": pid, "process_used_bytes": size, "owner": "foreign", "kinds": ["compute"]}
                for pid, size in others.items()
            ],
            "attribution": {"source": "pid", "own_bounds_bytes": [own, own], "reason": ""},
            "consistent": True,
            "attempts_count": 1,
        },
    )


@given(now=LISTS, then=LISTS, siblings=st.sets(PIDS), data=st.data())
def test_both_columns_add_up_to_the_device(
    now: dict[int, int], then: dict[int, int], siblings: set[int], data: st.DataObject
) -> None:
    allocated = data.draw(SIZES)
    cached, rest = data.draw(SIZES), data.draw(SIZES)
    engine = EngineHolding(
        weights_bytes=data.draw(SIZES),
        allocated_bytes=allocated,
        reserved_bytes=allocated + cached,
        asleep_bytes=data.draw(st.integers(0, allocated)),
        activations_peak_bytes=data.draw(SIZES),
        graphs_bytes=data.draw(SIZES),
        kv_cache_bytes=data.draw(SIZES),
        requested_bytes=data.draw(SIZES),
    )
    reading = device(now, own=allocated + cached - engine.asleep_bytes + rest)
    rows = holder_rows(
        reading,
        engine,
        baseline=device(then),
        siblings=[Sibling(pid=pid, role="worker") for pid in siblings],
        others={pid: OtherProcess(name="x") for pid in now},
    )
    assert sum(row.now_bytes or 0 for row in rows) == TOTAL
    assert sum(row.planned_bytes or 0 for row in rows) == TOTAL
    names = [row.name for row in rows]
    for pid in siblings:
        assert f"pid {pid} x" not in names


def test_processes_are_named_and_those_that_left_are_told() -> None:
    rows = holder_rows(
        device({1: 30, 2: 50}, own=5),
        EngineHolding(),
        baseline=device({2: 60, 3: 40}, own=5),
        others={1: OtherProcess(name="python train.py", moved="moved last 1.0 to 2.0 s")},
    )
    told = {row.name: (row.now_bytes, row.since_start_bytes) for row in rows}
    assert told["pid 1 python train.py"] == (30, 30)
    assert told["pid 2"] == (50, -10)
    assert told["pid 3"] == (0, -40)
    assert told["this process"] == (5, 0)
    (moved,) = (row.source for row in rows if row.name == "pid 1 python train.py")
    assert moved == "moved last 1.0 to 2.0 s"


def test_a_hidden_number_leaves_the_sum_of_the_others() -> None:
    rows = holder_rows(device({1: 30, 2: None}), EngineHolding())
    assert [row.now_bytes for row in rows if row.name == "foreign"] == [None]
    assert not any(row.name.startswith("pid") for row in rows)


def test_when_each_moved_last() -> None:
    movements = Movements()
    for at_s, others in (
        (10.0, {1: 5, 2: 5}),
        (11.0, {1: 5, 2: 5}),
        (12.5, {1: 9, 2: 5}),
        (13.0, {1: 9}),
        (14.0, {1: 9}),
    ):
        movements.add(device(others, at_s=at_s))
    movements.add(None)
    assert movements.last_move(1) == "moved last 1.0 to 2.5 s after the start"
    assert movements.last_move(2) == "moved last 2.5 to 3.0 s after the start"
    assert movements.last_move(3) == ""
    assert Movements().last_move(1) == ""
