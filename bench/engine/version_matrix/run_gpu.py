"""Runs the cases of one GPU version on simulated GPUs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memacct.demo.neighbour import Neighbour
from memacct.demo.runner import start

from .judge import differences, judge, tell

if TYPE_CHECKING:
    from memacct.demo import EngineOptions, EngineResult, Runner, Scenario
    from memacct.demo.runner import Machine

    from .cases import Case

Say = Callable[[str], None]


@contextmanager
def no_turn() -> Iterator[None]:
    """Where nobody else uses the machine."""
    yield


class CaseRunner:
    """Runs cases one after the other.

    Args:
        turn: entered around each start, for machines that are shared.
    """

    def __init__(self, runner: Runner, say: Say, turn: Callable[[], Any] = no_turn) -> None:
        self.runner, self.say, self.turn = runner, say, turn

    def run(self, case: Case) -> dict[str, Any]:
        """The case's results as data."""
        head = {"key": case.key, "title": case.title}
        if case.why_not is not None:
            return {**head, "verdict": "n/a", "reason": case.why_not, "engines": []}
        native = self.outcomes(case, "native")
        stock = self.outcomes(case, "stock") if case.stock else None
        isolated = self.outcomes(case, "isolated", like=True)
        if case.like is not None and any(
            judge(alone, found)[0] != "ok" for alone, found in zip(isolated, native, strict=True)
        ):
            isolated = self.outcomes(case, "isolated")
        engines = [
            engine(alone, None if stock is None else stock[index], found)
            for index, (alone, found) in enumerate(zip(isolated, native, strict=True))
        ]
        verdict, reason = worst([(one["verdict"], one["reason"]) for one in engines])
        self.say(f"  {case.key}: {verdict} {reason}")
        return {**head, "verdict": verdict, "reason": reason, "engines": engines}

    def outcomes(self, case: Case, profiler: str, *, like: bool = False) -> list[dict[str, Any]]:
        """Each engine's start, told as data."""
        scenario = case.like if like and case.like is not None else case.scenario
        with self.turn():
            if case.data_parallel:
                results = self.data_parallel(scenario, profiler)
            elif profiler == "isolated":
                results = self.runner.isolated(scenario)
            else:
                results = self.runner.outcomes(scenario, profiler)
        moved = () if profiler == "isolated" else scenario.moves
        cues = [move.cue for move in moved]
        # Of data-parallel ranks, only the one beside the neighbour is given cues.
        beside = [
            cues if not case.data_parallel or index == scenario.neighbour_device else []
            for index in range(len(results))
        ]
        return [tell(result, own) for result, own in zip(results, beside, strict=True)]

    def data_parallel(self, scenario: Scenario, profiler: str) -> list[EngineResult]:
        """Ranks that are started by themselves, as a launcher starts them."""
        alone = profiler == "isolated"
        engines = ranks_of(scenario, free_port(), native=profiler == "native")
        self.runner.progress(f"engine start: dp2-{profiler} ({scenario.title})")
        world = self.runner.world.machine(device_count=2, host_pids=False)
        with world as machine:
            return self.run_ranks(machine, scenario, engines, f"dp2-{profiler}", alone=alone)

    def run_ranks(
        self,
        machine: Machine,
        scenario: Scenario,
        engines: list[EngineOptions],
        name: str,
        *,
        alone: bool,
    ) -> list[EngineResult]:
        """All ranks at once; the neighbour moves at the cues of the rank beside it."""
        beside = scenario.neighbour_device
        moves = () if alone else scenario.moves
        with ExitStack() as stack:
            neighbour = None
            if not alone:
                environ = machine.neighbour_environ()
                neighbour = stack.enter_context(Neighbour(environ, beside))
                for command in scenario.neighbour or ():
                    neighbour.command(command)
            runs = []
            for rank, options in enumerate(engines):
                cues = tuple(move.cue for move in moves) if rank == beside else ()
                run = start(self.runner.bench, machine, options, f"{name}-{rank}", cues=cues)
                runs.append(stack.enter_context(run))
            for move in moves:
                if runs[beside].wait_cue(move.cue) and neighbour is not None:
                    neighbour.command(move.command)
                runs[beside].go(move.cue)
            return [run.finish() for run in runs]


def ranks_of(scenario: Scenario, port: int, *, native: bool) -> list[EngineOptions]:
    """The engines of a data-parallel group, by vLLM's variables for ranks started one by one."""
    engines = []
    for rank, options in enumerate(scenario.engines):
        environ = {
            "VLLM_DP_RANK": str(rank),
            "VLLM_DP_RANK_LOCAL": str(rank),
            "VLLM_DP_SIZE": str(len(scenario.engines)),
            "VLLM_DP_MASTER_IP": "127.0.0.1",
            "VLLM_DP_MASTER_PORT": str(port),
        }
        own = options.native() if native else options
        engines.append(replace(own, environ={**own.environ, **environ}))
    return engines


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def engine(
    isolated: dict[str, Any], stock: dict[str, Any] | None, native: dict[str, Any]
) -> dict[str, Any]:
    """One engine's three starts, compared."""
    verdict, reason = judge(isolated, native)
    return {
        "verdict": verdict,
        "reason": reason,
        "isolated": isolated,
        "stock": stock,
        "native": native,
        "stock_difference_bytes": None if stock is None else differences(stock, isolated),
        "native_difference_bytes": differences(native, isolated),
    }


def worst(verdicts: list[tuple[str, str]]) -> tuple[str, str]:
    """The verdict that decides, and its reason."""
    order = ("wrong", "not shown", "alone", "ok")
    return min(verdicts, key=lambda one: order.index(one[0]))
