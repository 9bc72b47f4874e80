"""``--fit``: the largest context, the smallest utilization, the fewest or the smallest cards."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from memacct._errors import ConfigError, MemacctError
from memacct._units import format_bytes
from memacct.dry_run import planned
from memacct.dry_run.arguments import with_option
from memacct.dry_run.goals import ENDS, Goal, make_goal, spare_bytes
from memacct.dry_run.refusals import OptionsError
from memacct.dry_run.search import NEXT_TRIED, Found, Outcome, Try, find_last

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memacct.dry_run.answers import Ask
    from memacct.dry_run.request import Machine, Request
    from memacct.dry_run.result import DryRun


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTry:
    """One value that was asked about.

    Attributes:
        value: for people.
        run: the answer; None where there is no engine for it.
        why_not: why there is none.
    """

    value: str
    run: DryRun | None
    why_not: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The answer.

    Attributes:
        goal: what was fitted.
        value: the best that fits; None: nothing does.
        run: of that value; of the one that came nearest where nothing fits.
        tries: all that was asked, in order.
        beyond: why no other value is better.
        rising: values between which more memory is left although more is asked for; the answer is
            then the best that was tried, and a better one is not excluded.
        starts_count: engines that were started for it.
    """

    goal: Goal
    value: str | None
    run: DryRun | None
    tries: tuple[FitTry, ...]
    beyond: str
    rising: tuple[str, str] | None = None
    starts_count: int = 0


def goal_for(name: str, request: Request, ask: Ask, machine_of: Callable[[str], Machine]) -> Goal:
    """The goal of that name; a run tells where it ends if neither the config nor a formula does.

    Raises:
        ConfigError: no such goal.
        MemacctError: the engine refuses for another reason than memory.
    """
    if name not in ENDS:
        return make_goal(name, request, machine_of)
    option, setting = ENDS[name]
    try:
        return make_goal(name, request, machine_of)
    except ConfigError:
        plain = replace(request, arguments=with_option(request.arguments, option, None))
        limit = ask(plain, False).settings.get(setting)
        return make_goal(name, request, machine_of, limit if isinstance(limit, int) else None)


def fit(goal: Goal, ask: Ask, tell: Callable[[FitTry], None] = lambda _: None) -> Fit:
    """Fits a goal.

    Args:
        goal: what.
        ask: answers a request, by a run or without one; a run where it is told so.
        tell: called with each try as it is known.

    Raises:
        MemacctError: the engine refuses for another reason than memory.
    """
    search = _Search(goal, ask, tell)
    found = find_last(
        len(goal.values),
        search.try_,
        first=search.first(),
        foretell=search.foretell,
        prove=search.prove,
    )
    index = found.index
    reckoned = index is not None and search.runs[index].origin == "interpolated"
    if reckoned and search.try_(index or 0, started=True).outcome != "fits":
        return fit(goal, ask, tell)  # the run is right, and known from now on
    return search.ended(found)


