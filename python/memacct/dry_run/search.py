"""Finds the last value that an engine starts with, by as few starts as possible.

Values stand in the order in which they ask for more, so those that fit come first, and often begin
after some that ask for too much of another kind (a utilization above what is free). A start says
whether its value fits, and which way to go if not; what it says of memory lets the next value be
foretold. The search ends when a value fits and the one after it is known not to. Memory that does
not fall along the values is noticed, and values beyond the answer are then tried as well.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Outcome = Literal["fits", "too much", "too little", "cannot"]
# Rounding of allocators, by which memory may rise without meaning anything.
_SLACK_BYTES = 64 << 20
_TRUSTED_TRIES = 6
_MORE_TRIES = 3  # beyond an answer that cannot be trusted to be the last
#: Why nothing better fits, where that was asked.
NEXT_TRIED = "the next one was tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One value that was asked about.

    Attributes:
        index: of the value.
        outcome: "too much" and "too little": it asks for; "cannot": no engine for this value.
        spare_bytes: what is left beyond one request; negative where that is missing; None unknown.
    """

    index: int
    outcome: Outcome
    spare_bytes: int | None = None


@dataclass(slots=True)
class Known:
    """What is known so far.

    Attributes:
        count: of the values.
        tries: in their order.
    """

    count: int
    tries: list[Try] = field(default_factory=list)

    @property
    def last_fit(self) -> int | None:
        """The greatest index that fits."""
        return max((each.index for each in self.tries if each.outcome == "fits"), default=None)

    @property
    def below(self) -> int:
        """The greatest index that fits or asks for too little; -1 before there is one."""
        good = {"fits", "too little"}
        return max((each.index for each in self.tries if each.outcome in good), default=-1)

    @property
    def above(self) -> int:
        """The least index after `below` that asks for too much; the count before there is one."""
        return min(
            (
                each.index
                for each in self.tries
                if each.outcome == "too much" and each.index > self.below
            ),
            default=self.count,
        )

    @property
    def cannot(self) -> frozenset[int]:
        """Indices for which there is no engine."""
        return frozenset(each.index for each in self.tries if each.outcome == "cannot")

    def candidates(self) -> range:
        """Indices of which nothing is known yet, those that cannot be among them."""
        return range(self.below + 1, self.above)

    def rising(self) -> tuple[int, int] | None:
        """Two indices between which more is left although more is asked for."""
        told = sorted(
            (each.index, each.spare_bytes)
            for each in self.tries
            # What asks for too little, or finds too little free, is better off with less.
            if each.spare_bytes is not None and each.outcome != "too little"
        )
        for (low, before), (high, after) in itertools.pairwise(told):
            if high > low and after > before + _SLACK_BYTES:
                return low, high
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a search ended.

    Attributes:
        index: of the last value that fits; None: none does.
        tries: all that was asked, in order.
        beyond: why the next value does not fit: its own try, a proof, or the end of the values.
        rising: see `Known.rising`; the answer is then only the last of those that were tried.
    """

    index: int | None
    tries: tuple[Try, ...]
    beyond: str
    rising: tuple[int, int] | None = None


def find_last(
    count: int,
    ask: Callable[[int], Try],
    *,
    first: int,
    foretell: Callable[[Sequence[Try]], int | None],
    prove: Callable[[Try], str | None] = lambda _: None,
) -> Found:
    """Finds the last of `count` values that fits.

    Args:
        count: of the values.
        ask: tries one; an engine is started unless it is known otherwise.
        first: the index to begin with.
        foretell: the last index that fits, by what is known; None where that tells nothing.
        prove: why the value after one that fits does not fit; None where only a try can tell.
    """
    known = Known(count)
    candidate: int | None = min(max(first, 0), count - 1)
    step = 1
    while candidate is not None:
        made = ask(candidate)
        known.tries.append(made)
        if made.outcome == "fits" and (told := prove(made)) is not None:
            return _ended(known, ask, told)
        candidate, step = _next(known, foretell, step)
    last = known.last_fit
    end = "it is the last there is" if last == count - 1 else NEXT_TRIED
    return _ended(known, ask, end if last is not None else "none fits")


def _next(
    known: Known, foretell: Callable[[Sequence[Try]], int | None], step: int
) -> tuple[int | None, int]:
    """The next index to try, and how far to step when nothing is foretold."""
    free = [each for each in _ends(known) if each not in known.cannot]
    if not free:
        return None, step
    low, high = free[0], free[-1]
    wanted, step = _wanted(known, foretell(known.tries), step)
    return _nearest(known, min(max(wanted, low), high)), step


def _wanted(known: Known, told: int | None, step: int) -> tuple[int, int]:
    """What is foretold; where that is known to be wrong, growing steps from it; or the middle."""
    width, tries = known.above - known.below, len(known.tries)
    middle = (known.below + known.above) // 2
    if told is None:
        return middle, step
    if known.below < told < known.above:
        # It may be wrong again and again: from some point on every second try halves.
        return (middle if tries >= _TRUSTED_TRIES and tries % 2 else told), step
    if 2 * step >= width:
        return middle, step
    # It says: no more than what fits already; or all of them, though one is known not to fit.
    return (known.below + step if told <= known.below else known.above - step), step * 2


def _ends(known: Known) -> Sequence[int]:
    """The candidates that can be asked: of long rows only the ends."""
    open_ = known.candidates()
    if len(open_) <= len(known.cannot) + 1:
        return [each for each in open_ if each not in known.cannot]
    low = next(each for each in open_ if each not in known.cannot)
    high = next(each for each in reversed(open_) if each not in known.cannot)
    return [low, high]


def _nearest(known: Known, wanted: int) -> int:
    """The candidate next to an index of which it is known that there is no engine for it."""
    open_, cannot = known.candidates(), known.cannot
    for distance in range(len(open_) + 1):
        for index in (wanted + distance, wanted - distance):
            if index in open_ and index not in cannot:
                return index
    raise AssertionError("there is a candidate")  # by the caller


def _ended(known: Known, ask: Callable[[int], Try], beyond: str) -> Found:
    """The answer; where memory rises along the values, after a look beyond it."""
    rising = known.rising()
    if rising is not None:
        _look_beyond(known, ask)
    return Found(
        index=known.last_fit, tries=tuple(known.tries), beyond=beyond, rising=known.rising()
    )


def _look_beyond(known: Known, ask: Callable[[int], Try]) -> None:
    """Tries the middles of the widest gaps beyond the last value that fits."""
    for _ in range(_MORE_TRIES):
        start = -1 if known.last_fit is None else known.last_fit
        tried = sorted({each.index for each in known.tries if each.index > start} | {start})
        edges = [*tried, known.count]
        width, low = max((high - low, low) for low, high in itertools.pairwise(edges))
        if width < 2:  # noqa: PLR2004 (neighbours: nothing between)
            return
        known.tries.append(ask(low + width // 2))
