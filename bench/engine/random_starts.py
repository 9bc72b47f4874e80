"""Random starts of a real engine beside random neighbours: memacct's law, and stock vLLM's luck.

    python bench/engine/random_starts.py [--seeds N] [--from S] [--lanes N] [--out FILE]

Each seed is a plan (starts_plan.py): which engine, which neighbours, who moves at which of the
engine's calls. It is carried out twice on a simulated GPU, with stock vLLM and with memacct. Exit
status 1 if a native start broke the law (starts_law.py). A seed that did is run again by
`--seeds 1 --from S`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starts_law import describe, judge
from starts_plan import ENGINES, draw
from starts_run import PROFILERS, Alone, Observation, alone, carry_out

import memacct
from memacct.demo import Bench, SimulatedWorld
from memacct.demo.setup import engine_python, make_model
from memacct.demo.warm import WarmEngines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starts_plan import Plan

Row = dict[str, Any]


class Lanes:
    """Warm processes side by side, each on a machine of its own; a context manager."""

    def __init__(self, bench: Bench, count: int) -> None:
        self.bench, self.count = bench, count
        self.alone: dict[tuple[str, str], Alone] = {}
        self._exit = ExitStack()
        self._free: list[tuple[str, WarmEngines]] = []
        self._waiting = threading.Condition()

    def __enter__(self) -> Lanes:
        with ThreadPoolExecutor(self.count) as pool:
            self._free = list(pool.map(self._lane, range(self.count)))
        return self

    def _lane(self, number: int) -> tuple[str, WarmEngines]:
        world = SimulatedWorld(python=self.bench.python)
        machine = self._exit.enter_context(world.machine(device_count=1, host_pids=False))
        return f"lane{number}", self._exit.enter_context(WarmEngines(self.bench, machine))

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def on_a_lane(self, work: Any, *arguments: Any) -> Any:
        """Calls work(engines, lane, *arguments) on a lane that is free."""
        with self._waiting:
            self._waiting.wait_for(lambda: self._free)
            lane, engines = self._free.pop()
        try:
            return work(engines, lane, *arguments)
        finally:
            with self._waiting:
                self._free.append((lane, engines))
                self._waiting.notify()

    def start_alone(self, engines: Iterable[str] = ENGINES) -> None:
        """Finds what each engine takes alone, stock and native: the same."""
        wanted = [(engine, profiler) for engine in engines for profiler in PROFILERS]
        with ThreadPoolExecutor(self.count) as pool:
            found = pool.map(lambda key: self.on_a_lane(_alone, *key), wanted)
            self.alone |= dict(zip(wanted, found, strict=True))
        for engine in {engine for engine, _ in wanted}:
            sizes = {self.alone[engine, profiler].kv_cache_bytes for profiler in PROFILERS}
            assert len(sizes) == 1, f"{engine} alone: {sizes}"

    def run(self, plan: Plan) -> Row:
        """Carries out a plan with each profiler, and judges."""
        row: Row = self.on_a_lane(self._run, plan)
        return row

    def _run(self, engines: WarmEngines, lane: str, plan: Plan) -> Row:
        started_s = time.monotonic()
        seen = {
            profiler: carry_out(engines, plan, profiler, self.alone[plan.engine, profiler], lane)
            for profiler in PROFILERS
        }
        isolated = self.alone[plan.engine, "native"]
        verdict = judge(seen["native"], isolated, self.alone["second", "native"])
        if verdict.broken:
            for one in seen.values():
                kept = one.result.log_path.parent.parent / f"seed{plan.seed}-{one.profiler}.log"
                kept.write_text(one.result.log())
        return {
            "seed": plan.seed,
            "engine": plan.engine,
            "sort": plan.sort,
            "native": verdict.outcome,
            "broken": list(verdict.broken),
            "stock": describe(seen["stock"], isolated),
            "kv_cache_bytes": seen["native"].result.kv_cache_bytes,
            "stock_kv_cache_bytes": seen["stock"].result.kv_cache_bytes,
            "alone_kv_cache_bytes": isolated.kv_cache_bytes,
            **_steps(seen["native"]),
            "wall_s": round(time.monotonic() - started_s, 2),
        }


def _alone(engines: WarmEngines, lane: str, engine: str, profiler: str) -> Alone:
    return alone(engines, engine, profiler, lane)


def _steps(seen: Observation) -> Row:
    changes = len(seen.ledger.totals) - 1 - len(seen.plan.holds_bytes)
    return {"changes_count": changes, "moved": list(seen.moved)}


def line(row: Row) -> str:
    """One row of the table."""
    native = "BROKEN" if row["broken"] else row["native"]
    text = (
        f"{row['seed']:>6}  {row['engine']:<10} {row['sort']:<14} {row['changes_count']:>4}  "
        f"{native:<9} {row['stock']}"
    )
    return "\n        ".join([text, *row["broken"]])


def summary(rows: Sequence[Row]) -> Row:
    """How often what came out."""
    stock = Counter(row["stock"].split(" GiB")[0].split(" +")[0].split(" -")[0] for row in rows)
    return {
        "seeds_count": len(rows),
        "broken_count": sum(bool(row["broken"]) for row in rows),
        "native": dict(Counter(row["native"] for row in rows)),
        "stock": dict(stock.most_common()),
        "changes_count": sum(row["changes_count"] for row in rows),
    }


def machine() -> Row:
    """What the figures were taken on."""
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "memacct": memacct.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def as_text(report: Row) -> str:
    """JSON with a line for each seed: its plan is drawn from the seed again."""
    rows = ",\n".join("  " + json.dumps(row) for row in report["rows"])
    head = json.dumps({**report, "rows": []}, indent=1)
    return head.replace('"rows": []', f'"rows": [\n{rows}\n ]')


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="how many")
    parser.add_argument("--from", type=int, default=1, metavar="S", dest="first", help="the first")
    parser.add_argument("--lanes", type=int, default=2, metavar="N", help="engines side by side")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the rows go as JSON")
    parser.add_argument("--engine-python", type=Path, metavar="PYTHON")
    return parser.parse_args(arguments)


def main() -> int:
    given = parse()
    work = Path(".memacct", "random-starts").absolute()
    python = engine_python(given.engine_python)
    bench = Bench(python=python, model=make_model(python, work / "model", print), folder=work)
    plans = [draw(seed) for seed in range(given.first, given.first + given.seeds)]
    started_s = time.monotonic()
    rows: list[Row] = []
    with Lanes(bench, given.lanes) as lanes:
        lanes.start_alone({plan.engine for plan in plans} | {"second"})
        print(f"{'seed':>6}  {'engine':<10} {'neighbours':<14} moves {'memacct':<9} stock vLLM")
        with ThreadPoolExecutor(given.lanes) as pool:
            for row in pool.map(lanes.run, plans):
                rows.append(row)
                print(line(row), flush=True)
        versions = next(iter(lanes.alone.values())).result.versions
    found = {**summary(rows), "wall_s": round(time.monotonic() - started_s)}
    print(json.dumps(found, indent=1))
    if given.out:
        report = {**machine(), "versions": dict(versions), **found, "rows": rows}
        given.out.write_text(as_text(report) + "\n")
    return 1 if found["broken_count"] else 0


if __name__ == "__main__":
    sys.exit(main())