@dataclass(slots=True)
class _Search:
    """A goal being fitted: the runs so far, and what they foretell."""

    goal: Goal
    ask: Ask
    tell: Callable[[FitTry], None]
    runs: dict[int, DryRun] = field(default_factory=dict)
    tries: list[FitTry] = field(default_factory=list)
    starts_count: int = 0
    hopeless: str | None = None

    def try_(self, index: int, *, started: bool = False) -> Try:
        """Asks about one value."""
        if self.hopeless is not None:
            return Try(index=index, outcome="too much")
        text = self.goal.text_of(index)
        try:
            run = self.ask(self.goal.request_of(index), started)
        except MemacctError as error:
            if not self.goal.skips or isinstance(error, OptionsError):
                raise
            self._keep(FitTry(value=text, run=None, why_not=str(error)))
            return Try(index=index, outcome="cannot")
        self.runs[index] = run
        self._keep(FitTry(value=text, run=run))
        self.starts_count += run.origin == "run"
        return Try(index=index, outcome=self._outcome(run), spare_bytes=spare_bytes(run))

    def _keep(self, made: FitTry) -> None:
        self.tries.append(made)
        self.tell(made)

    def _outcome(self, run: DryRun) -> Outcome:
        if run.refusal is None:
            return "fits"
        if run.refusal.kind in self.goal.hopeless:
            self.hopeless = run.refusal.kind
        return "too little" if run.refusal.kind in self.goal.too_little else "too much"

    def first(self) -> int:
        """The last value that fits by the formulas; where they do not know, the goal's own."""
        if self._planned(0) is None:
            return self.goal.begin
        last = self._last_planned(0)
        if last < 0 and self.goal.too_little:
            return self.goal.begin  # the first values ask for more than there is
        return max(last, 0)

    def foretell(self, tries: Sequence[Try]) -> int | None:
        """The last index that fits: by the run, by two of them, or by the formulas put right."""
        last = tries[-1]
        if (
            last.index in self.runs
            and (told := self.goal.foretell(self.runs[last.index])) is not None
        ):
            return told
        if (crossing := _on_a_line(tries)) is not None:
            return crossing
        said = self._planned(last.index)
        if last.spare_bytes is None or said is None:
            return None
        return self._last_planned(last.spare_bytes - said)

    def prove(self, made: Try) -> str | None:
        """Why the next value does not fit."""
        return self.goal.prove(self.runs[made.index])

    def _planned(self, index: int) -> int | None:
        # Where too little is free, a value that asks for more of the GPU is no better.
        refused = "free below requested" not in self.goal.too_little
        return planned.spare_bytes(self.goal.request_of(index), refused=refused)

    def _last_planned(self, offset_bytes: int) -> int:
        """The last index that fits by the formulas, when they are wrong by so much everywhere."""
        low, high = -1, len(self.goal.values)
        while high - low > 1:
            middle = (low + high) // 2
            said = self._planned(middle)
            if said is not None and said + offset_bytes >= 0:
                low = middle
            else:
                high = middle
        return low

    def ended(self, found: Found) -> Fit:
        """The answer in the goal's words."""
        index, text = found.index, self.goal.text_of
        beyond = self.hopeless or found.beyond
        if index == len(self.goal.values) - 1:
            beyond = self.goal.beyond_last
        elif index is not None and beyond == NEXT_TRIED:
            beyond = self._beyond(index)
        run = self._nearest() if index is None else self.runs[index]
        return Fit(
            goal=self.goal,
            value=None if index is None else text(index),
            run=run,
            tries=tuple(self.tries),
            beyond=beyond,
            rising=None if found.rising is None else (text(found.rising[0]), text(found.rising[1])),
            starts_count=self.starts_count,
        )

    def _beyond(self, index: int) -> str:
        """What was said of the values that come next, up to one that does not fit."""
        text, why = self.goal.text_of, {each.value: each.why_not for each in self.tries}
        found = []
        for later in range(index + 1, len(self.goal.values)):
            run = self.runs.get(later)
            if run is not None:
                found.append(f"{text(later)} does not fit: {_shortly(run)}")
                break
            if why.get(text(later)) is None:
                break
            found.append(f"no engine for {text(later)}: {why[text(later)]}")
        return "; ".join(found) or NEXT_TRIED

    def _nearest(self) -> DryRun | None:
        """Of the runs that do not fit, the one in which least is missing."""
        told = [
            (spare, run) for run in self.runs.values() if (spare := spare_bytes(run)) is not None
        ]
        if told:
            return max(told, key=lambda each: each[0])[1]
        return next(iter(self.runs.values()), None)


def _shortly(run: DryRun) -> str:
    """Why a run does not fit."""
    refusal = run.refusal
    if refusal is None:
        return "it starts"
    by = "" if refusal.missing is None else f", {format_bytes(refusal.missing.bytes)} missing"
    how = " (reckoned from another run)" if run.origin == "interpolated" else ""
    return f"{refusal.kind}{by}{how}"


def _on_a_line(tries: Sequence[Try]) -> int | None:
    """Where nothing would be left, on a line through the two tries that came nearest to it.

    One from each side if there are: two on one side may be so near to each other that what is
    rounded between them says more than the line.
    """
    told = {each.index: each.spare_bytes for each in tries if each.spare_bytes is not None}
    if len(told) < 2:  # noqa: PLR2004 (a line)
        return None
    nearest = sorted(told, key=lambda index: abs(told[index]))
    other = [index for index in nearest if (told[index] < 0) != (told[nearest[0]] < 0)]
    low, high = sorted([nearest[0], (other or nearest[1:])[0]])
    falls = told[low] - told[high]
    return None if falls <= 0 else low + told[low] * (high - low) // falls
