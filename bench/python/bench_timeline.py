"""What a checkpoint costs, as ratios to the bare snapshot that it takes, in one run.

    python bench/python/bench_timeline.py [--json FILE] [--rounds N]

The subjects take turns in short batches, so that a slow moment of the machine falls on all
of them. Each ratio is the median over the rounds of the ratio within a round; times are
medians and 99th percentiles of the batches' means. Exit status 1: a ratio is over budget.
The file is on the disk of TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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

BATCH = 50
# (subject, reference, at most): the subject's time over the reference's.
BUDGETS = (
    ("checkpoint in memory", "snapshot breakdown", 1.8),
    ("checkpoint to a file", "snapshot breakdown", 2.4),
    ("span to a file", "checkpoint to a file", 2.4),
    ("checkpoint to a file", "psutil memory_full_info", 1 / 10),
)
# Of a start with a baseline: fresh processes, each of which measures its own.
START_SCRIPT = """
import sys, time
import memacct
timeline = memacct.Timeline(breakdown=sys.argv[1] == "parts")
begin = time.perf_counter_ns()
timeline.start()
print(time.perf_counter_ns() - begin)
"""

Batch = Callable[[], float]  # runs one batch and returns ns per call


def python_call(statement: Callable[[], object]) -> Batch:
    def batch() -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, BATCH):
            statement()
        return (time.perf_counter_ns() - start) / BATCH

    return batch


def snapshot_call() -> Batch:
    # Written as a user writes it; a lambda around it would be a Python call more.
    snapshot = memacct.snapshot

    def batch() -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, BATCH):
            snapshot(devices=None)
        return (time.perf_counter_ns() - start) / BATCH

    return batch


def checkpoint_call(timeline: memacct.Timeline) -> Batch:
    checkpoint = timeline.checkpoint

    def batch() -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, BATCH):
            checkpoint("after load_model")
        return (time.perf_counter_ns() - start) / BATCH

    return batch


def span_call(timeline: memacct.Timeline) -> Batch:
    span = timeline.span
    # Two entries each: the batch lasts as long as one of checkpoints, and on a busy machine is
    # as likely to be interrupted.
    count = BATCH // 2

    def batch() -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, count):
            with span("load_model"):
                pass
        return (time.perf_counter_ns() - start) / count

    return batch


def measure(batches: dict[str, Batch], rounds: int) -> dict[str, list[float]]:
    for batch in batches.values():
        batch()
    times: dict[str, list[float]] = {name: [] for name in batches}
    for _ in range(rounds):
        for name, batch in batches.items():
            times[name].append(batch())
    return times


def measure_starts(count: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"start": [], "start without parts": []}
    for _ in range(count):
        for name, argument in (("start", "parts"), ("start without parts", "none")):
            command = [sys.executable, "-c", START_SCRIPT, argument]
            child = subprocess.run(command, capture_output=True, text=True, check=True)
            times[name].append(float(child.stdout))
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
                "budget_ratio": round(budget, 4),
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
        "load_average_1min": round(os.getloadavg()[0], 1),
        "times": {
            name: {
                "p50_ns": round(statistics.median(values)),
                "p99_ns": round(statistics.quantiles(values, n=100, method="inclusive")[98]),
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
    print(f"\n{'':26}{'p50':>12}{'p99':>14}")
    for name, time_of in times.items():
        print(f"{name:26}{time_of['p50_ns']:>9} ns{time_of['p99_ns']:>11} ns")
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
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        in_memory = memacct.Timeline(breakdown=False).start()
        in_file = memacct.Timeline(Path(folder) / "bench.jsonl", breakdown=False).start()
        batches = {
            "snapshot breakdown": snapshot_call(),
            "checkpoint in memory": checkpoint_call(in_memory),
            "checkpoint to a file": checkpoint_call(in_file),
            "span to a file": span_call(in_file),
            "psutil memory_full_info": python_call(psutil.Process().memory_full_info),
        }
        times = measure(batches, options.rounds)
        in_file.stop()
        in_memory.stop()
    times |= measure_starts(20)
    summary = summarise(times, options.rounds)
    report(summary)
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    ratios = summary["ratios"]
    assert isinstance(ratios, list)
    return 0 if all(ratio["within_budget"] for ratio in ratios) else 1


if __name__ == "__main__":
    sys.exit(main())
