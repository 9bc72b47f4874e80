"""snapshot_tree(): the roles of processes, its arguments, its table, JSON and deltas."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
from pathlib import Path
from typing import Literal

import pytest
from family import MIB, by_pid, family, known, process_state, wait_until

import memacct
from memacct import _convert, _core

SIZE = 64 * MIB
# What an idle Python touches or un-shares between two readings, in each process.
MARGIN = 3 * MIB
TIERS: tuple[Literal["counters", "breakdown", "rollup"], ...] = ("counters", "breakdown", "rollup")


# ---------------------------------------------------------------- roles


@pytest.mark.parametrize(
    ("title", "role", "rank"),
    [
        ("VLLM::EngineCore", "engine_core", None),
        ("VLLM::EngineCore_DP1", "engine_core", "DP1"),
        ("VLLM::Worker", "worker", None),
        ("VLLM::Worker_PP1_TP0", "worker", "PP1_TP0"),
        ("VLLM::APIServer_0", "api_server", "0"),
    ],
)
def test_a_running_process_is_recognised_by_its_title(
    title: str, role: str, rank: str | None
) -> None:
    script = f'tell(subprocess.Popen([{title!r}, "9"], executable="sleep").pid)'
    with family(script) as parent:
        pid = parent.told()
        # Popen returns a moment before the kernel shows the new program's arguments.
        wait_until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()))
        row = by_pid(memacct.snapshot_tree(parent.pid))[pid]
    assert (row.role, row.rank) == (role, rank)
    assert row.title.startswith(title)


def test_a_zombie_is_recognised_by_its_name() -> None:
    script = """
PR_SET_NAME = 15
def work():
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"VLLM::EngineCore_DP0", 0, 0, 0)
pid = child(work)
tell(pid)
tell([])
"""
    with family(script) as parent:
        pid = parent.told()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: process_state(pid) == "Z")
        row = by_pid(memacct.snapshot_tree(parent.pid))[pid]
    assert (row.name, row.state, row.role) == ("VLLM::EngineCor", "zombie", "engine_core")


def test_the_helpers_of_multiprocessing_are_recognised() -> None:
    script = """
import multiprocessing
context = multiprocessing.get_context("forkserver")
pool = context.Pool(1)
pool.apply(os.getpid)
tell([])
tell([])
"""
    with family(script) as parent:
        parent.told()
        tree = memacct.snapshot_tree(parent.pid)
    roles = [process.role for process in tree.processes]
    assert roles[0] == "python"
    assert {"resource_tracker", "fork_server"} <= set(roles)


def test_a_name_and_a_title_of_any_bytes() -> None:
    script = """
name = b"caf\\xc3\\xa9 (1) R\\xff"
def work():
    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
