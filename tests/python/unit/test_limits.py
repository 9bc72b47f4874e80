"""Which limit counts, by examples; its laws are in property/test_limits_laws.py."""

from __future__ import annotations

from typing import Any

from memacct import _convert, _core

GIB = 1 << 30
MACHINE = {"total_bytes": 64 * GIB, "free_bytes": GIB, "available_bytes": 40 * GIB}


def find(*levels: dict[str, Any], hidden: int | None = None, **machine: Any) -> dict[str, Any]:
    cgroup = _convert.from_dict(
        _core.CgroupMemory,
        {"version": 2, "path": "/a/b", "levels": levels, "hidden_limit_bytes": hidden},
    )
    system = _convert.from_dict(_core.SystemMemory, {**MACHINE, **machine})
    return _core.find_limits(cgroup, system).to_dict()


def level(path: str, **values: Any) -> dict[str, Any]:
    return {"path": path, **values}


def test_without_groups_the_machine_counts() -> None:
    system = _convert.from_dict(_core.SystemMemory, MACHINE)
    assert _core.find_limits(None, system).to_dict() == {
        "effective_limit_bytes": 64 * GIB,
        "effective_limit_source": "machine",
        "effective_limit_path": None,
        "headroom_bytes": 40 * GIB,
        "headroom_source": "machine",
        "headroom_path": None,
        "headroom_known": True,
    }


def test_nothing_known_is_nothing_said() -> None:
    found = _core.find_limits(None, None).to_dict()
    assert {value for name, value in found.items() if name != "headroom_known"} == {None}
    assert found["headroom_known"] is False


def test_limit_and_room_may_be_of_different_levels() -> None:
    """Neighbours have filled the larger one."""
    found = find(
        level("/a/b", limit_bytes=8 * GIB, usage_bytes=GIB),
        level("/a", limit_bytes=20 * GIB, usage_bytes=18 * GIB),
    )
    assert (found["effective_limit_bytes"], found["effective_limit_path"]) == (8 * GIB, "/a/b")
    assert (found["headroom_bytes"], found["headroom_path"]) == (2 * GIB, "/a")
    assert found["effective_limit_source"] == found["headroom_source"] == "cgroup"


def test_a_full_machine_binds_below_a_group_with_room() -> None:
    found = find(level("/a", limit_bytes=8 * GIB, usage_bytes=GIB), available_bytes=3 * GIB)
    assert (found["effective_limit_bytes"], found["effective_limit_source"]) == (8 * GIB, "cgroup")
    assert (found["headroom_bytes"], found["headroom_source"]) == (3 * GIB, "machine")


def test_a_limit_larger_than_the_machine_does_not_count() -> None:
    found = find(level("/a", limit_bytes=900 * GIB, usage_bytes=GIB))
    assert found["effective_limit_source"] == found["headroom_source"] == "machine"


def test_memory_high_binds_under_its_own_name() -> None:
    found = find(level("/a", limit_bytes=8 * GIB, high_bytes=6 * GIB, usage_bytes=5 * GIB))
    assert (found["effective_limit_bytes"], found["headroom_bytes"]) == (6 * GIB, GIB)
    assert found["effective_limit_source"] == found["headroom_source"] == "cgroup_high"


def test_memory_high_equal_to_the_limit_is_the_limit() -> None:
    found = find(level("/a", limit_bytes=8 * GIB, high_bytes=8 * GIB, usage_bytes=5 * GIB))
    assert found["effective_limit_source"] == found["headroom_source"] == "cgroup"


def test_page_cache_is_room() -> None:
    cache = {"inactive_file_bytes": 3 * GIB, "active_file_bytes": 2 * GIB}
    found = find(level("/a", limit_bytes=8 * GIB, usage_bytes=8 * GIB, **cache))
    assert found["headroom_bytes"] == 5 * GIB


def test_what_v1_swapped_out_counts_against_the_limit_of_both() -> None:
    v1 = {"memsw_limit_bytes": 8 * GIB, "memsw_usage_bytes": 7 * GIB}
    found = find(level("/a", limit_bytes=8 * GIB, usage_bytes=2 * GIB, **v1))
    assert (found["headroom_bytes"], found["headroom_source"]) == (GIB, "cgroup_memsw")
    assert found["effective_limit_source"] == "cgroup"


def test_of_equal_rooms_the_higher_level_is_named() -> None:
    same = {"limit_bytes": 8 * GIB, "usage_bytes": GIB}
    found = find(level("/a/b", **same), level("/a", **same))
    assert found["headroom_path"] == found["effective_limit_path"] == "/a"


def test_an_unknown_usage_bounds_from_above_and_says_so() -> None:
    found = find(level("/a", limit_bytes=8 * GIB), level("/", limit_bytes=9 * GIB, usage_bytes=0))
    assert (found["headroom_bytes"], found["headroom_known"]) == (8 * GIB, False)
    found = find(available_bytes=None)  # Linux < 3.14
    assert (found["headroom_bytes"], found["headroom_known"]) == (64 * GIB, False)


def test_a_hidden_limit_binds_without_a_name() -> None:
    found = find(level("/a", limit_bytes=8 * GIB, usage_bytes=GIB), hidden=2 * GIB)
    assert found["effective_limit_bytes"] == found["headroom_bytes"] == 2 * GIB
    assert (found["effective_limit_source"], found["effective_limit_path"]) == ("cgroup", None)
    assert found["headroom_known"] is False
