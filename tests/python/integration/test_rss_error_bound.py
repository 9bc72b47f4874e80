"""What the kernel's counters say is within the stated bound of what the pages say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import memacct

# Each thread dirties memory on a CPU of its own choice, one page and one sort after the other, so
# that every CPU (or thread) holds back a part of each counter; then all stand still.
PROGRAM = """
import json, mmap, os, threading
import memacct

PAGE, CPUS, THREADS = mmap.PAGESIZE, sorted(os.sched_getaffinity(0)), 16
ready, done = threading.Barrier(THREADS + 1), threading.Event()
blocks = []

def dirty(index):
    os.sched_setaffinity(0, {CPUS[index % len(CPUS)]})
    for size in (7, 29, 3, 17):
        for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
            block = mmap.mmap(-1, size * PAGE, flags=flags | mmap.MAP_ANONYMOUS)
            for at in range(0, len(block), PAGE):
                block[at] = 1
            blocks.append(block)
    ready.wait()
    done.wait()

threads = [threading.Thread(target=dirty, args=(i,)) for i in range(THREADS)]
for thread in threads:
    thread.start()
ready.wait()
memacct.snapshot("rollup")  # its own code is there from now on
hosts = [memacct.snapshot("rollup").host for _ in range(5)]
hosts += [memacct.snapshot("counters").host, memacct.snapshot("breakdown").host]
print(json.dumps([host.to_dict() for host in hosts]))
done.set()
"""


def test_counters_are_within_their_bound_of_the_pages() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, timeout=60
    )
    hosts = json.loads(run.stdout)
    for host in hosts[:5]:
        bound = host["rss_error_bound_bytes"]
        if bound is None:
            pytest.skip("the kernel's release is not understood")
        assert abs(host["rss_bytes"] - host["rss_exact_bytes"]) <= bound
    counters, breakdown = hosts[5:]
    assert breakdown["rss_error_bound_bytes"] == hosts[0]["rss_error_bound_bytes"]
    # statm does not tell the threads that an old kernel's bound depends on.
    assert counters["rss_error_bound_bytes"] in {None, breakdown["rss_error_bound_bytes"]}
    # Dirtied: 56 pages twice by each of 16 threads.
    assert breakdown["rss_shmem_bytes"] >= 16 * 56 * 4096 - (
        breakdown["rss_error_bound_bytes"] or 0
    )


def test_every_tier_states_it() -> None:
    for tier in ("breakdown", "rollup", "residency", "mappings"):
        host = memacct.snapshot(tier).host
        assert host.rss_error_bound_bytes is not None
        assert "rss_error_bound_bytes=" in repr(host)
