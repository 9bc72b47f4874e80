"""What reading every mapping costs, beside a bare read of smaps in C and psutil, in one run.

    python bench/python/bench_mappings.py [--full] [--json FILE] [--plot FILE] [--seconds S]

The subjects take turns, each reading the same mappings of this process, so that a slow moment
of the machine falls on all of them. Times are the thread's CPU time (nothing here waits, or
works in another thread); a ratio is the median over the rounds of the ratio within a round.
Much memory in few mappings is the kernel's walk through its pages and little else, whoever
reads: there only the first budget is judged.

``--full`` lets the process grow to 60,000 mappings and to 8 GiB resident (in 4 KiB pages, and
only while the machine has half as much again to spare). Exit status 1: over budget.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

import memacct

GIB = 1 << 30
BARE, OURS, PSUTIL = "bare read of smaps", "snapshot mappings", "psutil memory_maps"
RESIDENCY, ROLLUP = "snapshot residency", "bare read of smaps_rollup"
# (subject, reference, at most, where): the subject's time over the reference's.
BUDGETS = (
    (OURS, BARE, 1.1, {"by_mappings", "by_resident"}),
    (OURS, PSUTIL, 1 / 2, {"by_mappings"}),
)
TEXT_BYTES = 64 << 20  # of 60,000 mappings: 43 MB
RARELY = 4  # the slow subjects are in every fourth round

DEFAULT_MAPPINGS, FULL_MAPPINGS = (1_000, 10_000), (300, 1_000, 3_000, 10_000, 30_000, 60_000)
DEFAULT_GIB, FULL_GIB = (0.1, 0.5), (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

Call = Callable[[], float]  # runs once and returns ns


def compile_helper(folder: str) -> ctypes.CDLL:
    source = Path(__file__).parents[1] / "cpp" / "bare_smaps.c"
    library = Path(folder) / "bare_smaps.so"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    assert compiler, "a C compiler is needed"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
    helper = ctypes.CDLL(str(library))
    helper.bare_read_ns.restype = ctypes.c_longlong
    for name in ("make_mappings", "make_resident"):
        getattr(helper, name).restype = ctypes.c_void_p
        getattr(helper, name).argtypes = [ctypes.c_longlong]
    helper.give_back.argtypes = [ctypes.c_void_p, ctypes.c_longlong]
    return helper


def bare_read(helper: ctypes.CDLL, path: str) -> Call:
    buffer = (ctypes.c_char * TEXT_BYTES)()
    text_bytes = ctypes.c_longlong()

    def call() -> float:
        elapsed_ns: int = helper.bare_read_ns(
            path.encode(), buffer, ctypes.c_longlong(TEXT_BYTES), ctypes.byref(text_bytes)
        )
        assert elapsed_ns > 0, path
        return elapsed_ns

    return call


def python_call(statement: Callable[[], object]) -> Call:
    def call() -> float:
        start = time.thread_time_ns()
        statement()
        return time.thread_time_ns() - start

    return call


def subjects(helper: ctypes.CDLL) -> dict[str, Call]:
    process = psutil.Process()
    return {
        BARE: bare_read(helper, "/proc/self/smaps"),
        OURS: python_call(lambda: memacct.snapshot(host="mappings")),
        PSUTIL: python_call(lambda: process.memory_maps(grouped=False)),
        RESIDENCY: python_call(lambda: memacct.snapshot(host="residency")),
        ROLLUP: bare_read(helper, "/proc/self/smaps_rollup"),
    }


def mappings_count() -> int:
    return len(Path("/proc/self/maps").read_bytes().splitlines())


@contextlib.contextmanager
def grown(helper: ctypes.CDLL, mappings: int, resident_bytes: int) -> Iterator[None]:
    """This process with about so many mappings, and so much resident in one more."""
    pages = max(0, mappings - mappings_count())
    blocks = [(helper.make_mappings(pages), pages * mmap.PAGESIZE)] if pages else []
    blocks += [(helper.make_resident(resident_bytes), resident_bytes)] if resident_bytes else []
    assert all(block for block, _ in blocks), "no memory, or vm.max_map_count is too small"
    try:
        yield
    finally:
        for block, size in blocks:
            helper.give_back(block, size)


def measure(calls: dict[str, Call], seconds: float) -> dict[str, list[float]]:
    """Times of each subject: rounds for about so long, but 16 at least.

    The bare read and ours differ by little, so they are in every round, side by side, and take
    turns in going first: whoever follows another finds other caches. The others are in every
    fourth round, and one reading that does not count follows them.
    """
    first = {name: call() for name, call in calls.items()}
    others = [name for name in calls if name not in {BARE, OURS}]
    round_ns = first[BARE] + first[OURS] + sum(first[name] for name in others) / RARELY
    rounds = max(4 * RARELY, min(400, int(seconds * 1e9 / round_ns)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in (BARE, OURS) if number % 2 == 0 else (OURS, BARE):
            times[name].append(calls[name]())
        if number % RARELY == 0:
            for name in others:
                times[name].append(calls[name]())
            calls[BARE]()
    return times


def ratio_of(times: dict[str, list[float]], subject: str, reference: str) -> float:
    """The median over the rounds of the ratio within a round."""
    mine, theirs = times[subject], times[reference]
    if len(mine) > len(theirs):
        mine = mine[::RARELY]
    return statistics.median(one / other for one, other in zip(mine, theirs, strict=True))


def point(series: str, calls: dict[str, Call], seconds: float) -> dict[str, Any]:
    times = measure(calls, seconds)
    ratios = []
    for subject, reference, budget, where in BUDGETS:
        ratio = ratio_of(times, subject, reference)
        ratios.append(
            {
                "subject": subject,
                "reference": reference,
                "ratio": round(ratio, 4),
                "budget_ratio": round(budget, 4) if series in where else None,
                "within_budget": ratio <= budget or series not in where,
            }
        )
    return {
        "mappings_count": mappings_count(),
        "rss_bytes": memacct.snapshot("counters").host.rss_bytes,
        "rounds_count": len(times[BARE]),
        "p50_ns": {name: round(statistics.median(values)) for name, values in times.items()},
        "ratios": ratios,
    }


def run(helper: ctypes.CDLL, *, full: bool, seconds: float) -> dict[str, Any]:
    calls = subjects(helper)
    by_mappings, by_resident = [], []
    for count in FULL_MAPPINGS if full else DEFAULT_MAPPINGS:
        with grown(helper, count, 0):
            by_mappings.append(point("by_mappings", calls, seconds))
            show(by_mappings[-1])
    for gib in FULL_GIB if full else DEFAULT_GIB:
        resident_bytes = int(gib * GIB)
        if psutil.virtual_memory().available < 1.5 * resident_bytes:
            print(f"{gib} GiB left out: the machine has not half as much again to spare")
            continue
        with grown(helper, 0, resident_bytes):
            by_resident.append(point("by_resident", calls, seconds))
            show(by_resident[-1])
    return {
        "machine": {
            "cpu_count": os.cpu_count(),
            "kernel": platform.release().split("-")[0],
            "python": platform.python_version(),
            "memacct": memacct.__version__,
            "psutil": psutil.__version__,
        },
        "by_mappings": by_mappings,
        "by_resident": by_resident,
    }


def show(entry: dict[str, Any]) -> None:
    times = entry["p50_ns"]
    columns = "".join(f"{time_ns / 1e6:>11.2f}" for time_ns in times.values())
    ratios = "".join(
        f"{ratio['ratio']:>8.3f}{' ' if ratio['within_budget'] else '!'}"
        for ratio in entry["ratios"]
    )
    print(f"{entry['mappings_count']:>8}{entry['rss_bytes'] / GIB:>8.2f}{columns}{ratios}")


def plot(summary: dict[str, Any], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "memacct"  # the same figures make the same file
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    panels = (
        (axes[0], "by_mappings", lambda entry: entry["mappings_count"], "mappings"),
        (axes[1], "by_resident", lambda entry: entry["rss_bytes"] / GIB, "GiB resident"),
    )
    for axis, series, size, label in panels:
        entries = summary[series]
        for name in (PSUTIL, OURS, BARE, ROLLUP, RESIDENCY):
            times = [entry["p50_ns"][name] / 1e6 for entry in entries]
            axis.plot([size(entry) for entry in entries], times, marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel=label)
        # Plain numbers, one a size: powers of ten with factors run into each other.
        axis.set_xticks([float(f"{size(entry):.1g}") for entry in entries])
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(visible=True, which="both", alpha=0.3)
    axes[0].set_ylabel("ms of CPU time a reading")
    axes[0].legend()
    machine = summary["machine"]
    figure.suptitle(f"Linux {machine['kernel']}, {machine['cpu_count']} CPUs, 4 KiB pages")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="to 60,000 mappings and 8 GiB")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="write them as an SVG to this file (matplotlib)")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each size")
    options = parser.parse_args()
    names = ("bare", "memacct", "psutil", "residency", "rollup")
    print(f"{'mappings':>8}{'GiB':>8}" + "".join(f"{name:>8} ms" for name in names), end="")
    print(f"{'/bare':>9}{'/psutil':>9}")
    with tempfile.TemporaryDirectory() as folder:
        summary = run(compile_helper(folder), full=options.full, seconds=options.seconds)
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    if options.plot:
        plot(summary, options.plot)
    entries = [*summary["by_mappings"], *summary["by_resident"]]
    over = [ratio for entry in entries for ratio in entry["ratios"] if not ratio["within_budget"]]
    for subject, reference, budget, where in BUDGETS:
        print(f"{subject} / {reference}: at most {budget:.2f} ({' and '.join(sorted(where))})")
    print(f"{len(over)} ratios over budget (marked !)" if over else "all within budget")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
