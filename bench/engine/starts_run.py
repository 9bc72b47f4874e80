"""Carries out a plan: one engine, its neighbours as real processes, and what was true when."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starts_plan import CONTEXT_BYTES, ENGINES, Move, Plan

from memacct.demo.warm import Pause, WarmEngines, WarmStart, last_marks, marks
from memacct.sim import Tenant, TenantError

if TYPE_CHECKING:
    from memacct.demo import EngineOptions, EngineResult
    from memacct.demo.warm import Mark

PROFILERS = ("stock", "native")
LIMIT_S = 240.0


@dataclass(frozen=True, kw_only=True)
class Alone:
    """An engine alone on the device.

    Attributes:
        baseline_own_bytes: what it holds at its first reading.
        decided_own_bytes: what it holds before it allocates its KV cache.
    """

    result: EngineResult
    marks: dict[str, Mark]
    baseline_own_bytes: int = 0
    decided_own_bytes: int = 0

    @property
    def kv_cache_bytes(self) -> int:
        """Of the engine that everybody else is compared with."""
        assert self.result.kv_cache_bytes is not None
        return self.result.kv_cache_bytes

    @property
    def decided(self) -> Mark:
        """Up to here a neighbour's growth is still taken into account."""
        graphs = self.marks.get("profile_cudagraph_memory ends")
        return graphs or self.marks["profile_run ends"]

    def call(self, move: Move) -> Pause:
        """The call of this engine before which the move happens."""
        end = self.decided if move.early else self.marks["started"]
        count = end.calls[move.kind]
        kind = move.kind if count > 0 else "readings"
        return Pause(kind=kind, call=int(move.ratio * max(1, end.calls[kind])))


@dataclass(kw_only=True)
class Ledger:
    """What the neighbours hold together, contexts included, and since when at the latest."""

    totals: list[tuple[int, int, int]] = field(default_factory=list)  # from, until at most, bytes
    held_bytes: int = 0

    def between(self, first_ns: int, last_ns: int) -> set[int]:
        """Every total that may have been true at some time from `first_ns` to `last_ns`."""
        found = set()
        for i, (begins_ns, _, held) in enumerate(self.totals):
            later = self.totals[i + 1 :]
            ended_ns = later[0][1] if later else last_ns
            if begins_ns <= last_ns and ended_ns >= first_ns:
                found.add(held)
        return found

    def change(self, delta_bytes: int, begun_ns: int) -> None:
        """Notes a change that happened between `begun_ns` and now."""
        self.held_bytes += delta_bytes
        self.totals.append((begun_ns, time.monotonic_ns(), self.held_bytes))


@dataclass(frozen=True, kw_only=True)
class Observation:
    """How a plan went with one profiler."""

    plan: Plan
    profiler: str
    result: EngineResult
    ledger: Ledger
    moved: tuple[str, ...]
    second: EngineResult | None = None


class Neighbours:
    """Real processes that hold memory of the device; what they do is in the ledger."""

    def __init__(self, engines: WarmEngines, holds_bytes: tuple[int, ...]) -> None:
        self._gpu = engines.machine.gpu
        self._lock = threading.Lock()
        self.ledger = Ledger()
        self.ledger.change(0, time.monotonic_ns())
        self.tenants: dict[int, Tenant] = {}
        for index, size in enumerate(holds_bytes):
            self.act(index, "allocate", size)

    def act(self, index: int, action: str, size_bytes: int) -> str:
        """Carries out one action; returns what happened, for people."""
        with self._lock:
            begun_ns = time.monotonic_ns()
            try:
                delta = self._act(index, action, size_bytes)
            except TenantError as error:
                return f"{index} {action}: {error}"
            self.ledger.change(delta, begun_ns)
            return f"{index} {action} {delta / 2**30:+.3f} GiB"

    def _act(self, index: int, action: str, size_bytes: int) -> int:
        tenant = self.tenants.get(index)
        if action == "allocate":
            if tenant is None:
                return self._arrive(index, size_bytes)
            tenant.allocate(size_bytes)
            return size_bytes
        if tenant is None:
            return 0
        held = tenant.held_bytes
        if action == "release":
            tenant.free()
            return -held
        tenant.kill()
        del self.tenants[index]
        return -held - CONTEXT_BYTES

    def _arrive(self, index: int, size_bytes: int) -> int:
        tenant = self._gpu.tenant(size_bytes, context_bytes=CONTEXT_BYTES)
        self.tenants[index] = tenant
        return size_bytes + CONTEXT_BYTES

    def race(self, plan: Plan, stop: threading.Event) -> None:
        """Acts by the clock until the plan's races are over, again and again, or `stop`."""
        while not stop.is_set():
            for race in plan.races:
                if stop.wait(race.delay_ms / 1000):
                    return
                self.act(race.neighbour, race.action, race.size_bytes)
            for index in tuple(self.tenants):
                self.act(index, "release", 0)

    def close(self) -> None:
        """Ends all of them."""
        for tenant in self.tenants.values():
            with suppress(TenantError):
                tenant.close()


