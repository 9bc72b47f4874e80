"""Laws of the limit that counts: the least of all, wherever it is, and never more than a room."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from memacct import _convert, _core

BYTES = st.integers(min_value=0, max_value=2**64 - 1)
# Small numbers meet often, so that values are equal and limits exceeded.
SIZES = st.integers(min_value=0, max_value=9) | BYTES
MAYBE = st.none() | SIZES
LEVELS = st.fixed_dictionaries(
    {
        "path": st.sampled_from(["/", "/a", "/a/b"]),
        "limit_bytes": MAYBE,
        "high_bytes": MAYBE,
        "usage_bytes": MAYBE,
        "inactive_file_bytes": MAYBE,
        "active_file_bytes": MAYBE,
        "memsw_limit_bytes": MAYBE,
        "memsw_usage_bytes": MAYBE,
    }
)
SYSTEMS = st.none() | st.fixed_dictionaries(
    {"total_bytes": SIZES, "free_bytes": SIZES, "available_bytes": MAYBE}
)


def make_cgroup(levels: list[dict[str, Any]], hidden: int | None = None) -> _core.CgroupMemory:
    data = {"version": 2, "path": "/a/b", "levels": levels, "hidden_limit_bytes": hidden}
    return _convert.from_dict(_core.CgroupMemory, data)


def make_system(values: dict[str, Any] | None) -> _core.SystemMemory | None:
    return None if values is None else _convert.from_dict(_core.SystemMemory, values)


def all_limits(
    levels: list[dict[str, Any]], hidden: int | None, system: dict[str, Any] | None
) -> list[tuple[int, int | None]]:
    """Each limit and what it leaves, in Python's unbounded integers; None: unknown."""
    found: list[tuple[int, int | None]] = []
    for level in levels:
        cache = (level["inactive_file_bytes"] or 0) + (level["active_file_bytes"] or 0)
        for limit, usage in (
            ("limit_bytes", "usage_bytes"),
            ("high_bytes", "usage_bytes"),
            ("memsw_limit_bytes", "memsw_usage_bytes"),
        ):
            if level[limit] is None:
                continue
            held = None if level[usage] is None else max(0, level[usage] - cache)
            room = None if held is None else max(0, level[limit] - held)
            found.append((level[limit], room))
    if hidden is not None:
        found.append((hidden, None))
    if system is not None:
        found.append((system["total_bytes"], system["available_bytes"]))
    return found


@given(levels=st.lists(LEVELS, max_size=4), hidden=MAYBE, system=SYSTEMS)
def test_both_are_the_least_over_all_limits(
    levels: list[dict[str, Any]], hidden: int | None, system: dict[str, Any] | None
) -> None:
    found = _core.find_limits(make_cgroup(levels, hidden), make_system(system))
    limits = all_limits(levels, hidden, system)
    assert found.effective_limit_bytes == min((limit for limit, _ in limits), default=None)
    # An unknown usage leaves at most the whole limit.
    rooms = [limit if room is None else room for limit, room in limits]
    assert found.headroom_bytes == min(rooms, default=None)
    assert found.headroom_known == (bool(limits) and all(room is not None for _, room in limits))
    assert (found.effective_limit_source is None) == (not limits)


@given(levels=st.lists(LEVELS, max_size=4), system=SYSTEMS, data=st.data())
def test_the_order_of_the_levels_does_not_change_what_is_found(
    levels: list[dict[str, Any]], system: dict[str, Any] | None, data: st.DataObject
) -> None:
    one = _core.find_limits(make_cgroup(levels), make_system(system))
    shuffled = data.draw(st.permutations(levels))
    other = _core.find_limits(make_cgroup(shuffled), make_system(system))
    assert one.effective_limit_bytes == other.effective_limit_bytes
    assert one.headroom_bytes == other.headroom_bytes
    assert one.headroom_known == other.headroom_known


@given(levels=st.lists(LEVELS, max_size=4), more=LEVELS, system=SYSTEMS)
def test_a_further_level_never_gives_more(
    levels: list[dict[str, Any]], more: dict[str, Any], system: dict[str, Any] | None
) -> None:
    without = _core.find_limits(make_cgroup(levels), make_system(system))
    found = _core.find_limits(make_cgroup([*levels, more]), make_system(system))
    if without.headroom_bytes is not None:
        assert found.headroom_bytes is not None
        assert found.headroom_bytes <= without.headroom_bytes
        assert found.effective_limit_bytes is not None
        assert without.effective_limit_bytes is not None
        assert found.effective_limit_bytes <= without.effective_limit_bytes


@given(levels=st.lists(LEVELS, max_size=4), system=SYSTEMS)
def test_what_binds_is_named(levels: list[dict[str, Any]], system: dict[str, Any] | None) -> None:
    found = _core.find_limits(make_cgroup(levels), make_system(system))
    if found.effective_limit_source is None:
        return
    field = {
        "cgroup": "limit_bytes",
        "cgroup_high": "high_bytes",
        "cgroup_memsw": "memsw_limit_bytes",
    }
    for source, path, is_room in (
        (found.effective_limit_source, found.effective_limit_path, False),
        (found.headroom_source, found.headroom_path, True),
    ):
        assert source is not None
        if source == "machine":
            assert path is None
            assert system is not None
            continue
        named = [level[field[source]] for level in levels if level["path"] == path]
        if not is_room:
            assert found.effective_limit_bytes in named
        else:
            assert any(
                limit is not None and limit >= (found.headroom_bytes or 0) for limit in named
            )
