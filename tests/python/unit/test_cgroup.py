"""Limits of control groups: v1, v2 and both, nested, with and without a cgroup namespace."""

from __future__ import annotations

from pathlib import Path

import pytest
from cgroup_tree import V1_STAT, V2_STAT, Tree, known

from memacct import SourceFormatError, _core

DATA = Path(__file__).parents[2] / "data" / "proc"
MIB = 1 << 20


def test_v2_container_sees_its_own_limit(tmp_path: Path) -> None:
    tree = Tree(tmp_path, version=2, path="/", mounts=[("/", "/sys/fs/cgroup")])
    tree.group("/sys/fs/cgroup", limit=str(512 * MIB), usage=100 * MIB, high=str(400 * MIB))
    found = known(tree.read()).to_dict()
    assert {name: value for name, value in found.items() if value is not None} == {
        "version": 2,
        "path": "/",
        "limit_path": "/",
        "limit_bytes": 512 * MIB,
        "high_bytes": 400 * MIB,
        "usage_bytes": 100 * MIB,
        "inactive_file_bytes": 50 * MIB,
        "active_file_bytes": 25 * MIB,
        "working_set_bytes": 50 * MIB,
        "uncached_usage_bytes": 25 * MIB,
        "levels": [
            {
                **dict.fromkeys(_core.CgroupLevel._fields),
                "path": "/",
                "limit_bytes": 512 * MIB,
                "high_bytes": 400 * MIB,
                "usage_bytes": 100 * MIB,
                "inactive_file_bytes": 50 * MIB,
                "active_file_bytes": 25 * MIB,
                "working_set_bytes": 50 * MIB,
                "uncached_usage_bytes": 25 * MIB,
                "room_bytes": 375 * MIB,  # memory.high binds before memory.max
            }
        ],
    }


def test_v2_limit_and_usage_are_of_the_ancestor_that_binds(tmp_path: Path) -> None:
    tree = Tree(tmp_path, version=2, path="/a/b/c", mounts=[("/", "/sys/fs/cgroup")])
    tree.write("/sys/fs/cgroup/memory.stat", V2_STAT.format(1, 1))  # the real root has no limit
    tree.group("/sys/fs/cgroup/a", limit=str(900 * MIB), usage=800 * MIB, high=str(700 * MIB))
    tree.group("/sys/fs/cgroup/a/b", limit=str(600 * MIB), usage=300 * MIB)
    tree.group("/sys/fs/cgroup/a/b/c", limit="max", usage=100 * MIB)
    cgroup = known(tree.read())
    assert cgroup.path == "/a/b/c"
    assert cgroup.limit_path == "/a/b"
    assert cgroup.limit_bytes == 600 * MIB
    assert cgroup.usage_bytes == 300 * MIB
    assert cgroup.high_bytes == 700 * MIB


def test_of_equal_limits_the_higher_level_binds(tmp_path: Path) -> None:
    tree = Tree(tmp_path, version=2, path="/a/b", mounts=[("/", "/sys/fs/cgroup")])
    tree.group("/sys/fs/cgroup/a", limit=str(MIB), usage=20)
    tree.group("/sys/fs/cgroup/a/b", limit=str(MIB), usage=10)
    cgroup = known(tree.read())
    assert cgroup.limit_path == "/a"
    assert cgroup.usage_bytes == 20


@pytest.mark.parametrize("version", [1, 2])
def test_the_level_with_the_least_room_binds(tmp_path: Path, version: int) -> None:
    """Its limit is the larger one, but neighbours have nearly filled it."""
    tree = Tree(tmp_path, version=version, path="/a/b", mounts=[("/", "/sys/fs/cgroup")])
    tree.group("/sys/fs/cgroup/a", limit=str(1200 * MIB), usage=1190 * MIB)
    tree.group("/sys/fs/cgroup/a/b", limit=str(1000 * MIB), usage=100 * MIB)
    stat = (V1_STAT if version == 1 else V2_STAT).format(0, MIB)
    tree.write("/sys/fs/cgroup/a/memory.stat", stat)
    cgroup = known(tree.read())
    assert cgroup.limit_path == "/a"
    assert (cgroup.limit_bytes, cgroup.usage_bytes) == (1200 * MIB, 1190 * MIB)
    assert (cgroup.inactive_file_bytes, cgroup.active_file_bytes) == (0, MIB)
    # The same, of which the kernel can take back all but 90 MiB.
    stat = (V1_STAT if version == 1 else V2_STAT).format(600 * MIB, 500 * MIB)
    tree.write("/sys/fs/cgroup/a/memory.stat", stat)
    assert known(tree.read()).limit_path == "/a/b"


