"""Laws of snapshot differences: antisymmetric, additive, and None wherever a side is."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memacct import Snapshot, _convert, _core
from memacct._types import CgroupDelta, HostDelta

BYTES = st.integers(min_value=0, max_value=2**63 - 1)
MAYBE = st.none() | BYTES
HOST_FIELDS: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(_core.HostMemory._fields, MAYBE)
HOSTS = st.fixed_dictionaries(
    {
        **HOST_FIELDS,
        "tier": st.just("rollup"),
        "pid": st.just(7),
        "vms_bytes": BYTES,
        "rss_bytes": BYTES,
    }
)
RATIOS = st.integers(min_value=0, max_value=10000).map(lambda parts: parts / 10000)
PRESSURES = st.none() | st.fixed_dictionaries(
    {
        **{f"some_avg{seconds}_ratio": RATIOS for seconds in (10, 60, 300)},
        "some_stalled_ns": BYTES,
        "full_stalled_ns": MAYBE,
    }
)
CGROUPS = st.none() | st.fixed_dictionaries(
    {
        "version": st.just(2),
        "path": st.just("/a"),
        "limit_path": st.sampled_from([None, "/", "/a"]),
        "limit_bytes": MAYBE,
        "usage_bytes": MAYBE,
        "inactive_file_bytes": MAYBE,
        "active_file_bytes": MAYBE,
        "levels": st.lists(st.fixed_dictionaries({"path": st.just("/a"), "usage_bytes": MAYBE})),
        "events": st.none() | st.fixed_dictionaries({"oom_kill_count": MAYBE}),
        "pressure": PRESSURES,
    }
)
SYSTEMS = st.none() | st.fixed_dictionaries(
    {
        "total_bytes": BYTES,
        "free_bytes": BYTES,
        "available_bytes": MAYBE,
        "swap_free_bytes": MAYBE,
        "pressure": PRESSURES,
        "nodes": st.none()
        | st.just([{"node": 0, "total_bytes": 2, "free_bytes": 1, "anon_bytes": 0}]),
    }
)
ALLOCATORS = st.none() | st.lists(
    st.fixed_dictionaries(
        {
            "uuid": st.sampled_from(["GPU-a", "GPU-b", "GPU-c"]),
            "reserved_bytes": BYTES,
            "allocated_bytes": BYTES,
        }
    ),
    unique_by=lambda item: item["uuid"],
)


def make_snapshot(values: dict[str, Any]) -> Snapshot:
    return _convert.from_dict(Snapshot, {"span_ns": 5, "pid": 7, **values})


SNAPSHOTS = st.fixed_dictionaries(
    {"taken_ns": BYTES, "host": HOSTS, "cgroup": CGROUPS, "system": SYSTEMS, "torch": ALLOCATORS}
).map(make_snapshot)


@given(before=SNAPSHOTS, after=SNAPSHOTS)
def test_difference_is_antisymmetric(before: Snapshot, after: Snapshot) -> None:
    one, other = after - before, -(before - after)
    assert one.host == other.host
    assert one.cgroup == other.cgroup
    assert one.system == other.system
    assert one.elapsed_ns == other.elapsed_ns
    by_uuid = [sorted(d.torch or (), key=lambda each: each.uuid) for d in (one, other)]
    assert by_uuid[0] == by_uuid[1]


@given(a=SNAPSHOTS, b=SNAPSHOTS, c=SNAPSHOTS)
def test_differences_add_up_where_all_three_know(a: Snapshot, b: Snapshot, c: Snapshot) -> None:
    whole, parts = c - a, (c - b) + (b - a)
    assert parts.elapsed_ns == whole.elapsed_ns
    assert parts.host.rss_bytes == whole.host.rss_bytes
    for field in fields(HostDelta):
        part = getattr(parts.host, field.name)
        if getattr(b.host, field.name) is None:
            assert part is None
        else:
            assert part == getattr(whole.host, field.name)


@given(snapshot=SNAPSHOTS)
def test_difference_to_itself_is_zero_where_known(snapshot: Snapshot) -> None:
    delta = snapshot - snapshot
    for field in fields(HostDelta):
        unknown = getattr(snapshot.host, field.name) is None
        assert getattr(delta.host, field.name) == (None if unknown else 0)


@given(before=SNAPSHOTS, after=SNAPSHOTS)
def test_usages_of_two_groups_have_no_difference(before: Snapshot, after: Snapshot) -> None:
    delta = (after - before).cgroup
    one_account = (
        after.cgroup is not None
        and before.cgroup is not None
        and after.cgroup.limit_path == before.cgroup.limit_path
    )
    assert isinstance(delta, CgroupDelta) == one_account


@given(before=SNAPSHOTS, after=SNAPSHOTS)
def test_pressure_and_events_are_terms_where_both_know_them(
    before: Snapshot, after: Snapshot
) -> None:
    delta = (after - before).cgroup
    if delta is None or before.cgroup is None or after.cgroup is None:
        return
    one, other = before.cgroup.pressure, after.cgroup.pressure
    stalled = None if one is None or other is None else other.some_stalled_ns - one.some_stalled_ns
    assert delta.some_stalled_ns == stalled
    events, later = before.cgroup.events, after.cgroup.events
    kills = None if events is None else events.oom_kill_count
    kills_later = None if later is None else later.oom_kill_count
    known = kills is not None and kills_later is not None
    assert (delta.oom_kill_count is not None) == known
    if kills is not None and kills_later is not None:
        assert delta.oom_kill_count == kills_later - kills


@given(snapshot=SNAPSHOTS)
def test_plain_data_json_and_pickle_give_the_same_snapshot_back(snapshot: Snapshot) -> None:
    data = snapshot.to_dict()
    assert _convert.from_dict(Snapshot, data) == snapshot
    assert _convert.from_dict(Snapshot, json.loads(json.dumps(data))) == snapshot
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot  # noqa: S301 (our own bytes)


@given(snapshot=SNAPSHOTS, other_pid=st.integers(min_value=8, max_value=2**22))
def test_snapshots_of_two_processes_have_no_difference(snapshot: Snapshot, other_pid: int) -> None:
    other = _convert.from_dict(Snapshot, {**snapshot.to_dict(), "pid": other_pid})
    with pytest.raises(ValueError, match=f"pid 7 and pid {other_pid}"):
        snapshot - other
    with pytest.raises(ValueError, match=f"pid {other_pid} and pid 7"):
        (other - other) + (snapshot - snapshot)
