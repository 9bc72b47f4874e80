"""What a snapshot costs, as ratios to a bare pread in C and to psutil, in one run.

    python bench/python/bench_snapshot.py [--json FILE] [--rounds N]

The subjects take turns in short batches, so that a slow moment of the machine falls on all
of them. Each ratio is the median over the rounds of the ratio within a round; times are
medians and 99th percentiles of the batches' means. Exit status 1: a ratio is over budget.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import psutil

import memacct

BATCH = 200
# (subject, reference, at most): the subject's time over the reference's.
BUDGETS = (
    ("snapshot counters", "bare pread of statm", 1.8),
    ("snapshot breakdown", "bare pread of status", 1.3),
    ("snapshot counters", "psutil memory_info", 1 / 8),
)

Batch = Callable[[], float]  # runs one batch and returns ns per call


def compile_helper(folder: str) -> ctypes.CDLL:
    source = Path(__file__).parents[1] / "cpp" / "bare_pread.c"
    library = Path(folder) / "bare_pread.so"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    assert compiler, "a C compiler is needed"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
    helper = ctypes.CDLL(str(library))
    helper.bare_pread_batch_ns.restype = ctypes.c_longlong
    return helper


def bare_pread(helper: ctypes.CDLL, path: str) -> Batch:
    fd = helper.bare_open(path.encode())
    assert fd >= 0, path

    def batch() -> float:
        elapsed_ns: int = helper.bare_pread_batch_ns(fd, BATCH)
        assert elapsed_ns > 0, path
        return elapsed_ns / BATCH

    return batch


def python_call(statement: Callable[[], object]) -> Batch:
    def batch() -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, BATCH):
            statement()
        return (time.perf_counter_ns() - start) / BATCH

    return batch


def snapshot_call(host: str) -> Batch:
    # Written as a user writes it; a lambda around it would be a Python call more.
    snapshot = memacct.snapshot

    def batch() -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, BATCH):
            snapshot(host=host)  # type: ignore[arg-type]
        return (time.perf_counter_ns() - start) / BATCH

    return batch


def subjects(helper: ctypes.CDLL) -> dict[str, Batch]:
    return {
        "bare pread of statm": bare_pread(helper, "/proc/self/statm"),
        "snapshot counters": snapshot_call("counters"),
        "psutil memory_info": python_call(psutil.Process().memory_info),
        "bare pread of status": bare_pread(helper, "/proc/self/status"),
        "snapshot breakdown": snapshot_call("breakdown"),
    }


def measure(batches: dict[str, Batch], rounds: int) -> dict[str, list[float]]:
    for batch in batches.values():
        batch()
    times: dict[str, list[float]] = {name: [] for name in batches}
    for _ in range(rounds):
        for name, batch in batches.items():
            times[name].append(batch())
    return times


def summarise(times: dict[str, list[float]], rounds: int) -> dict[str, object]:
    ratios = []
    for subject, reference, budget in BUDGETS:
        pairs = zip(times[subject], times[reference], strict=True)
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        ratios.append(
            {
                "subject": subject,
                "reference": reference,
                "ratio": round(ratio, 4),
                "budget_ratio": budget,
                "within_budget": ratio <= budget,
            }
        )
    return {
        "machine": {
            "cpu_count": os.cpu_count(),
            "kernel": platform.release().split("-")[0],
            "python": platform.python_version(),
            "memacct": memacct.__version__,
            "psutil": psutil.__version__,
        },
        "batch_count": BATCH,
        "rounds_count": rounds,
        "times": {
            name: {
                "p50_ns": round(statistics.median(values)),
                "p99_ns": round(statistics.quantiles(values, n=100)[98]),
            }
            for name, values in times.items()
        },
        "ratios": ratios,
    }


def report(summary: dict[str, object]) -> None:
    machine = summary["machine"]
    assert isinstance(machine, dict)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    times = summary["times"]
    assert isinstance(times, dict)
    print(f"\n{'':24}{'p50':>10}{'p99':>12}")
    for name, time_of in times.items():
        print(f"{name:24}{time_of['p50_ns']:>7} ns{time_of['p99_ns']:>9} ns")
    print()
    ratios = summary["ratios"]
    assert isinstance(ratios, list)
    for ratio in ratios:
        verdict = "ok" if ratio["within_budget"] else "OVER BUDGET"
        print(
            f"{ratio['subject']} / {ratio['reference']}: {ratio['ratio']:.3f}"
            f" (at most {ratio['budget_ratio']:.3f}) {verdict}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure(subjects(compile_helper(folder)), options.rounds)
    summary = summarise(times, options.rounds)
    report(summary)
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    ratios = summary["ratios"]
    assert isinstance(ratios, list)
    return 0 if all(ratio["within_budget"] for ratio in ratios) else 1


if __name__ == "__main__":
    sys.exit(main())
