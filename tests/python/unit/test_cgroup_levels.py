"""What each control group level says: both working sets, swap, room, pressure and events."""

from __future__ import annotations

import os
from errno import EOPNOTSUPP
from pathlib import Path

import pytest
from cgroup_tree import V1_STAT, Tree, known

from memacct import SourceFormatError, SourceReadError, _core

CAPTURED = Path(__file__).parents[2] / "data" / "proc"
MIB = 1 << 20
TOP = "/sys/fs/cgroup"
PRESSURE = """\
some avg10=1.53 avg60=0.87 avg300=0.10 total=12345678
full avg10=0.25 avg60=0.05 avg300=0.00 total=2345678
"""
EVENTS = "low 1\nhigh 20\nmax 300\noom 4\noom_kill 5\noom_group_kill 6\n"


def v2(root: Path, path: str = "/") -> Tree:
    return Tree(root, version=2, path=path, mounts=[("/", TOP)])


def v1(root: Path, path: str = "/") -> Tree:
    return Tree(root, version=1, path=path, mounts=[("/", TOP)])


def test_levels_go_from_the_own_group_upwards(tmp_path: Path) -> None:
    tree = v2(tmp_path, "/a/b")
    tree.write(f"{TOP}/memory.stat", "anon 1\ninactive_file 2\nactive_file 3\n")
    tree.group(f"{TOP}/a", limit=str(900 * MIB), usage=400 * MIB)
    tree.group(f"{TOP}/a/b", limit="max", usage=200 * MIB)
    own, above, top = known(tree.read()).levels
    assert [own.path, above.path, top.path] == ["/a/b", "/a", "/"]
    assert (own.limit_bytes, above.limit_bytes, top.limit_bytes) == (None, 900 * MIB, None)
    assert (own.usage_bytes, above.usage_bytes, top.usage_bytes) == (200 * MIB, 400 * MIB, None)
    # 400 in use, of which 300 are page cache.
    assert (own.room_bytes, above.room_bytes, top.room_bytes) == (None, 800 * MIB, None)
    assert top.working_set_bytes is None


@pytest.mark.parametrize("version", [1, 2])
def test_both_conventions_of_the_working_set(tmp_path: Path, version: int) -> None:
    tree = (v1 if version == 1 else v2)(tmp_path)
    tree.group(TOP, limit="max", usage=100 * MIB)
    level = known(tree.read()).levels[0]
    assert level.working_set_bytes == 50 * MIB  # without the half that is inactive
    assert level.uncached_usage_bytes == 25 * MIB  # nor the quarter that is active


def test_page_cache_that_exceeds_the_usage_leaves_nothing(tmp_path: Path) -> None:
    """The kernel sums the two at different times."""
    tree = v2(tmp_path)
    tree.group(TOP, limit=str(10 * MIB), usage=4 * MIB)
    tree.write(f"{TOP}/memory.stat", f"inactive_file {3 * MIB}\nactive_file {2**64 - 1}\n")
    level = known(tree.read()).levels[0]
    assert (level.working_set_bytes, level.uncached_usage_bytes) == (MIB, 0)
    assert level.room_bytes == 10 * MIB


def test_usage_beyond_the_limit_leaves_no_room(tmp_path: Path) -> None:
    """A limit that was lowered below what is held."""
    tree = v2(tmp_path)
    tree.group(TOP, limit=str(MIB), usage=400 * MIB)
    assert known(tree.read()).levels[0].room_bytes == 0


def test_a_stat_without_the_lists_leaves_the_working_sets_unknown(tmp_path: Path) -> None:
    tree = v2(tmp_path)
    tree.group(TOP, limit=str(MIB), usage=1)
    tree.write(f"{TOP}/memory.stat", "anon 5\n")
    level = known(tree.read()).levels[0]
    assert (level.working_set_bytes, level.uncached_usage_bytes) == (None, None)
    assert level.room_bytes == MIB - 1


