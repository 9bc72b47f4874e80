"""Runs scenarios: starts engines and neighbours, and lets each act at its cue."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from .engine import EngineOptions, EngineResult, EngineRun
from .neighbour import Neighbour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .scenarios import Scenario

# Where engines that start together wait for each other, in this order.
RENDEZVOUS = ("initialised", "profiling")
# What vLLM logs when torch.compile ran, and when its result was found in the cache.
COMPILED = "Compiling a graph for compile range"
LOADED = "Directly load AOT compilation"


class Machine(Protocol):
    """One or more GPUs, real or simulated, in the state in which a scenario begins."""

    @property
    def total_bytes(self) -> int:
        """Memory of each GPU."""

    def engine_environ(self) -> Mapping[str, str]:
        """The whole environment of an engine that shall see these GPUs."""

    def neighbour_environ(self) -> Mapping[str, str]:
        """The same for a neighbour."""


class World(Protocol):
    """Makes machines: what differs between a real and a simulated GPU."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def simulated(self) -> bool:
        """Whether its GPUs are simulated."""

    def machine(self, *, device_count: int, host_pids: bool) -> AbstractContextManager[Machine]:
        """A machine without neighbours, engines or leftovers."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every start needs: the engine's interpreter, the model, a folder for logs.

    Attributes:
        make_run: makes an engine to be entered, with EngineRun's arguments.
    """

    python: Path
    model: Path
    folder: Path
    limit_s: float = 300.0
    make_run: Callable[..., EngineRun] = EngineRun


def start(
    bench: Bench,
    machine: Machine,
    options: EngineOptions,
    name: str,
    *,
    cues: tuple[str, ...] = (),
    cue_rank: int = 0,
    stay: bool = False,
) -> EngineRun:
    """An engine on `machine`, not yet running (enter it)."""
    return bench.make_run(
        options,
        python=bench.python,
        model=bench.model,
        folder=bench.folder / name,
        total_bytes=machine.total_bytes,
        environ=machine.engine_environ(),
        cues=cues,
        cue_rank=cue_rank,
        stay=stay,
        limit_s=bench.limit_s,
    )


def run_one(
    bench: Bench, machine: Machine, scenario: Scenario, options: EngineOptions, name: str
) -> EngineResult:
    """One engine, with the scenario's neighbour if there is one."""
    cues = tuple(move.cue for move in scenario.moves)
    device = scenario.neighbour_device
    with ExitStack() as stack:
        neighbour = None
        if scenario.neighbour is not None:
            neighbour = stack.enter_context(Neighbour(machine.neighbour_environ(), device))
            for command in scenario.neighbour:
                neighbour.command(command)
        run = start(bench, machine, options, name, cues=cues, cue_rank=device)
        stack.enter_context(run)
        for move in scenario.moves:
            if run.wait_cue(move.cue) and neighbour is not None:
                neighbour.command(move.command)
            run.go(move.cue)
        return run.finish()


def run_together(
    bench: Bench, machine: Machine, engines: Mapping[str, EngineOptions]
) -> list[EngineResult]:
    """Several engines at once; each starts when the one before has a context on the GPU.

    All hold their memory until each has its result: none profits from another's end.
    """
    with ExitStack() as stack:
        runs: list[EngineRun] = []
        for name, options in engines.items():
            run = start(bench, machine, options, name, cues=RENDEZVOUS, stay=True)
            runs.append(stack.enter_context(run))
            run.wait_cue(RENDEZVOUS[0])
        for cue in RENDEZVOUS:
            for run in runs:
                run.wait_cue(cue)
            for run in runs:
                run.go(cue)
        for run in runs:
            run.wait_result()
        for run in runs:
            run.go("served")
        return [run.finish() for run in runs]