def options(engine: str, profiler: str) -> EngineOptions:
    """The engine with its own profiling or memacct's."""
    stock = ENGINES[engine]
    return stock.native() if profiler == "native" else stock


def alone(engines: WarmEngines, engine: str, profiler: str, lane: str) -> Alone:
    """Starts the engine alone, and once more to see what it holds at two points."""
    name = f"{lane}-alone-{engine}-{profiler}"
    result = engines.start(options(engine, profiler), name, limit_s=LIMIT_S).finish()
    assert result.served, result.error
    at = last_marks(result)
    if profiler == "stock":
        return Alone(result=result, marks=at)
    pauses = (
        Pause(kind="readings", call=0),
        Pause(kind="memory", call=at["initialize_from_config begins"].calls["memory"]),
    )
    start = engines.start(options(engine, profiler), name, pauses=pauses, limit_s=LIMIT_S)
    own = []
    while start.wait().startswith("pause"):
        own.append(engines.machine.gpu.status().devices[0].process_used_bytes(start.pid))
        start.go()
    result = start.finish()
    return Alone(result=result, marks=at, baseline_own_bytes=own[0], decided_own_bytes=own[1])


def carry_out(
    engines: WarmEngines, plan: Plan, profiler: str, isolated: Alone, lane: str
) -> Observation:
    """Runs the plan once, with stock or native profiling of all its engines."""
    moves = [*plan.moves, *([plan.second] if plan.second else [])]
    pauses = [isolated.call(move) for move in moves]
    said: list[str] = []
    with ExitStack() as stack:
        neighbours = Neighbours(engines, plan.holds_bytes)
        stack.callback(neighbours.close)
        stop = threading.Event()
        racer = threading.Thread(target=neighbours.race, args=(plan, stop))
        if plan.races:
            racer.start()
            stack.callback(racer.join)
            stack.callback(stop.set)
        start = engines.start(
            options(plan.engine, profiler),
            f"{lane}-{profiler}",
            pauses=pauses,
            stay=True,
            limit_s=LIMIT_S,
        )
        second: WarmStart | None = None
        while (word := start.wait()).startswith("pause"):
            move = moves[int(word.split()[1])]
            if move is plan.second:
                second = _second(engines, plan, profiler, lane, stack)
                said.append("second engine starts")
            else:
                what = neighbours.act(move.neighbour, move.action, move.size_bytes)
                pause = isolated.call(move)
                said.append(f"{pause.kind} {pause.call}: {what}")
            start.go()
        # Both hold their memory until both have their result.
        if second is not None:
            second.wait()
        result = start.finish()
        second_result = second.finish() if second is not None else None
    return Observation(
        plan=plan,
        profiler=profiler,
        result=result,
        ledger=neighbours.ledger,
        moved=tuple(said),
        second=second_result,
    )


def _second(
    engines: WarmEngines, plan: Plan, profiler: str, lane: str, stack: ExitStack
) -> WarmStart:
    name = f"{lane}-second-{profiler}"
    start = engines.start(options("second", profiler), name, stay=True, limit_s=LIMIT_S)
    if plan.second_killed_ms is not None:
        timer = threading.Timer(plan.second_killed_ms / 1000, start.kill)
        timer.start()
        stack.callback(timer.join)
        stack.callback(timer.cancel)
    return start


def window(observation: Observation, first: str, last: str) -> set[int]:
    """What the neighbours may have held between the first two marks of these names (bytes)."""
    begins = [mark.at_ns for mark in marks(observation.result) if mark.name == first]
    ends = [mark.at_ns for mark in marks(observation.result) if mark.name == last]
    if not begins or not ends:
        return set()
    return observation.ledger.between(begins[0], ends[0])