def test_v2_swap_is_limited_and_counted_alone(tmp_path: Path) -> None:
    tree = v2(tmp_path)
    tree.group(TOP, limit=str(8 * MIB), usage=MIB)
    tree.files(TOP, {"memory.swap.max": 5 * MIB, "memory.swap.current": 3 * MIB})
    level = known(tree.read()).levels[0]
    assert (level.swap_limit_bytes, level.swap_usage_bytes) == (5 * MIB, 3 * MIB)
    assert (level.memsw_limit_bytes, level.memsw_usage_bytes) == (None, None)
    assert known(tree.read()).swap_usage_bytes == 3 * MIB
    tree.files(TOP, {"memory.swap.max": "max"})
    assert known(tree.read()).levels[0].swap_limit_bytes is None


def test_v1_swap_is_limited_together_with_memory(tmp_path: Path) -> None:
    tree = v1(tmp_path)
    tree.group(TOP, limit=str(100 * MIB), usage=40 * MIB)
    tree.files(
        TOP,
        {
            "memory.memsw.limit_in_bytes": 100 * MIB,
            "memory.memsw.usage_in_bytes": 90 * MIB,
            "memory.stat": V1_STAT.format(0, 0) + f"swap 7\ntotal_swap {50 * MIB}",
        },
    )
    level = known(tree.read()).levels[0]
    assert level.swap_usage_bytes == 50 * MIB
    assert level.swap_limit_bytes is None  # v1 has no limit of swap alone
    assert (level.memsw_limit_bytes, level.memsw_usage_bytes) == (100 * MIB, 90 * MIB)
    assert level.room_bytes == 10 * MIB  # what was swapped out counts against it too


def test_v1_limits_are_not_looked_for_where_the_hierarchy_has_none(tmp_path: Path) -> None:
    tree = v1(tmp_path, "/a")
    unlimited = 9223372036854771712
    stat = V1_STAT.format(0, 0)
    stat += f"hierarchical_memory_limit {unlimited}\nhierarchical_memsw_limit {unlimited}\n"
    for group in (TOP, f"{TOP}/a"):
        tree.group(group, limit="not to be read", usage=MIB)
        tree.files(group, {"memory.memsw.limit_in_bytes": "nor this"})
        tree.write(f"{group}/memory.stat", stat)
    cgroup = known(tree.read())
    assert [level.limit_bytes for level in cgroup.levels] == [None, None]
    assert [level.usage_bytes for level in cgroup.levels] == [MIB, MIB]


def test_v2_pressure_and_events_are_of_the_own_group(tmp_path: Path) -> None:
    tree = v2(tmp_path, "/a")
    for group in (TOP, f"{TOP}/a"):
        tree.group(group, limit="max", usage=1)
    tree.write(f"{TOP}/memory.events", "oom_kill 99\n")
    tree.write(f"{TOP}/memory.pressure", PRESSURE.replace("1.53", "99.99"))
    cgroup = known(tree.read())
    assert cgroup.pressure is None
    assert cgroup.events is None
    tree.write(f"{TOP}/a/memory.pressure", PRESSURE)
    tree.write(f"{TOP}/a/memory.events", EVENTS)
    cgroup = known(tree.read())
    assert cgroup.pressure is not None
    assert cgroup.pressure.to_dict() == {
        "some_avg10_ratio": 0.0153,
        "some_avg60_ratio": 0.0087,
        "some_avg300_ratio": 0.001,
        "some_stalled_ns": 12_345_678_000,
        "full_avg10_ratio": 0.0025,
        "full_avg60_ratio": 0.0005,
        "full_avg300_ratio": 0.0,
        "full_stalled_ns": 2_345_678_000,
    }
    assert cgroup.events is not None
    assert list(cgroup.events.to_dict().values()) == [1, 20, 300, 4, 5, 6]


def test_events_of_older_kernels_lack_what_is_then_unknown(tmp_path: Path) -> None:
    tree = v2(tmp_path)
    tree.group(TOP, limit="max", usage=1)
    tree.write(f"{TOP}/memory.events", "low 0\nhigh 0\nmax 0\noom 0\n")  # Linux < 4.13
    events = known(tree.read()).events
    assert events is not None
    assert (events.oom_count, events.oom_kill_count, events.oom_group_kill_count) == (0, None, None)


