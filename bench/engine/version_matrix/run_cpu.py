"""Runs scenarios a to d on the CPU worker, beside a neighbour of host memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct._units import GIB, MIB
from memacct.demo import Bench, EngineOptions, Move
from memacct.demo.neighbour import Neighbour
from memacct.demo.runner import run_together, start
from memacct.demo.table import reports

from .judge import differences, judge, tell

if TYPE_CHECKING:
    from memacct.demo import EngineResult

SCRIPT = Path(__file__).with_name("host_neighbour.py")
# What a worker itself holds differs by so much from start to start, its heap included.
SELF_BYTES = 32 * MIB
# And besides its heap: less than a block.
TOLERANCE_BYTES = 2 * MIB
# The engine's own choice of 4096 takes 50 s of a profile run on two cores.
BATCH = {"max_num_batched_tokens": 512}
ENGINE = EngineOptions(budget_bytes=3 * GIB, arguments=BATCH)
SMALL_ENGINE = EngineOptions(budget_bytes=2 * GIB, arguments=BATCH)
HOLD = f"hold {2 * GIB}"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CPUCase:
    """One scenario in its meaning for a CPU."""

    key: str
    title: str
    engines: tuple[EngineOptions, ...] = (ENGINE,)
    neighbour: tuple[str, ...] | None = None
    moves: tuple[Move, ...] = ()
    why_not: str | None = None


CASES = (
    CPUCase(key="a", title="alone"),
    CPUCase(
        key="b",
        title="neighbour releases 2 GiB during profiling",
        neighbour=(HOLD,),
        moves=(Move(cue="profiling", command="release"),),
    ),
    CPUCase(
        key="c",
        title="neighbour allocates 2 GiB during profiling",
        neighbour=(),
        moves=(Move(cue="profiling", command=HOLD),),
    ),
    CPUCase(key="d", title="two engines at once", engines=(ENGINE, SMALL_ENGINE)),
    CPUCase(key="e", title="graph profiling", why_not="no graphs on a CPU"),
)


class HostNeighbour(Neighbour):
    """A process of host memory, commanded as the one on a GPU is."""

    def __enter__(self) -> HostNeighbour:
        """Starts the process."""
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read("start")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMachine:
    """This machine; its memory is what the first NUMA node has."""

    total_bytes: int

    def engine_environ(self) -> dict[str, str]:
        """This process's own."""
        return dict(os.environ)

    def neighbour_environ(self) -> dict[str, str]:
        """The same."""
        return dict(os.environ)


def node_total_bytes(meminfo: str) -> int:
    """MemTotal in the text of a node's meminfo.

    Raises:
        ValueError: it is not there.
    """
    for line in meminfo.splitlines():
        if "MemTotal:" in line:
            return int(line.split()[-2]) * 1024
    raise ValueError("the node's meminfo has no MemTotal")


def keys() -> list[str]:
    """The keys of all cases."""
    return [case.key for case in CASES]


class CPURunner:
    """Runs the cases; each engine's start alone is made once for each profiler."""

    def __init__(self, bench: Bench, say: Say, turn: Callable[[], Any]) -> None:
        meminfo = Path("/sys/devices/system/node/node0/meminfo").read_text()
        self.machine = HostMachine(total_bytes=node_total_bytes(meminfo))
        self.bench, self.say, self.turn = bench, say, turn
        self._alone: dict[tuple[str, str], dict[str, Any]] = {}

    def alone(self, options: EngineOptions, profiler: str) -> dict[str, Any]:
        """The start of one engine with no neighbour."""
        key = (options.key(), profiler)
        if key not in self._alone:
            case = CPUCase(key=f"alone{len(self._alone)}", title="alone", engines=(options,))
            self._alone[key] = self.outcomes(case, profiler)[0]
        return self._alone[key]

    def outcomes(self, case: CPUCase, profiler: str) -> list[dict[str, Any]]:
        """Each engine's start in the case."""
        name = f"{case.key}-{profiler}"
        engines = [one.native() if profiler == "native" else one for one in case.engines]
        cues = [move.cue for move in case.moves]
        self.say(f"engine start: {name} ({case.title})")
        with self.turn():
            if len(engines) > 1:
                names = {f"{name}-{index}": one for index, one in enumerate(engines)}
                results = run_together(self.bench, self.machine, names)
            else:
                results = [self.one(case, engines[0], name)]
        for result in results:
            said = result.error or f"KV cache {result.kv_cache_bytes} bytes"
            self.say(f"  {result.outcome} in {result.wall_s:.0f} s, {said}")
        return [tell_with_heap(result, cues) for result in results]

    def one(self, case: CPUCase, options: EngineOptions, name: str) -> Any:
        """One engine beside the case's neighbour."""
        cues = tuple(move.cue for move in case.moves)
        with ExitStack() as stack:
            neighbour = None
            if case.neighbour is not None:
                neighbour = stack.enter_context(HostNeighbour(self.machine.neighbour_environ()))
                for command in case.neighbour:
                    neighbour.command(command)
            engine = start(self.bench, self.machine, options, name, cues=cues)
            stack.enter_context(engine)
            for move in case.moves:
                if engine.wait_cue(move.cue) and neighbour is not None:
                    neighbour.command(move.command)
                engine.go(move.cue)
            return engine.finish()

    def run(self, case: CPUCase) -> dict[str, Any]:
        """The case's results as data."""
        head = {"key": case.key, "title": case.title}
        if case.why_not is not None:
            return {**head, "verdict": "n/a", "reason": case.why_not, "engines": []}
        stock_alone = [self.alone(one, "stock") for one in case.engines]
        native_alone = [self.alone(one, "native") for one in case.engines]
        is_alone = not case.moves and len(case.engines) == 1
        stock = stock_alone if is_alone else self.outcomes(case, "stock")
        native = native_alone if is_alone else self.outcomes(case, "native")
        engines = [
            compare(*each, is_alone=is_alone)
            for each in zip(stock_alone, native_alone, stock, native, strict=True)
        ]
        bad = [one for one in engines if one["verdict"] != "ok"]
        first = bad[0] if bad else engines[0]
        self.say(f"  {case.key}: {first['verdict']} {first['reason']}")
        return {**head, "verdict": first["verdict"], "reason": first["reason"], "engines": engines}


