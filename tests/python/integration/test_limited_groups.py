"""Real control groups: a limited process sees its own limit, its room and its kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import hugepages
import pytest
from limited_group import limited_group, made, own_folder

import memacct
from memacct import _core

MIB = 1 << 20
# What a Python process and the kernel's batches of charges (64 pages a CPU) may add.
MARGIN = 24 * MIB

SNAPSHOT = """
import json, memacct
print(json.dumps(memacct.snapshot(devices=None, limits=True).to_dict()))
"""


def limits_of_this_process() -> _core.MemoryLimits:
    limits = memacct.snapshot(devices=None, limits=True).limits
    assert limits is not None
    return limits


def test_a_limited_child_sees_its_own_limit_and_we_ours() -> None:
    ours = limits_of_this_process()
    with limited_group(256 * MIB) as group:
        found = json.loads(group.run(SNAPSHOT))
        cgroup, limits = found["cgroup"], found["limits"]
        assert cgroup["path"].endswith(group.folder.name)
        assert cgroup["limit_bytes"] == limits["effective_limit_bytes"] == 256 * MIB
        assert limits["effective_limit_source"] == limits["headroom_source"] == "cgroup"
        assert limits["effective_limit_path"] == cgroup["limit_path"] == cgroup["path"]
        assert limits["headroom_known"] is True
        usage = cgroup["levels"][0]["usage_bytes"]
        assert 0 < usage < 256 * MIB
        assert 256 * MIB - usage <= limits["headroom_bytes"] < 256 * MIB
        # This process is not in it.
        assert limits_of_this_process().effective_limit_bytes == ours.effective_limit_bytes


def test_the_smaller_limit_above_is_the_childs() -> None:
    with limited_group(96 * MIB) as outer:
        if outer.version == 2:
            (outer.folder / "cgroup.subtree_control").write_text("+memory\n")
        with made(outer.folder, outer.version) as inner:
            inner.limit(512 * MIB)
            found = json.loads(inner.run(SNAPSHOT))
        assert found["limits"]["effective_limit_bytes"] == 96 * MIB
        assert found["limits"]["effective_limit_path"].endswith(outer.folder.name)
        levels = found["cgroup"]["levels"]
        assert [level["limit_bytes"] for level in levels[:2]] == [512 * MIB, 96 * MIB]


# Prints the headroom, and once more each time that a line comes in. Between the two it does
# what the line says.
READER = """
import json, mmap, os, subprocess, sys, memacct
kept = []
def say():
    found = memacct.snapshot(devices=None, limits=True)
    print(json.dumps(found.to_dict()), flush=True)