title = b"line\\nbreak \\xff\\xfe"
program = subprocess.Popen([title, "9"], executable="sleep")
tell([child(work), program.pid])
tell([])
"""
    with family(script) as parent:
        named, titled = parent.told()
        tree = memacct.snapshot_tree(parent.pid)
    assert by_pid(tree)[named].name == "café (1) R\ufffd"
    assert by_pid(tree)[titled].title == "line break \ufffd\ufffd 9"
    assert json.loads(json.dumps(tree.to_dict()))["processes_count"] == 3


# ---------------------------------------------------------------- arguments and data


def test_a_process_that_is_not_there_is_named() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(ValueError, match=f"there is no process {pid}"):
        memacct.snapshot_tree(pid)


def test_a_thread_is_told_from_a_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(
            ValueError, match=f"{thread.native_id} is a thread of process {os.getpid()}"
        ):
            memacct.snapshot_tree(thread.native_id)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**80])
def test_a_number_that_no_process_has(pid: int) -> None:
    with pytest.raises(ValueError, match=f"no process has the number {pid}"):
        memacct.snapshot_tree(pid)


@pytest.mark.parametrize("pid", ["1", 1.0, True, [None], [[1]]])
def test_what_is_no_number(pid: object) -> None:
    with pytest.raises(TypeError, match="pid must be an int, a sequence of ints or None"):
        memacct.snapshot_tree(pid)  # type: ignore[arg-type]


def test_no_roots_and_no_tier() -> None:
    with pytest.raises(ValueError, match="empty"):
        memacct.snapshot_tree([])
    with pytest.raises(ValueError, match="host must be one of 'counters', 'breakdown', 'rollup'"):
        memacct.snapshot_tree(host="mappings")  # type: ignore[arg-type]


def test_the_cheaper_tiers_know_less() -> None:
    counters = memacct.snapshot_tree(host="counters")
    assert known(counters.rss_bytes) > 0
    assert counters.swap_bytes is None
    breakdown = memacct.snapshot_tree(host="breakdown")
    assert breakdown.swap_bytes is not None
    for tree in (counters, breakdown):
        assert tree.complete
        assert (tree.pss_bytes, tree.uss_bytes, tree.freed_bounds_bytes) == (None, None, None)


def test_it_survives_pickle_and_json() -> None:
    tree = memacct.snapshot_tree()
    assert pickle.loads(pickle.dumps(tree)) == tree  # noqa: S301 (our own bytes)
    data = json.loads(json.dumps(tree.to_dict()))
    assert _convert.from_dict(memacct.TreeSnapshot, data) == tree


def test_the_table_adds_up() -> None:
    with family(f"block = touched({SIZE}); tell([child(), child()])") as parent:
        parent.told()
        tree = memacct.snapshot_tree(parent.pid)
    lines = str(tree).splitlines()
    assert lines[0].split()[:5] == ["pid", "process", "state", "rss", "pss"]
    rows = [[float(cell) for cell in line.split()[-7:]] for line in lines[1:5]]
    for column in zip(*rows, strict=True):
        assert column[-1] == pytest.approx(sum(column[:-1]), abs=0.21)
    # anon, file and shmem are the parts of pss
    for row in rows:
        assert row[1] == pytest.approx(sum(row[2:5]), abs=0.21)
    assert sys.executable[:20] in lines[1]


def test_the_table_shows_what_is_not_known() -> None:
    (member,) = _core._find_members([os.getpid()])[:1]
    other = _convert.from_dict(_core.TreeMember, {**member.to_dict(), "start_ticks": 1})
    text = str(_core._read_members([other], "rollup"))
    assert "gone" in text
    assert "1 not read in full: the sums are lower bounds." in text


def test_a_process_that_appeared() -> None:
    with family("tell([]); tell(child()); tell([])") as parent:
        parent.told()
        before = memacct.snapshot_tree(parent.pid)
        child = parent.go_on()
        after = memacct.snapshot_tree(parent.pid)
    delta = after - before
    assert [process.pid for process in delta.appeared] == [child]
    assert delta.disappeared == ()
    assert [change.pid for change in delta.changed] == [parent.pid]
    assert delta.rss_bytes == known(after.rss_bytes) - known(before.rss_bytes)
    assert delta.elapsed_ns > 0
    with pytest.raises(TypeError):
        _ = after - 1  # type: ignore[operator]


def test_two_trees_have_no_difference() -> None:
    with family("tell([])") as one, family("tell([])") as other:
        one.told()
        other.told()
        trees = memacct.snapshot_tree(one.pid), memacct.snapshot_tree(other.pid)
    named = [
        f"pid {tree.processes[0].pid} (started at tick {tree.processes[0].start_ticks})"
        for tree in trees
    ]
    with pytest.raises(ValueError, match="these are of two trees") as caught:
        _ = trees[0] - trees[1]
    assert str(caught.value) == f"these are of two trees, of {named[0]} and of {named[1]}"


def test_a_root_whose_number_was_given_to_another_process_is_another_root() -> None:
    tree = memacct.snapshot_tree()
    data = tree.to_dict()
    data["processes"][0]["start_ticks"] += 1
    later = _convert.from_dict(memacct.TreeSnapshot, json.loads(json.dumps(data)))
    with pytest.raises(ValueError, match="these are of two trees"):
        _ = later - tree
    assert (tree - tree).pss_bytes == 0