def test_v1_events_are_the_kills_and_the_hits(tmp_path: Path) -> None:
    tree = v1(tmp_path)
    tree.group(TOP, limit="0", usage=1)
    tree.write(f"{TOP}/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    tree.files(TOP, {"memory.failcnt": 17, "memory.memsw.failcnt": 5})
    cgroup = known(tree.read())
    assert cgroup.events is not None
    assert (cgroup.events.oom_kill_count, cgroup.events.max_count) == (3, 17)
    tree.files(TOP, {"memory.memsw.limit_in_bytes": 0})
    events = known(tree.read()).events
    assert events is not None
    assert events.max_count == 22
    assert cgroup.events.high_count is None
    assert cgroup.pressure is None


def test_pressure_that_is_turned_off_is_unknown(tmp_path: Path) -> None:
    """Kernels that are booted with psi=0 list the file, and refuse to read it (EOPNOTSUPP)."""
    tree = v2(tmp_path)
    tree.group(TOP, limit="max", usage=1)
    refusing = next(iter(_refusing_files()), None)
    if refusing is None:
        pytest.skip("no file of this kernel answers a read with EOPNOTSUPP")
    (tmp_path / TOP.lstrip("/") / "memory.pressure").symlink_to(refusing)
    assert known(tree.read()).pressure is None


def _refusing_files() -> list[Path]:
    return [
        file for file in Path("/sys/class/net").glob("*/phys_*") if _error_of(file) == EOPNOTSUPP
    ]


def _error_of(file: Path) -> int | None:
    try:
        file.read_bytes()
    except OSError as error:
        return error.errno
    return None


def test_pressure_that_fails_otherwise_is_an_error(tmp_path: Path) -> None:
    tree = v2(tmp_path)
    tree.group(TOP, limit="max", usage=1)
    (tmp_path / TOP.lstrip("/") / "memory.pressure").mkdir()
    with pytest.raises(SourceReadError):
        tree.read()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.events", "oom_kill many\n"),
        ("memory.events", "oom_kill 1"),
        ("memory.pressure", "some avg10=0.00\n"),
        ("memory.swap.max", "-1\n"),
        ("memory.swap.current", "1 kB\n"),
    ],
)
def test_a_file_that_is_not_understood_is_named(tmp_path: Path, name: str, text: str) -> None:
    tree = v2(tmp_path)
    tree.group(TOP, limit="max", usage=1)
    tree.write(f"{TOP}/{name}", text)
    with pytest.raises(SourceFormatError) as caught:
        tree.read()
    assert caught.value.source == f"{tmp_path}{TOP}/{name}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_events_that_are_not_permitted_are_unknown(tmp_path: Path) -> None:
    tree = v2(tmp_path)
    tree.group(TOP, limit="max", usage=1)
    tree.write(f"{TOP}/memory.events", EVENTS)
    (tmp_path / TOP.lstrip("/") / "memory.events").chmod(0)
    assert known(tree.read()).events is None


# ---------------------------------------------------------------- layouts


def test_nested_limits_of_6_18_as_they_were_captured() -> None:
    cgroup = known(_core.read_cgroup(str(CAPTURED / "6.18-v1-nested-limits")))
    outer = "/jobs/job-1/outer"
    paths = [f"{outer}/inner", outer, "/jobs/job-1", "/jobs", "/"]
    assert [level.path for level in cgroup.levels] == paths
    inner, above = cgroup.levels[:2]
    assert (inner.limit_bytes, inner.memsw_limit_bytes) == (128 * MIB, 128 * MIB)
    assert (above.limit_bytes, above.memsw_limit_bytes) == (256 * MIB, None)
    assert inner.usage_bytes == inner.memsw_usage_bytes == 60751872
    assert above.usage_bytes == 61014016
    assert inner.working_set_bytes == 60751872  # the kill had first dropped the page cache
    assert inner.room_bytes == 128 * MIB - 60751872
    assert cgroup.limit_path == f"{outer}/inner"
    assert cgroup.hidden_limit_bytes is None
    assert cgroup.events is not None
    assert cgroup.events.oom_kill_count == 1
    limits = _core.find_limits(cgroup, None)
    assert limits.effective_limit_bytes == 128 * MIB
    assert limits.headroom_bytes == 128 * MIB - 60751872
    assert limits.headroom_source == "cgroup"