def tell_with_heap(result: EngineResult, cues: Sequence[str]) -> dict[str, Any]:
    """One start as data, with what malloc kept in each worker, where memacct reported it.

    How much freed memory glibc keeps depends on the order in which the worker's threads
    allocate: on this machine 50 to 90 MiB more where the processors are busy.
    """
    ranks = [report for report in reports(result) if "held_by_kind" in report]
    heaps = [report["held_by_kind"]["heap"] for report in ranks]
    return {**tell(result, cues), "heap_bytes": heaps or None}


def heap_difference(native: dict[str, Any], alone: dict[str, Any]) -> int:
    """How much larger the workers' heaps are than alone; 0 where nobody told."""
    now, then = native.get("heap_bytes"), alone.get("heap_bytes")
    return sum(now) - sum(then) if now and then else 0


def judge_beside_heap(alone: dict[str, Any], native: dict[str, Any]) -> tuple[str, str]:
    """As ``judge``, of the KV cache that it would have had with the heap that it has alone.

    A worker's heap is its own, whatever the neighbour does.
    """
    heap_bytes = heap_difference(native, alone)
    given = {**native, "kv_cache_bytes": [one + heap_bytes for one in native["kv_cache_bytes"]]}
    return judge(alone, given, tolerance_bytes=TOLERANCE_BYTES)


def compare(
    stock_alone: dict[str, Any],
    native_alone: dict[str, Any],
    stock: dict[str, Any],
    native: dict[str, Any],
    *,
    is_alone: bool,
) -> dict[str, Any]:
    """Native against native alone; alone, against stock, than which it must not be smaller."""
    reference = stock_alone if is_alone else native_alone
    if is_alone:
        verdict, reason = at_least(stock_alone, native)
    else:
        verdict, reason = judge_beside_heap(native_alone, native)
    return {
        "verdict": verdict,
        "reason": reason,
        "isolated": reference,
        "stock": stock,
        "native": native,
        "stock_difference_bytes": differences(stock, stock_alone),
        "native_difference_bytes": differences(native, reference),
        "native_heap_difference_bytes": 0 if is_alone else heap_difference(native, reference),
    }


def at_least(stock: dict[str, Any], native: dict[str, Any]) -> tuple[str, str]:
    """Alone, native's KV cache is stock's or more: what the kernel can take back is not counted."""
    verdict, reason = judge(stock, native, tolerance_bytes=1 << 62)
    apart = differences(native, stock)
    if verdict == "ok" and apart is not None and min(apart) < -SELF_BYTES:
        return "wrong", f"KV cache smaller than stock's by {apart} bytes"
    return verdict, reason


def run(
    bench: Bench, wanted: Sequence[str], say: Say, turn: Callable[[], Any]
) -> Iterator[dict[str, Any]]:
    """Yields the cells of one CPU version, each when it is done."""
    runner = CPURunner(bench, say, turn)
    for case in CASES:
        if not wanted or case.key in wanted:
            yield runner.run(case)
