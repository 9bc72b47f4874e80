"""What a record costs: a bare memcpy, a write to a ring on the heap, and one to a recording.

    python bench/python/bench_recorder.py [--json FILE] [--rounds N]

The three take turns in one process. Each ratio is the median over the rounds of the ratio within a
round. Exit status 1: a ratio is over budget. The recording is on the disk of TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("recorder", "recording", "recording_file", "sample_record", "clock", "process")
SOURCES += ("proc_file", "process_stat")
SUBJECTS = ("bare memcpy", "ring on the heap", "recording")
COUNT = 1 << 17
BUDGET_RATIO = 3.0  # of the recording's write to the heap's, whose instructions are the same


def compiled(folder: Path) -> Path:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    assert compiler, "a C++ compiler is needed"
    sources = [ROOT / "bench/cpp/ring_write.cpp"]
    sources += [ROOT / "cpp/src" / f"{name}.cpp" for name in SOURCES]
    command = [compiler, "-std=c++20", "-O2", "-pthread", "-I", ROOT / "cpp/include", *sources]
    subprocess.run([*command, "-o", folder / "ring_write"], check=True)
    return folder / "ring_write"


def measured(rounds: int) -> list[list[float]]:
    """The ns per record of each subject, by round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [compiled(folder), folder / "box", str(rounds), str(COUNT)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [[float(word) for word in line.split()] for line in done.stdout.splitlines()]


def summarise(rows: list[list[float]]) -> dict[str, object]:
    columns = dict(zip(SUBJECTS, zip(*rows, strict=True), strict=True))
    ratio = statistics.median(file / heap for _, heap, file in rows)
    return {
        "machine": {
            "cpu_count": os.cpu_count(),
            "kernel": platform.release().split("-")[0],
            "load_average_1min": round(os.getloadavg()[0], 1),
        },
        "rounds_count": len(rows),
        "times": {
            name: {
                "p50_ns": round(statistics.median(values), 1),
                "p99_ns": round(statistics.quantiles(values, n=100, method="inclusive")[98], 1),
            }
            for name, values in columns.items()
        },
        "recording_to_heap_ratio": round(ratio, 3),
        "within_budget": ratio <= BUDGET_RATIO,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    summary = summarise(measured(options.rounds))
    print(json.dumps(summary, indent=2))
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    return 0 if summary["within_budget"] else 1


if __name__ == "__main__":
    sys.exit(main())
