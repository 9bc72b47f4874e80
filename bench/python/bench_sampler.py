"""What sampling costs, beside the least that it can cost on this machine, in one run.

    python bench/python/bench_sampler.py [--json FILE] [--rounds N] [--seconds S]

The floor is a C thread that sleeps to absolute deadlines and reads statm, and nothing else; a
second one does not even read. They and the sampler take turns, in another order each round.
CPU time is that of the thread alone. Ratios are medians over the rounds of the ratio within a
round. Lateness (jitter) is from the deadline to the first instruction after it.
Exit status 1: the sampler is over its budget: 2 % of a core at 10 kHz, or, on a machine where
the floor itself takes more than 1.6 %, 1.25 times the floor.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import memacct

HZ = 10_000
PERIOD_NS = 10**9 // HZ
BUDGET_CORE_RATIO = 0.02
FLOOR_SHARE = 0.8  # of that budget; a dearer floor leaves no room for the rest
BUDGET_FLOOR_RATIO = 1.25


class BareRun(ctypes.Structure):
    _fields_ = (
        ("path", ctypes.c_char_p),
        ("period_ns", ctypes.c_longlong),
        ("count", ctypes.c_longlong),
        ("late_ns", ctypes.POINTER(ctypes.c_longlong)),
        ("cpu_ns", ctypes.c_longlong),
        ("failed", ctypes.c_int),
    )


@dataclass
class Run:
    cpu_ns_per_sample: float
    late_ns: list[int]
    missed_count: int
    samples_count: int


def compile_helper(folder: str) -> ctypes.CDLL:
    source = Path(__file__).parents[1] / "cpp" / "bare_sampler.c"
    library = Path(folder) / "bare_sampler.so"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    assert compiler, "a C compiler is needed"
    command = [compiler, "-O2", "-shared", "-fPIC", "-pthread", source, "-o", library]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def floor(helper: ctypes.CDLL, path: str, seconds: float) -> Callable[[], Run]:
    count = int(seconds * HZ)
    late = (ctypes.c_longlong * count)()

    def run() -> Run:
        given = BareRun(path.encode(), PERIOD_NS, count, late, 0, 0)
        assert helper.bare_sampler(ctypes.byref(given)) == 0
        late_ns = list(late)
        missed = sum(value // PERIOD_NS for value in late_ns)
        return Run(given.cpu_ns / count, late_ns, missed, count)

    return run


def sampled(host: str, seconds: float, devices_hz: float | None = None) -> Callable[[], Run]:
    def run() -> Run:
        sampler = memacct.Sampler(HZ, device_hz=devices_hz, host=host)  # type: ignore[arg-type]
        with sampler:
            time.sleep(seconds)
        trace = sampler.trace()
        counts = trace.host_counts
        assert counts is not None
        # A sample is due at the first deadline after the one before it; those lie a multiple of
        # the period after the first sample, which was taken at once.
        since = (trace.host["taken_ns"] - trace.host["taken_ns"][0]).astype("int64")
        late = since[1:] - (since[:-1] // PERIOD_NS + 1) * PERIOD_NS
        count = counts.taken_count
        return Run(counts.cpu_ns / count, late.tolist(), counts.missed_count, count)

    return run


def measure(subjects: dict[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            runs[name].append(subjects[name]())
    return runs


def ratio(runs: dict[str, list[Run]], subject: str, reference: str) -> float:
    pairs = zip(runs[subject], runs[reference], strict=True)
    return statistics.median(a.cpu_ns_per_sample / b.cpu_ns_per_sample for a, b in pairs)


def row(runs: list[Run]) -> dict[str, float]:
    late = np.concatenate([run.late_ns for run in runs])
    cpu = statistics.median(run.cpu_ns_per_sample for run in runs)
    return {
        "cpu_ns_per_sample": round(cpu),
        "core_ratio": round(cpu / PERIOD_NS, 4),
        "late_p50_ns": int(np.percentile(late, 50)),
        "late_p99_ns": int(np.percentile(late, 99)),
        "late_max_ns": int(late.max()),
        "samples_count": sum(run.samples_count for run in runs),
        "missed_count": sum(run.missed_count for run in runs),
    }


def summarise(runs: dict[str, list[Run]]) -> dict[str, object]:
    rows = {name: row(of) for name, of in runs.items()}
    bare = rows["floor: sleep and pread"]["core_ratio"]
    ours = rows["sampler counters"]["core_ratio"]
    to_floor = ratio(runs, "sampler counters", "floor: sleep and pread")
    by_floor = bare > FLOOR_SHARE * BUDGET_CORE_RATIO
    return {
        "machine": {
            "cpu_count": os.cpu_count(),
            "kernel": platform.release().split("-")[0],
            "python": platform.python_version(),
            "memacct": memacct.__version__,
            "load_1min": round(os.getloadavg()[0], 2),
        },
        "hz": HZ,
        "rounds_count": len(runs["sampler counters"]),
        "subjects": rows,
        "counters_to_floor_ratio": round(to_floor, 4),
        "judged_by": "floor" if by_floor else "core",
        "within_budget": to_floor <= BUDGET_FLOOR_RATIO if by_floor else ours <= BUDGET_CORE_RATIO,
    }


def report(summary: dict[str, object]) -> None:
    machine, rows = summary["machine"], summary["subjects"]
    assert isinstance(machine, dict)
    assert isinstance(rows, dict)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    heads = ("CPU/sample", "of a core", "late p50", "p99", "max", "missed")
    print(f"\n{'at 10 kHz':26}" + "".join(f"{head:>12}" for head in heads))
    for name, of in rows.items():
        late = (f"{of[key] / 1000:.1f} us" for key in ("late_p50_ns", "late_p99_ns", "late_max_ns"))
        missed = f"{of['missed_count'] / (of['missed_count'] + of['samples_count']):.1%}"
        cells = (f"{of['cpu_ns_per_sample']} ns", f"{of['core_ratio']:.2%}", *late, missed)
        print(f"{name:26}" + "".join(f"{cell:>12}" for cell in cells))
    print(
        f"\nsampler counters / floor: {summary['counters_to_floor_ratio']:.3f}; judged by "
        f"{summary['judged_by']}: {'ok' if summary['within_budget'] else 'OVER BUDGET'}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        helper = compile_helper(folder)
        subjects = {
            "floor: sleep alone": floor(helper, "", options.seconds),
            "floor: sleep and pread": floor(helper, "/proc/self/statm", options.seconds),
            "sampler counters": sampled("counters", options.seconds),
            "sampler breakdown": sampled("breakdown", options.seconds),
        }
        runs = measure(subjects, options.rounds)
    summary = summarise(runs)
    report(summary)
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    return 0 if summary["within_budget"] else 1


if __name__ == "__main__":
    sys.exit(main())
