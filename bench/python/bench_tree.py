"""What reading a process tree costs, beside psutil reading the same files of the same processes.

    python bench/python/bench_tree.py [--children N] [--mib N] [--rounds N]

The tree: a process and forked children that share what it touched. Both subjects take turns.
"""

from __future__ import annotations

import argparse
import mmap
import os
import signal
import statistics
import time
from collections.abc import Callable

import psutil

import memacct


def fork_child() -> int:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


def read_psutil() -> int:
    root = psutil.Process()
    family = [root, *root.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family)


def read_memacct() -> int:
    return memacct.snapshot_tree().pss_bytes or 0


def read_psutil_rss() -> int:
    root = psutil.Process()
    family = [root, *root.children(recursive=True)]
    return sum(process.memory_info().rss for process in family)


def read_memacct_rss() -> int:
    return memacct.snapshot_tree(host="counters").rss_bytes or 0


def measure(subjects: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, read in subjects.items():
            start = time.perf_counter_ns()
            assert read() > 0
            times[name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--children", type=int, default=20)
    parser.add_argument("--mib", type=int, default=64, help="memory that all share")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    block = mmap.mmap(-1, options.mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.write(b"1" * len(block))
    children = [fork_child() for _ in range(options.children)]
    try:
        subjects = {
            "snapshot_tree rollup": read_memacct,
            "psutil memory_full_info": read_psutil,
            "snapshot_tree counters": read_memacct_rss,
            "psutil memory_info": read_psutil_rss,
        }
        found = measure(subjects, options.rounds)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    processes = len(psutil.pids())
    print(f"{options.children} children, {options.mib} MiB shared, {processes} processes in /proc")
    for name, value in found.items():
        print(f"{name:24}{value:>10.2f} ms")


if __name__ == "__main__":
    main()