def test_a_level_without_usage_counts_with_its_whole_limit(tmp_path: Path) -> None:
    tree = Tree(tmp_path, version=2, path="/a/b", mounts=[("/", "/sys/fs/cgroup")])
    tree.group("/sys/fs/cgroup/a", limit=str(300 * MIB), usage=0)
    tree.group("/sys/fs/cgroup/a/b", limit=str(500 * MIB), usage=100 * MIB)
    (tmp_path / "sys/fs/cgroup/a/memory.current").unlink()
    cgroup = known(tree.read())
    assert (cgroup.limit_path, cgroup.usage_bytes) == ("/a", None)
    tree.group("/sys/fs/cgroup/a/b", limit=str(301 * MIB), usage=200 * MIB)
    assert known(tree.read()).limit_path == "/a/b"


def test_v1_a_filled_level_binds_before_a_smaller_limit_out_of_sight(tmp_path: Path) -> None:
    mounts = [("/pod/box", "/sys/fs/cgroup/memory")]
    tree = Tree(tmp_path, version=1, path="/pod/box", mounts=mounts)
    tree.group("/sys/fs/cgroup/memory", limit=str(64 * MIB), usage=60 * MIB)
    stat = V1_STAT.format(0, 0) + f"hierarchical_memory_limit {48 * MIB}\n"
    tree.write("/sys/fs/cgroup/memory/memory.stat", stat)
    cgroup = known(tree.read())
    assert (cgroup.limit_path, cgroup.limit_bytes) == ("/pod/box", 64 * MIB)


@pytest.mark.parametrize("version", [1, 2])
def test_without_a_limit_usage_is_that_of_the_own_group(tmp_path: Path, version: int) -> None:
    tree = Tree(tmp_path, version=version, path="/a/b", mounts=[("/", "/sys/fs/cgroup")])
    limit = "max" if version == 2 else "9223372036854771712"
    tree.group("/sys/fs/cgroup/a", limit=limit, usage=20 * MIB)
    tree.group("/sys/fs/cgroup/a/b", limit=limit, usage=8 * MIB)
    cgroup = known(tree.read())
    assert cgroup.limit_bytes is None
    assert cgroup.limit_path is None
    assert cgroup.usage_bytes == 8 * MIB
    assert cgroup.inactive_file_bytes == 4 * MIB


def test_v2_root_of_a_machine_has_no_usage_of_its_own(tmp_path: Path) -> None:
    tree = Tree(tmp_path, version=2, path="/", mounts=[("/", "/sys/fs/cgroup")])
    tree.write("/sys/fs/cgroup/memory.stat", V2_STAT.format(3, 4))
    cgroup = known(tree.read())
    assert cgroup.usage_bytes is None
    assert cgroup.inactive_file_bytes == 3


def test_v2_group_without_the_controller_is_accounted_above(tmp_path: Path) -> None:
    tree = Tree(tmp_path, version=2, path="/a/leaf", mounts=[("/", "/sys/fs/cgroup")])
    tree.group("/sys/fs/cgroup/a", limit="max", usage=20 * MIB)
    (tmp_path / "sys/fs/cgroup/a/leaf").mkdir()
    cgroup = known(tree.read())
    assert cgroup.path == "/a/leaf"
    assert cgroup.usage_bytes == 20 * MIB


def test_v1_container_without_a_namespace_finds_itself_by_the_mount_root(tmp_path: Path) -> None:
    mounts = [("/docker/abc", "/sys/fs/cgroup/memory")]
    tree = Tree(tmp_path, version=1, path="/docker/abc", mounts=mounts)
    tree.group("/sys/fs/cgroup/memory", limit=str(64 * MIB), usage=8 * MIB)
    cgroup = known(tree.read())
    assert cgroup.version == 1
    assert cgroup.path == "/docker/abc"
    assert cgroup.limit_path == "/docker/abc"
    assert cgroup.limit_bytes == 64 * MIB
    assert cgroup.inactive_file_bytes == 4 * MIB  # with the children: total_inactive_file


