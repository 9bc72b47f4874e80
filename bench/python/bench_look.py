"""What `memacct snap` takes from the shell, and what `memacct watch` takes of a CPU.

    python bench/python/bench_look.py [--rounds N] [--seconds N]

The programs take turns, so that a slow moment of the machine falls on all of them: the bare
interpreter, an import of typer, and `snap` without a GPU and on a simulated one with 8 GPUs and
32 processes. Then `watch` looks at those once a second. Exit status 1: over a budget.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from memacct.sim import SimulatedGpu

GPUS, TENANTS = 8, 32
# (subject, reference, at most): the subject's time over the reference's.
BUDGETS = (("snap, no GPU", "python -c 'import typer'", 1.0),)
WATCH_CPU_RATIO = 0.05


def memacct() -> list[str]:
    """The installed command, by this interpreter."""
    script = Path(sys.executable).with_name("memacct")
    return [sys.executable, str(script)] if script.exists() else [sys.executable, "-m", "memacct"]


def seconds_of(command: list[str], environ: Mapping[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(simulated: Mapping[str, str], rounds: int) -> dict[str, list[float]]:
    bare = dict(os.environ)
    subjects = {
        "python -c pass": ([sys.executable, "-c", "pass"], bare),
        "python -c 'import typer'": ([sys.executable, "-c", "import typer"], bare),
        "snap, no GPU": ([*memacct(), "snap"], bare),
        "snap --json, no GPU": ([*memacct(), "snap", "--json"], bare),
        f"snap, {GPUS} GPUs": ([*memacct(), "snap"], dict(simulated)),
    }
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for i in range(rounds + 1):
        for name, (command, environ) in subjects.items():
            taken_s = seconds_of(command, environ)
            if i:  # the first one warms the caches
                times[name].append(taken_s)
    return times


def watch_cpu_ratio(environ: Mapping[str, str], seconds: int) -> float:
    command = [*memacct(), "watch", "--json", "--interval", "1", "--count", str(seconds)]
    done = subprocess.run(command, check=True, env=environ, capture_output=True, text=True)
    ratio: float = json.loads(done.stdout.splitlines()[-1])["self_cpu_ratio"]
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=15, help="that watch is watched")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        gpu = stack.enter_context(SimulatedGpu(count=GPUS))
        for i in range(TENANTS):
            stack.enter_context(gpu.tenant("1GiB", device=i % GPUS))
        environ = gpu.environ()
        times = measure(environ, options.rounds)
        cpu_ratio = watch_cpu_ratio(environ, options.seconds)
    print(f"{'':26}{'median':>9}{'least':>9}   of the bare   of typer's   (median of rounds)")
    for name, values in times.items():
        ratios = [
            statistics.median(a / b for a, b in zip(values, times[other], strict=True))
            for other in ("python -c pass", "python -c 'import typer'")
        ]
        told = f"{statistics.median(values) * 1e3:7.1f}ms{min(values) * 1e3:7.1f}ms"
        print(f"{name:26}{told}{ratios[0]:14.2f}{ratios[1]:13.2f}")
    watched = f"watch, {GPUS} GPUs and {TENANTS} processes once a second"
    print(f"{watched}: {100 * cpu_ratio:.2f} % of a CPU")
    over = [
        f"{subject} is over {most} x {reference}"
        for subject, reference, most in BUDGETS
        if statistics.median(a / b for a, b in zip(times[subject], times[reference], strict=True))
        > most
    ]
    over += ["watch is over its budget"] if cpu_ratio > WATCH_CPU_RATIO else []
    print("\n".join(over) or "within the budgets")
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