say()
for line in sys.stdin:
    name, size = line.split()
    if name == "touch":
        block = mmap.mmap(-1, int(size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for offset in range(0, len(block), mmap.PAGESIZE):
            block[offset] = 1
        kept.append(block)
    elif name == "write":
        with open(os.environ["FILE"], "wb") as file:
            file.write(b"x" * int(size))
            file.flush()
            os.fsync(file.fileno())
    elif name == "die":
        victim = (
            "import mmap;open('/proc/self/oom_score_adj','w').write('1000');"
            f"b=mmap.mmap(-1,{size},flags=mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS)\\n"
            "for o in range(0,len(b),4096): b[o]=1"
        )
        print(subprocess.run([sys.executable, "-c", victim]).returncode, flush=True)
    say()
"""


class Reader:
    """A process in a group, which acts when it is told to and says what it then sees."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def tell(self, name: str, size: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {size}\n")
        self._process.stdin.flush()


def test_headroom_falls_by_what_is_taken() -> None:
    with limited_group(256 * MIB) as group, group.start(READER) as process:
        reader = Reader(process)
        before = reader.line()["limits"]["headroom_bytes"]
        reader.tell("touch", 100 * MIB)
        after = reader.line()["limits"]["headroom_bytes"]
        process.communicate(timeout=60)
        assert before - after == pytest.approx(100 * MIB, abs=MARGIN)


def test_page_cache_is_usage_but_leaves_the_headroom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path.cwd() / f".memacct-test-{tmp_path.name}"  # tmp_path may be on a tmpfs
    monkeypatch.setenv("FILE", str(file))
    try:
        with limited_group(512 * MIB) as group, group.start(READER) as process:
            reader = Reader(process)
            before = reader.line()
            reader.tell("write", 100 * MIB)
            after = reader.line()
            process.communicate(timeout=60)
    finally:
        file.unlink(missing_ok=True)
    levels = [found["cgroup"]["levels"][0] for found in (before, after)]
    cached = [level["inactive_file_bytes"] + level["active_file_bytes"] for level in levels]
    if cached[1] - cached[0] < 50 * MIB:
        pytest.skip("the working directory's file system keeps no page cache in the group")
    assert levels[1]["usage_bytes"] - levels[0]["usage_bytes"] > 50 * MIB
    rooms = [found["limits"]["headroom_bytes"] for found in (before, after)]
    assert rooms[1] == pytest.approx(rooms[0], abs=MARGIN)


def test_a_neighbour_in_the_group_above_takes_the_headroom() -> None:
    with limited_group(256 * MIB) as outer:
        if outer.version == 2:
            (outer.folder / "cgroup.subtree_control").write_text("+memory\n")
        with (
            made(outer.folder, outer.version) as one,
            made(outer.folder, outer.version) as other,
            other.start(READER) as process,
        ):
            one.limit(200 * MIB)
            neighbour = Reader(process)
            neighbour.line()
            neighbour.tell("touch", 150 * MIB)
            neighbour.line()
            found = json.loads(one.run(SNAPSHOT))
            process.communicate(timeout=60)
    assert found["limits"]["effective_limit_bytes"] == 200 * MIB
    assert found["limits"]["effective_limit_path"].endswith(one.folder.name)
    assert found["limits"]["headroom_path"].endswith(outer.folder.name)
    assert found["limits"]["headroom_bytes"] <= 106 * MIB


def test_a_kill_under_the_limit_is_counted_once() -> None:
    with limited_group(160 * MIB) as group, group.start(READER) as process:
        reader = Reader(process)
        before = reader.line()["cgroup"]["events"]
        reader.tell("die", 1024 * MIB)
        returncode = reader.line()
        after = reader.line()["cgroup"]["events"]
        process.communicate(timeout=60)
    if before is None or before["oom_kill_count"] is None:
        pytest.skip("this kernel counts no kills (Linux < 4.13)")
    if returncode == 0:
        pytest.skip("the limit did not hold: swap took what was beyond it")
    assert returncode == -signal.SIGKILL
    assert before["oom_kill_count"] == 0
    assert after["oom_kill_count"] == 1
    assert after["max_count"] > before["max_count"]


# ---------------------------------------------------------------- namespaces


def unshared(setup: str, group: Path) -> dict[str, Any]:
    """What a process sees that joins the group, and then runs ``setup`` in its own mounts."""
    script = f'echo $$ > "$0/cgroup.procs" && exec unshare {setup}'
    process = subprocess.run(
        ["/bin/sh", "-c", script, str(group), sys.executable, SNAPSHOT],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if process.returncode:
        pytest.skip(f"namespaces or mounts are not permitted: {process.stderr.strip()}")
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def mount_of(group: Path) -> tuple[str, str]:
    """Returns how the group's hierarchy is mounted anew, and where it is mounted now."""
    _, version = own_folder()
    point = next(p for p in group.parents if os.path.ismount(p))
    return ("-t cgroup2 cgroup2" if version == 2 else "-t cgroup -o memory cgroup"), str(point)


def test_in_a_cgroup_namespace_the_own_group_is_the_root() -> None:
    with limited_group(256 * MIB) as group:
        kind, point = mount_of(group.folder)
        inner = f'umount -l {point} ; mount {kind} {point} && exec "$0" -c "$1"'
        found = unshared(f"--cgroup --mount /bin/sh -c '{inner}' \"$@\"", group.folder)
        assert found["cgroup"]["path"] == "/"
        assert [level["path"] for level in found["cgroup"]["levels"]] == ["/"]
        assert found["limits"]["effective_limit_bytes"] == 256 * MIB
        assert found["limits"]["effective_limit_path"] == "/"


def test_in_a_namespace_with_the_hosts_mounts_the_group_is_not_found() -> None:
    """/proc/self/cgroup says "/", which the mount's root, "/..", is not: no name is guessed."""
    with limited_group(256 * MIB) as group:
        found = unshared('--cgroup --mount /bin/sh -c \'exec "$0" -c "$1"\' "$@"', group.folder)
        assert found["cgroup"] is None
        assert found["limits"]["effective_limit_source"] == "machine"


def test_without_a_namespace_the_mount_root_is_the_own_group() -> None:
    """As runtimes mount it in a container that shares its host's namespace."""
    with limited_group(256 * MIB) as group:
        _, point = mount_of(group.folder)
        inner = f'mount --bind {group.folder} {point} && exec "$0" -c "$1"'
        found = unshared(f"--mount /bin/sh -c '{inner}' \"$@\"", group.folder)
        assert found["cgroup"]["path"].endswith(group.folder.name)
        assert [level["path"] for level in found["cgroup"]["levels"]] == [found["cgroup"]["path"]]
        assert found["limits"]["effective_limit_bytes"] == 256 * MIB


# ---------------------------------------------------------------- the machine


def test_the_machine_is_as_psutil_says() -> None:
    psutil = pytest.importorskip("psutil", reason="psutil is the independent source")
    system = _core.read_system()
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    assert system.total_bytes == memory.total
    assert (system.swap_total_bytes, system.swap_free_bytes) == (swap.total, swap.free)
    assert system.free_bytes == pytest.approx(memory.free, abs=256 * MIB)
    assert system.available_bytes == pytest.approx(memory.available, abs=256 * MIB)
    assert system.shmem_bytes == pytest.approx(memory.shared, abs=64 * MIB)


def test_the_nodes_are_those_of_sysfs() -> None:
    nodes = _core.read_system().nodes
    folders = sorted(Path("/sys/devices/system/node").glob("node[0-9]*"))
    if nodes is None:
        assert not folders
        pytest.skip("a kernel without NUMA")
    assert {f"node{node.node}" for node in nodes} == {folder.name for folder in folders}
    for node in nodes:
        text = Path(f"/sys/devices/system/node/node{node.node}/meminfo").read_text()
        rows = {line.split()[2]: int(line.split()[3]) * 1024 for line in text.splitlines()}
        assert node.total_bytes == rows["MemTotal:"]
        assert node.free_bytes == pytest.approx(rows["MemFree:"], abs=256 * MIB)
    system = _core.read_system()
    assert sum(node.total_bytes for node in nodes) <= system.total_bytes


def test_hugetlb_pages_move_from_free_memory_to_their_pool() -> None:
    with hugepages.pool() as pool:
        before = _core.read_system()
        pool.grow(2)
        after = _core.read_system()
        pool.restore()
        restored = _core.read_system()
    assert before.hugetlb_pools is not None
    assert after.hugetlb_pools is not None
    moved = [
        (now.page_bytes, now.total_count - then.total_count, now.free_count - then.free_count)
        for now, then in zip(after.hugetlb_pools, before.hugetlb_pools, strict=True)
        if now != then
    ]
    (page_bytes, total_count, free_count) = moved[0]
    assert (len(moved), total_count, free_count) == (1, 2, 2)
    assert after.hugetlb_bytes is not None
    assert before.hugetlb_bytes is not None
    assert after.hugetlb_bytes - before.hugetlb_bytes == 2 * page_bytes
    assert restored.hugetlb_pools == before.hugetlb_pools


HOLDER = """
import sys
held = bytearray(32 << 20)
print("holding", flush=True)
sys.stdin.readline()
"""


def test_another_processes_group_is_read_from_here() -> None:
    with limited_group(256 * MIB) as group, group.start(HOLDER) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        found = _core.read_cgroup(pid=process.pid)
        assert found is not None
        assert found.limit_bytes == 256 * MIB
        assert found.path.endswith(group.folder.name)
        assert (found.usage_bytes or 0) >= 32 * MIB
        mine = _core.read_cgroup()
        assert mine is None or mine.path != found.path
        told = json.loads(memacct_says("snap", "--pid", str(process.pid), "--json"))
        assert told["cgroup"]["limit_bytes"] == 256 * MIB
        assert told["limits"]["headroom_bytes"] <= 224 * MIB
        shown = memacct_says("snap", "--pid", str(process.pid))
        assert "GiB of room for that process; what binds is the cgroup" in " ".join(shown.split())
        process.communicate("\n")
    assert _core.read_cgroup(pid=process.pid) is None


def memacct_says(*words: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "memacct", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
