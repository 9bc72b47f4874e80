"""What the timeline of a start costs: memacct's own time in every process, over the start's.

    python bench/engine/bench_startup_timeline.py PYTHON [--starts N] [--cpu]

PYTHON is the interpreter of an environment with vLLM and memacct; with --cpu, a CPU build. Each
start is a fresh engine (its imports included) on a simulated GPU. Exit status 1: a start's own
CPU time is over the budget.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import memacct
from memacct._units import GIB
from memacct.demo.engine import EngineOptions, EngineRun
from memacct.demo.scenarios import EAGER
from memacct.demo.setup import make_model
from memacct.demo.world import SimulatedWorld
from memacct.report.startup_tree import start_tree

BUDGET_RATIO = 0.005
TIMELINE = {"memacct": {"timeline": True}}


def cpu_total_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def run(python: Path, model: Path, folder: Path, *, cpu: bool) -> float:
    """Starts an engine, prints what it came to and returns the CPU ratio."""
    with contextlib.ExitStack() as stack:
        if cpu:
            environ, total_bytes = dict(os.environ), cpu_total_bytes()
            options = EngineOptions(budget_bytes=3 * GIB)
        else:
            world = SimulatedWorld(python=python).machine(device_count=1, host_pids=False)
            machine = stack.enter_context(world)
            environ, total_bytes = dict(machine.engine_environ()), machine.total_bytes
            options = EAGER
        options = replace(options, plugins="memacct", additional_config=TIMELINE)
        engine = EngineRun(
            options,
            python=python,
            model=model,
            folder=folder,
            total_bytes=total_bytes,
            environ=environ,
        )
        result = stack.enter_context(engine).finish()
    assert result.served, result.error
    tree = start_tree(memacct.read_timeline(folder / "memacct"))
    took_ns = max(node.end_ns or 0 for node in tree.walk())
    cpu_ns = wall_ns = 0
    for each in tree.processes:
        cpu_ns += each.own_cpu_ns or 0
        wall_ns += each.own_wall_ns or 0
        print(
            f"  {each.name}: {each.entries_count} entries, {(each.own_wall_ns or 0) / 1e6:.0f} ms, "
            f"{(each.own_cpu_ns or 0) / 1e6:.0f} ms of CPU"
        )
    print(
        f"start {took_ns / 1e9:.1f} s: all processes {wall_ns / 1e6:.0f} ms "
        f"({wall_ns / took_ns:.2%}), {cpu_ns / 1e6:.0f} ms of CPU ({cpu_ns / took_ns:.2%})"
    )
    return cpu_ns / took_ns


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    python = arguments.python.absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(python, folder / "model", print)
        ratios = [
            run(python, model, folder / "run", cpu=arguments.cpu) for _ in range(arguments.starts)
        ]
    return int(max(ratios) > BUDGET_RATIO)


if __name__ == "__main__":
    sys.exit(main())
