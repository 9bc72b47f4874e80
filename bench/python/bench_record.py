"""What ``memacct record`` costs a command with many short-lived children, with and without it.

    python bench/python/bench_record.py [--children N] [--rounds N] [--hz HZ] [--json FILE]

Both take turns. The command: a shell that starts /bin/true again and again. The figures: what
recording did to the command's own time (the ratio of medians); what the recorder used of one
CPU while it ran, as the recording itself says, and the CPU time of both beside the command's
alone, which a busy machine disturbs least; and what starting the recorder up took before the
command began, which is the same however long the command runs.
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
from pathlib import Path
from typing import Any

from memacct.recording import read_run

LOOP = "i=0; while [ $i -lt {} ]; do /bin/true; i=$((i+1)); done"
BUDGET_RATIO = 0.05


def bare(script: str) -> dict[str, float]:
    start = time.perf_counter()
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", script], dict(os.environ))
    _, status, used = os.wait4(pid, 0)
    assert status == 0
    return {"wall_s": time.perf_counter() - start, "cpu_s": used.ru_utime + used.ru_stime}


def recorded(script: str, hz: float, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "memacct", "record", "-q", "--hz", str(hz), "-o", str(file)]
    start = time.perf_counter()
    subprocess.run([*command, "--", "sh", "-c", script], check=True)
    whole_s = time.perf_counter() - start
    end = read_run(file).end
    assert end is not None
    return {**end, "whole_s": whole_s}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    script = LOOP.format(options.children)
    without: list[dict[str, float]] = []
    ends: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run"
        for number in range(options.rounds):
            # In turns, and in turns who is first: a machine that gets busier favours neither.
            for subject in ("bare", "recorded") if number % 2 else ("recorded", "bare"):
                if subject == "bare":
                    without.append(bare(script))
                else:
                    ends.append(recorded(script, options.hz, file))
    command_s = [end["elapsed_ns"] / 1e9 for end in ends]
    bare_s = statistics.median(each["wall_s"] for each in without)
    bare_cpu_s = statistics.median(each["cpu_s"] for each in without)
    all_cpu_s = [(end["command_cpu_ns"] + end["sampling_cpu_ns"]) / 1e9 for end in ends]
    return {
        "children_count": options.children,
        "rounds_count": options.rounds,
        "hz": options.hz,
        "bare_s": bare_s,
        "recorded_s": statistics.median(command_s),
        "command_time_ratio": statistics.median(command_s) / bare_s,
        "bare_cpu_s": bare_cpu_s,
        "with_sampling_cpu_s": statistics.median(all_cpu_s),
        "cpu_ratio": statistics.median(all_cpu_s) / bare_cpu_s,
        "rounds_bare_s": [each["wall_s"] for each in without],
        "rounds_recorded_s": command_s,
        "sampling_cpu_ratio": statistics.median(end["sampling_cpu_ratio"] for end in ends),
        "sampling_to_command_cpu_ratio": statistics.median(
            end["sampling_to_command_cpu_ratio"] for end in ends
        ),
        "before_the_command_s": statistics.median(end["own_wall_before_ns"] / 1e9 for end in ends),
        "samples_count": statistics.median(end["samples_count"] for end in ends),
        "skipped_count": statistics.median(end["skipped_count"] for end in ends),
        "machine": {
            "cpu_count": os.cpu_count(),
            "load": os.getloadavg()[0],
            "kernel": platform.release(),
            "python": platform.python_version(),
            "processes_count": sum(entry.name.isdigit() for entry in Path("/proc").iterdir()),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--children", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hz", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options)
    print(f"{options.children} children, {found['bare_s']:.2f} s without, medians of rounds")
    print(f"the command's time, with / without   {found['command_time_ratio']:.3f}")
    print(f"CPU of both / of the command alone   {found['cpu_ratio']:.3f}")
    print(f"the recorder's CPU, of one           {found['sampling_cpu_ratio']:.3f}")
    print(f"the same, of the command's CPU time  {found['sampling_to_command_cpu_ratio']:.3f}")
    print(f"starting up, before the command      {found['before_the_command_s']:.2f} s")
    for name in ("command_time_ratio", "cpu_ratio"):
        under = found[name] < 1 + BUDGET_RATIO
        print(f"{name}: {'under' if under else 'ABOVE'} the budget of {BUDGET_RATIO:.0%}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
