"""What a reading of the devices costs above the driver calls that it consists of, in one run.

    python bench/python/bench_devices.py [--json FILE] [--seconds S]

The driver is a table (bench/cpp/table_nvml.c) that answers in the time of a copy: what a reading
takes beyond the same calls made bare, by a loop in C, is memacct's own. The processes that it lists
are real ones. Both subjects take turns; a cost is the median over the rounds of the difference
within a round, in CPU time of the thread (nothing here waits). Beside it, with no budget: the same
where a small limit of descriptors leaves most processes unwatched.

Exit status 1: over budget.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SLEEP = shutil.which("sleep") or "/bin/sleep"
SOURCES = Path(__file__).parents[1] / "cpp"
PROCESSES, DEVICES = (1, 8, 100, 1_000), (1, 4, 16)
BUDGET_US = 3.0  # a device with BUDGET_PROCESSES
BUDGET_PROCESSES = 8
LINEAR_RATIO = 1.5  # per device, or per process, with many over with few
SMALL_LIMIT = 256  # descriptors
BATCH_S = 0.002

Row = dict[str, Any]


def compile_library(source: Path, folder: str) -> str:
    library = f"{folder}/{source.stem}.so"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    assert compiler, "a C compiler is needed"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    return library


@contextlib.contextmanager
def crowd(count: int) -> Iterator[list[int]]:
    """Has so many small processes, and yields their pids."""
    processes = [subprocess.Popen([SLEEP, "3600"]) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


# ---------------------------------------------------------------- in a process of its own


class Subject:
    """Both subjects on one driver, which reads its table anew in each run."""

    def __init__(self, library: str, bare: str) -> None:
        from memacct import _core

        self.core = _core
        self.read = _core._read_repeatedly  # noqa: SLF001 (read_devices_into, for benches)
        self.table = ctypes.CDLL(library)
        self.bare = ctypes.CDLL(bare)
        self.library = library.encode()

    def set_table(self, devices: int, pids: list[int]) -> None:
        numbers = (ctypes.c_uint * len(pids))(*pids)
        self.table.table_set(devices, numbers, len(pids), ctypes.c_ulonglong(2 << 20))

    def batch_ns(self, rounds: int) -> tuple[float, float]:
        """Returns what one reading took, bare and ours."""
        begin = time.thread_time_ns()
        assert self.bare.bare_read(rounds) == 0
        middle = time.thread_time_ns()
        self.read("all", rounds)
        end = time.thread_time_ns()
        return (middle - begin) / rounds, (end - middle) / rounds

    def measure(self, seconds: float) -> Row:
        self.core.close_devices()
        assert self.bare.bare_open(self.library) > 0
        self.read("all", 3)
        _, once_ns = self.batch_ns(3)
        # Enough readings in a batch that what its first one allocates does not show.
        rounds = max(20, int(BATCH_S * 1e9 / once_ns))
        pairs = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or len(pairs) < 5:
            pairs.append(self.batch_ns(rounds))
        return {
            "bare_us": statistics.median(bare for bare, _ in pairs) / 1e3,
            "ours_us": statistics.median(ours for _, ours in pairs) / 1e3,
            "above_us": statistics.median(ours - bare for bare, ours in pairs) / 1e3,
        }


def run_table(library: str, bare: str, pids: list[int], seconds: float) -> list[Row]:
    subject = Subject(library, bare)
    rows = []
    for devices in DEVICES:
        for count in PROCESSES:
            listed = [os.getpid(), *pids[: count - 1]]
            if len(listed) < count:
                continue
            subject.set_table(devices, listed)
            row = {"devices": devices, "processes": count, **subject.measure(seconds)}
            row["above_us_a_device"] = row["above_us"] / devices
            row["above_us_a_process"] = row["above_us"] / devices / count
            rows.append(row)
    return rows


def child() -> None:
    """Runs what was asked on standard input; a table or a limit is of one process."""
    asked = json.load(sys.stdin)
    if asked["limit"]:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(asked["limit"], hard), hard))
    os.environ["MEMACCT_NVML_LIBRARY"] = asked["library"]
    rows = run_table(asked["library"], asked["bare"], asked["pids"], asked["seconds"])
    json.dump(rows, sys.stdout)


def ask(**asked: Any) -> list[Row]:
    command = [sys.executable, __file__, "--child"]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---------------------------------------------------------------- the verdict


def find(rows: list[Row], devices: int, processes: int) -> Row:
    return next(r for r in rows if (r["devices"], r["processes"]) == (devices, processes))


def judge(rows: list[Row]) -> list[tuple[str, float, float]]:
    """Returns (what, value, at most) of each budget."""
    verdicts = []
    for devices in DEVICES:
        row = find(rows, devices, BUDGET_PROCESSES)
        what = f"us above the driver a device, {devices} devices, {BUDGET_PROCESSES} processes"
        verdicts.append((what, row["above_us_a_device"], BUDGET_US))
    few, many = (find(rows, n, 100)["above_us_a_device"] for n in (DEVICES[0], DEVICES[-1]))
    verdicts.append((f"a device's cost among {DEVICES[-1]}, over alone", many / few, LINEAR_RATIO))
    for devices in DEVICES:
        few, many = (find(rows, devices, n)["above_us_a_process"] for n in PROCESSES[-2:])
        what = f"a process's cost among 1,000, over among 100, {devices} devices"
        verdicts.append((what, many / few, LINEAR_RATIO))
    return verdicts


def print_rows(title: str, rows: list[Row]) -> None:
    print(f"\n{title}\n devices processes    bare us    ours us   above, us: a device  a process")
    for row in rows:
        print(
            f"{row['devices']:8}{row['processes']:10}{row['bare_us']:11.2f}{row['ours_us']:11.2f}"
            f"{row['above_us_a_device']:21.2f}{row['above_us_a_process']:11.3f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each row")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child()
        return 0
    with tempfile.TemporaryDirectory() as folder, crowd(PROCESSES[-1] - 1) as pids:
        libraries = {
            "library": compile_library(SOURCES / "table_nvml.c", folder),
            "bare": compile_library(SOURCES / "bare_nvml.c", folder),
        }
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        rows = ask(**libraries, pids=pids, seconds=options.seconds, limit=hard)
        small = ask(**libraries, pids=pids, seconds=options.seconds, limit=SMALL_LIMIT)
    print_rows("each process watched by a descriptor", rows)
    print_rows(f"at most {SMALL_LIMIT // 4} processes watched, the others looked up", small)
    print()
    failed = False
    for what, value, most in judge(rows):
        failed = failed or value > most
        print(f"{'over' if value > most else 'ok':5}{value:8.2f}  (at most {most})  {what}")
    if options.json:
        options.json.write_text(json.dumps({"watched": rows, "small_limit": small}, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