def test_v2_without_a_namespace_only_the_mount_root_shows(tmp_path: Path) -> None:
    path = "/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope"
    tree = Tree(tmp_path, version=2, path=path, mounts=[(path, TOP)])
    tree.group(TOP, limit=str(64 * MIB), usage=8 * MIB)
    cgroup = known(tree.read())
    assert [level.path for level in cgroup.levels] == [path]
    assert cgroup.limit_path == path


def test_a_mount_from_outside_of_the_namespace_shows_nothing(tmp_path: Path) -> None:
    """Its root lies above the namespace's: its names are not ours."""
    mounts = [("/../..", TOP), ("/", "/mnt/cgroup")]
    tree = Tree(tmp_path, version=2, path="/", mounts=mounts)
    tree.group(TOP, limit=str(MIB), usage=1)
    tree.group("/mnt/cgroup", limit=str(64 * MIB), usage=8 * MIB)
    cgroup = known(tree.read())
    assert [level.limit_bytes for level in cgroup.levels] == [64 * MIB]


def test_a_mount_over_another_covers_it(tmp_path: Path) -> None:
    """A bind of the own group over the hierarchy's mount: the files are of the former."""
    tree = Tree(tmp_path, version=2, path="/a", mounts=[("/", TOP), ("/a", TOP)])
    tree.group(TOP, limit=str(64 * MIB), usage=8 * MIB)
    assert [level.path for level in known(tree.read()).levels] == ["/a"]


def test_systemd_slices_nest_with_limits_at_several_levels(tmp_path: Path) -> None:
    path = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-9.scope"
    tree = v2(tmp_path, path)
    tree.write(f"{TOP}/memory.stat", "inactive_file 1\nactive_file 1\n")
    limits = {"/user.slice": 800, "/user.slice/user-1000.slice": 600, path: 700}
    folder = ""
    for name in path.strip("/").split("/"):
        folder += f"/{name}"
        limit = str(limits[folder] * MIB) if folder in limits else "max"
        tree.group(TOP + folder, limit=limit, usage=400 * MIB)
    cgroup = known(tree.read())
    assert len(cgroup.levels) == 6
    assert cgroup.limit_path == "/user.slice/user-1000.slice"
    found = [
        None if level.limit_bytes is None else level.limit_bytes // MIB for level in cgroup.levels
    ]
    assert found == [700, None, None, 600, 800, None]


def test_hybrid_takes_the_limits_of_v1_and_no_pressure_of_v2(tmp_path: Path) -> None:
    tree = Tree(tmp_path, version=1, path="/job", mounts=[("/", f"{TOP}/memory")])
    line = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    mountinfo = tmp_path / "proc/self/mountinfo"
    mountinfo.write_text(mountinfo.read_text() + line)
    tree.write(f"{TOP}/unified/memory.pressure", PRESSURE)
    tree.group(f"{TOP}/memory", limit="9223372036854771712", usage=9 * MIB)
    tree.group(f"{TOP}/memory/job", limit=str(4 * MIB), usage=2 * MIB)
    cgroup = known(tree.read())
    assert (cgroup.version, cgroup.limit_bytes, cgroup.pressure) == (1, 4 * MIB, None)


def test_v2_leaf_without_the_controller_takes_the_events_from_above(tmp_path: Path) -> None:
    tree = v2(tmp_path, "/a/leaf")
    tree.group(f"{TOP}/a", limit=str(64 * MIB), usage=20 * MIB)
    tree.write(f"{TOP}/a/memory.events", EVENTS)
    tree.write(f"{TOP}/a/leaf/cgroup.procs", "1\n")
    tree.write(f"{TOP}/a/leaf/memory.pressure", PRESSURE)  # pressure needs no controller
    cgroup = known(tree.read())
    assert [level.path for level in cgroup.levels] == ["/a"]
    assert cgroup.events is not None
    assert cgroup.events.oom_kill_count == 5
