"""Mappings of other processes, of ones that change while they are read, and in cheaper tiers."""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
import threading

import pytest
from own_mappings import MIB, PAGE, address, find, touch

import memacct
from memacct import SourceUnavailableError, _core

# ---------------------------------------------------------------- other processes, and races


def test_another_process_is_read_by_its_pid() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        mappings = _core.read_mappings(child.pid)
        assert mappings.pid == child.pid
        assert "heap" in mappings.by_kind()
        assert child.stdin is not None
        child.stdin.write(b"\n")
    with pytest.raises(SourceUnavailableError):
        _core.read_mappings(child.pid)


MANY_MAPPINGS = """
import mmap, sys
blocks = [mmap.mmap(-1, mmap.PAGESIZE) for _ in range(20_000)]
print(flush=True)
input()
"""


def test_a_process_that_ends_while_it_is_read_gives_no_part_of_a_table() -> None:
    command = [sys.executable, "-c", MANY_MAPPINGS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        whole = len(_core.read_mappings(child.pid))
        assert whole > 20_000
        lengths: list[int] = []
        refused = threading.Event()

        def read_on() -> None:
            try:
                while True:
                    lengths.append(len(_core.read_mappings(child.pid)))
            except SourceUnavailableError:
                refused.set()

        reader = threading.Thread(target=read_on)
        reader.start()
        while not lengths:  # it reads over and over by now
            assert reader.is_alive()
        child.kill()
        assert refused.wait(60)
        reader.join()
    assert set(lengths) == {whole}


def test_what_has_no_memory_of_its_own_says_so() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # a zombie now
    try:
        with pytest.raises(SourceUnavailableError, match="no memory of its own"):
            _core.read_mappings(child)
    finally:
        os.waitpid(child, 0)


def test_mappings_that_come_and_go_meanwhile_are_never_read_twice() -> None:
    still = [touch(mmap.mmap(-1, 16 * PAGE)) for _ in range(200)]
    places = sorted(address(block) for block in still)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            blocks = [mmap.mmap(-1, PAGE * (1 + n % 7)) for n in range(50)]
            for block in blocks[::2]:
                block.close()
            for block in blocks[1::2]:
                block.close()

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            mappings = _core.read_mappings()
            rows = mappings.rows
            assert (rows["start"][1:] >= rows["end"][:-1]).all()
            # What stands still is there, once, whole.
            for place in places:
                mapping = find(mappings, place)
                assert mapping.end >= place + 16 * PAGE
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# ---------------------------------------------------------------- the cheaper source


def test_the_residency_tier_says_what_it_read_and_what_it_does_not_know() -> None:
    snapshot = memacct.snapshot(host="residency", devices=None)
    mappings, host = snapshot.mappings, snapshot.host
    assert mappings is not None
    if _core.read_residency() is None:
        assert (host.tier, mappings.source) == ("mappings", "smaps")
        return
    assert (host.tier, mappings.source) == ("residency", "pagemap")
    assert host.rss_exact_bytes == mappings.rows["rss_bytes"].sum()
    assert host.pss_bytes is None
    assert host.rss_anon_bytes is not None  # of status
    names = mappings.rows.dtype.names
    assert names is not None
    assert "rss_bytes" in names
    assert "pss_bytes" not in names
    assert mappings.by_kind()["heap"].held_bytes is None
    with touch(mmap.mmap(-1, 4 * MIB)) as block:
        delta = memacct.snapshot(host="residency", devices=None) - snapshot
        assert delta.mappings is not None
        kinds = {change.name: change for change in delta.mappings.kinds}
        assert kinds["shmem"].rss_bytes == len(block)
        assert kinds["shmem"].held_bytes is None
        # Against the other source: what was not mapped before held nothing.
        mixed = memacct.snapshot(host="mappings", devices=None) - snapshot
        assert mixed.mappings is not None
        kinds = {change.name: change for change in mixed.mappings.kinds}
        assert kinds["shmem"].rss_bytes == kinds["shmem"].held_bytes == len(block)
        assert all(c.held_bytes is None for name, c in kinds.items() if name != "shmem")
        assert "held_bytes" in mixed.mappings.unknown_terms
        # Nor is its sum with a delta that knows more.
        known = memacct.snapshot(host="mappings", devices=None)
        also = memacct.snapshot(host="mappings", devices=None) - known
        assert also.mappings is not None
        assert all(c.held_bytes is None for c in (delta.mappings + also.mappings).kinds)
    assert "pagemap" in str(mappings)
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot  # noqa: S301 (our own)