class Runner:
    """Runs scenarios, each engine's isolated start only once.

    Args:
        progress: called with a line of text before each start and after it.
        starts_count: how many starts there will be, for the progress; see `count_starts`.
        like: another runner whose isolated starts stand for this one's too: its world differs in
            nothing that an engine alone would feel.
    """

    def __init__(
        self,
        bench: Bench,
        world: World,
        progress: Callable[[str], None],
        starts_count: int | None = None,
        like: Runner | None = None,
    ) -> None:
        self.bench, self.world, self.progress = bench, world, progress
        self.starts_count = starts_count
        self._isolated: dict[tuple[str, int, bool], EngineResult] = {}
        if like is not None:
            self._isolated = like._isolated  # noqa: SLF001
        self._started = 0

    def isolated(self, scenario: Scenario) -> list[EngineResult]:
        """Each of the scenario's engines alone on the machine: stock, no neighbour at all.

        By vLLM's arithmetic the KV cache is the budget less what the engine itself consumes, so a
        neighbour that holds still changes nothing; having none is the plainest case of that.
        """
        results = []
        for options in scenario.engines:
            where = (options.key(), scenario.device_count, scenario.host_pids)
            if where not in self._isolated:
                name = f"isolated-{len(self._isolated)}"
                self._isolated[where] = self._alone(scenario, options, name)
            results.append(self._isolated[where])
        return results

    def _alone(self, scenario: Scenario, options: EngineOptions, name: str) -> EngineResult:
        alone = replace(scenario, neighbour=None, moves=(), engines=(options,))
        result = self._run(alone, (options,), (name,))[0]
        if COMPILED in result.log() and LOADED not in result.log():
            # A start that compiles takes other memory than one that finds the compiled model.
            self.progress("  once more, with the compiled model")
            self._started -= 1
            result = self._run(alone, (options,), (name,))[0]
        return result

    def outcomes(self, scenario: Scenario, profiler: str) -> list[EngineResult]:
        """The scenario itself, `profiler` being "stock" or "native"; one result for each engine."""
        if profiler == "stock" and scenario.neighbour is None and len(scenario.engines) == 1:
            return self.isolated(scenario)
        if not all(options.enforce_eager for options in scenario.engines):
            # Compiles the model where that is still to be done (see `_alone`): it must not fall
            # to the start that is looked at.
            self.isolated(scenario)
        names = tuple(
            f"{scenario.key}{index or ''}-{profiler}" for index in range(len(scenario.engines))
        )
        engines = scenario.engines
        if profiler == "native":
            engines = tuple(options.native() for options in engines)
        return self._run(scenario, engines, names)

    def _run(
        self, scenario: Scenario, engines: tuple[EngineOptions, ...], names: tuple[str, ...]
    ) -> list[EngineResult]:
        self._started += len(names)
        of = "" if self.starts_count is None else f" of {self.starts_count}"
        self.progress(f"engine start {self._started}{of}: {', '.join(names)} ({scenario.title})")
        world = self.world.machine(device_count=scenario.device_count, host_pids=scenario.host_pids)
        with world as machine:
            if len(engines) == 1:
                results = [run_one(self.bench, machine, scenario, engines[0], names[0])]
            else:
                together = dict(zip(names, engines, strict=True))
                results = run_together(self.bench, machine, together)
        for name, result in zip(names, results, strict=True):
            said = result.error or f"KV cache {result.kv_cache_bytes} bytes"
            self.progress(f"  {name}: {result.outcome} in {result.wall_s:.0f} s, {said}")
        return results


def count_starts(scenarios: Iterable[Scenario]) -> int:
    """How many engine starts the scenarios take (a compilation's second start not counted)."""
    isolated: set[tuple[str, int, bool]] = set()
    count = 0
    for scenario in scenarios:
        plain = scenario.neighbour is None and len(scenario.engines) == 1
        count += len(scenario.engines) * (1 if plain else 2)
        isolated |= {
            (options.key(), scenario.device_count, scenario.host_pids)
            for options in scenario.engines
        }
    return count + len(isolated)
