"""Runs the cases of one GPU version on simulated GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .judge import differences, judge, tell

if TYPE_CHECKING:
    from memacct.demo import Runner

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
        isolated = profiler == "isolated"
        with self.turn():
            if isolated:
                results = self.runner.isolated(scenario)
            else:
                results = self.runner.outcomes(scenario, profiler)
        cues = [] if isolated else [move.cue for move in scenario.moves]
        return [tell(result, cues) for result in results]


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
