"""Kept fds of /proc/self after fork(), after being closed, and after their number was reused.

Each case runs in a child process of its own, which prints what it found as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PRELUDE = """
import json, mmap, os, sys
import memacct
MIB = 1 << 20
def grow(size):
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, size, mmap.PAGESIZE):
        block[offset] = 1
    return block
def kept():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if target.startswith("/proc/") and target.rsplit("/", 1)[1] in NAMES:
            found[int(fd)] = target
    return found
NAMES = ("statm", "status", "smaps_rollup")
def in_fork(work):
    # Returns what `work` returns in a forked child.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return answer
def own_growth(tier):
    # What a process sees of itself: its pid, and 64 MiB that it touches.
    before = memacct.snapshot(tier)
    block = grow(64 * MIB)
    after = memacct.snapshot(tier)
    rss = (after - before).host.rss_bytes
    return {"pid": after.pid == after.host.pid == os.getpid(), "rss_mib": round(rss / MIB)}
"""


def run(script: str) -> Any:
    child = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.parametrize("tier", ["counters", "breakdown", "rollup"])
def test_a_forked_child_and_its_child_report_themselves(tier: str) -> None:
    found = run(f"""
first = memacct.snapshot({tier!r})
block = grow(256 * MIB)
child = in_fork(lambda: own_growth({tier!r}))
grandchild = in_fork(lambda: in_fork(lambda: own_growth({tier!r})))
last = memacct.snapshot({tier!r})
print(json.dumps([child, grandchild, round((last - first).host.rss_bytes / MIB),
                  last.pid == os.getpid()]))
""")
    child, grandchild, parent_mib, parent_pid = found
    assert child["pid"]
    assert child["rss_mib"] == pytest.approx(64, abs=2)
    assert grandchild["pid"]
    assert grandchild["rss_mib"] == pytest.approx(64, abs=2)
    assert parent_mib == pytest.approx(256, abs=3)
    assert parent_pid


def test_a_child_reads_what_python_opens_anew() -> None:
    found = run("""
memacct.snapshot("counters")
block = grow(64 * MIB)
def work():
    del globals()["block"]
    with open("/proc/self/statm") as file:
        fresh = int(file.read().split()[1]) * mmap.PAGESIZE
    return [fresh / MIB, memacct.snapshot("counters").host.rss_bytes / MIB]
print(json.dumps(in_fork(work)))
""")
    assert found[0] == pytest.approx(found[1], abs=2)


def test_a_child_leaves_no_inherited_fd_open() -> None:
    found = run("""
for tier in ("counters", "breakdown", "rollup"):
    memacct.snapshot(tier)
def work():
    for tier in ("counters", "breakdown", "rollup"):
        memacct.snapshot(tier)
    return [sorted(kept().values()), os.getpid()]
print(json.dumps([*in_fork(work), len(kept())]))
""")
    targets, pid, parent_count = found
    assert targets == [f"/proc/{pid}/{name}" for name in ("smaps_rollup", "statm", "status")]
    assert parent_count == 3


def test_kept_fds_are_not_inherited_by_exec() -> None:
    found = run("""
import subprocess
memacct.snapshot("counters")
code = "import os; fds = os.listdir('/proc/self/fd'); "
code += "print([os.readlink(p) for p in map('/proc/self/fd/{}'.format, fds) if os.path.exists(p)])"
out = subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, text=True)
print(json.dumps([kept() != {}, "statm" in out.stdout]))
""")
    assert found == [True, False]


@pytest.mark.parametrize("tier", ["counters", "breakdown", "rollup"])
def test_fds_closed_behind_our_back_are_opened_again(tier: str) -> None:
    found = run(f"""
memacct.snapshot({tier!r})
os.closerange(3, 64)
print(json.dumps(own_growth({tier!r})))
""")
    assert found["pid"]
    assert found["rss_mib"] == pytest.approx(64, abs=2)


# What may be given the number of an fd that was closed; `path` is a file of the test's own.
STRANGERS = {
    "pipe": "os.pipe()[0]",
    "folder": 'os.open("/", os.O_RDONLY)',
    "null device": 'os.open("/dev/null", os.O_RDONLY)',
    "text file": "os.open(path, os.O_RDONLY)",
    "write-only file": "os.open(path, os.O_WRONLY)",
    "another proc file": 'os.open("/proc/self/stat", os.O_RDONLY)',
}
REUSE = """
import tempfile
file = tempfile.NamedTemporaryFile()
file.write(b"1 2 3 four\\n" * 100)
file.flush()
path = file.name
tier = {tier!r}
memacct.snapshot(tier)
numbers = list(kept())
stranger = {stranger}
for number in numbers:
    os.dup2(stranger, number)
def unharmed():
    return all(os.path.sameopenfile(number, stranger) for number in numbers)
"""


@pytest.mark.parametrize("tier", ["counters", "breakdown", "rollup"])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_an_fd_number_that_was_reused_is_left_to_its_new_owner(tier: str, stranger: str) -> None:
    found = run(
        REUSE.format(tier=tier, stranger=STRANGERS[stranger])
        + "print(json.dumps([own_growth(tier), unharmed(), bool(numbers)]))"
    )
    growth, unharmed, had_kept = found
    assert growth["pid"]
    assert growth["rss_mib"] == pytest.approx(64, abs=2)
    assert unharmed
    assert had_kept


def test_a_reused_fd_number_is_left_open_in_a_forked_child_too() -> None:
    found = run(
        REUSE.format(tier="breakdown", stranger=STRANGERS["text file"])
        + "print(json.dumps(in_fork(lambda: [own_growth(tier), unharmed()])))"
    )
    assert found[0]["pid"]
    assert found[1]


def test_threads_of_a_forked_child_open_each_file_once() -> None:
    found = run("""
import threading
for tier in ("counters", "breakdown"):
    memacct.snapshot(tier)
def work():
    barrier = threading.Barrier(8)
    pids = []
    def read():
        barrier.wait()
        for tier in ("counters", "breakdown") * 50:
            pids.append(memacct.snapshot(tier).host.pid)
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return [set(pids) == {os.getpid()}, len(pids), len(kept())]
print(json.dumps(in_fork(work)))
""")
    assert found == [True, 800, 2]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers_report_themselves_and_send_snapshots(method: str) -> None:
    found = run(f"""
import multiprocessing
mine = memacct.snapshot()
with multiprocessing.get_context({method!r}).Pool(1) as pool:
    theirs = pool.apply(memacct.snapshot, ("rollup",))
    worker = pool.apply(os.getpid)
try:
    theirs - mine
except ValueError as error:
    message = str(error)
print(json.dumps([theirs.pid == worker != os.getpid(), theirs.host.tier, message,
                  [theirs.pid, mine.pid]]))
""")
    own_pid, tier, message, pids = found
    assert own_pid
    assert tier == "rollup"
    assert message == f"these are of two processes, pid {pids[0]} and pid {pids[1]}"