def test_v1_limit_above_the_mount_is_known_but_not_whose_usage_counts(tmp_path: Path) -> None:
    mounts = [("/pod/box", "/sys/fs/cgroup/memory")]
    tree = Tree(tmp_path, version=1, path="/pod/box", mounts=mounts)
    tree.group("/sys/fs/cgroup/memory", limit=str(64 * MIB), usage=8 * MIB)
    stat = V1_STAT.format(1, 1) + f"hierarchical_memory_limit {48 * MIB}\n"
    tree.write("/sys/fs/cgroup/memory/memory.stat", stat)
    cgroup = known(tree.read())
    assert cgroup.limit_bytes == 48 * MIB
    assert cgroup.limit_path is None
    assert cgroup.usage_bytes is None
    assert cgroup.active_file_bytes is None


@pytest.mark.parametrize(
    "unlimited", ["9223372036854771712", "9223372036854710272", "9223372036854775807"]
)
def test_v1_unlimited_in_pages_of_any_size(unlimited: str) -> None:
    assert _core.parse_cgroup_number(f"{unlimited}\n".encode(), "file") is None


def test_the_mount_that_shows_the_group_is_taken(tmp_path: Path) -> None:
    mounts = [("/other", "/mnt/other"), ("/docker/ab", "/mnt/ab"), ("/docker", "/mnt/docker")]
    tree = Tree(tmp_path, version=2, path="/docker/abc", mounts=mounts)
    tree.group("/mnt/docker/abc", limit=str(MIB), usage=1)
    assert known(tree.read()).limit_path == "/docker/abc"


def test_paths_with_colons_spaces_and_backslashes(tmp_path: Path) -> None:
    path = "/a:b/c d\\x2d"
    mounts = [("/", "/sys/fs/my\\040cgroup\\134x")]
    tree = Tree(tmp_path, version=2, path=path, mounts=mounts)
    tree.group("/sys/fs/my cgroup\\x" + path, limit=str(MIB), usage=1)
    assert known(tree.read()).path == path


def test_a_group_outside_of_the_namespace_is_unknown(tmp_path: Path) -> None:
    tree = Tree(tmp_path, version=2, path="/../elsewhere", mounts=[("/", "/sys/fs/cgroup")])
    tree.group("/sys/fs/cgroup", limit=str(MIB), usage=1)
    assert tree.read() is None


def test_a_unified_hierarchy_without_the_memory_controller_is_unknown(tmp_path: Path) -> None:
    tree = Tree(tmp_path, version=2, path="/a", mounts=[("/", "/sys/fs/cgroup")])
    tree.write("/sys/fs/cgroup/a/cgroup.procs", "1\n")
    assert tree.read() is None


def test_a_kernel_without_control_groups_is_unknown(tmp_path: Path) -> None:
    assert _core.read_cgroup(str(tmp_path)) is None


@pytest.mark.parametrize("text", ["", "12", "12 \n", "-1\n", "max\n\n", "99999999999999999999\n"])
def test_a_limit_that_is_not_understood_names_its_file(tmp_path: Path, text: str) -> None:
    tree = Tree(tmp_path, version=2, path="/", mounts=[("/", "/sys/fs/cgroup")])
    tree.group("/sys/fs/cgroup", limit="max", usage=1)
    tree.write("/sys/fs/cgroup/memory.max", text)
    with pytest.raises(SourceFormatError) as caught:
        tree.read()
    assert caught.value.source == f"{tmp_path}/sys/fs/cgroup/memory.max"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cgroup", "nonsense\n"),
        ("cgroup", "0::relative\n"),
        ("cgroup", "x:memory:/\n"),
        ("mountinfo", "35 31 0:32 / /sys/fs/cgroup rw\n"),
        ("mountinfo", "35 31 - cgroup2 cgroup2 rw\n"),
    ],
)
def test_a_process_file_that_is_not_understood_is_reported(
    tmp_path: Path, file: str, text: str
) -> None:
    tree = Tree(tmp_path, version=2, path="/", mounts=[("/", "/sys/fs/cgroup")])
    tree.group("/sys/fs/cgroup", limit="max", usage=1)
    tree.write(f"/proc/self/{file}", text)
    with pytest.raises(SourceFormatError):
        tree.read()


def test_hybrid_of_6_18_takes_the_hierarchy_that_has_the_controller() -> None:
    root = DATA / "6.18-hybrid-v1"
    cgroup = known(_core.read_cgroup(str(root)))
    usage = (root / "sys/fs/cgroup/memory/jobs/job-1/memory.usage_in_bytes").read_text()
    assert cgroup.version == 1
    assert cgroup.path == "/jobs/job-1"
    assert cgroup.limit_bytes is None
    assert cgroup.usage_bytes == int(usage)
    assert [level.path for level in cgroup.levels] == ["/jobs/job-1", "/jobs", "/"]
