"""What public logs tell of costs that no-op kernels do not show, and what follows for a card."""

from __future__ import annotations

import functools
import json
import statistics
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from memacct.cards import find_card
from memacct.cards.readings import Reading, reading_from

from .result import Amount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# From this many readings on their own spread is trusted; below it the truth may well be half of
# what was read, or double.
_ENOUGH = 3
_FEW_RATIO = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """For whom a cost is wanted.

    Attributes:
        card: its name in the catalogue; None where only a size was given.
        architecture: NVIDIA's name of its generation.
        driver: its branch, such as 580; None is not known, and taken for a recent one.
        vllm: its version as (major, minor); None for a recent one.
        nvlink: the GPUs are joined by it; None is not known.
        wsl: below Windows.
        stages: several GPUs work together, but share no layer.
    """

    card: str | None
    architecture: str | None
    driver: int | None = None
    vllm: tuple[int, int] | None = None
    nvlink: bool | None = None
    wsl: bool = False
    stages: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Versions from one on and before another; None has no such end."""

    first: tuple[int, ...] | None
    end: tuple[int, ...] | None

    def has(self, version: tuple[int, ...] | None) -> bool:
        """Whether a version is within; None is a recent one, beyond every end."""
        if version is None:
            return self.end is None
        return (self.first is None or self.first <= version) and (
            self.end is None or version < self.end
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReading:
    """One reading and where it holds; None: it says nothing of that."""

    reading: Reading
    card: str | None
    architecture: str | None
    nvlink: bool | None
    wsl: bool | None
    stages: bool | None
    architectures: tuple[str, ...]
    drivers: Span
    vllms: Span

    def holds(self, where: Where) -> bool:
        """Whether its conditions do not contradict `where`."""
        if self.nvlink is not None and where.nvlink is not None and self.nvlink != where.nvlink:
            return False
        if self.wsl is not None and self.wsl != where.wsl:
            return False
        if self.stages is not None and self.stages != where.stages:
            return False
        known = self.architectures and where.architecture
        if known and where.architecture not in self.architectures:
            return False
        driver = None if where.driver is None else (where.driver,)
        return self.drivers.has(driver) and self.vllms.has(where.vllm)


def amount_for(term: str, where: Where) -> Amount:
    """A cost with its range, from the readings nearest to `where`.

    The value is the median of the nearest group (this card's readings, else its generation's,
    else all), in which each card counts once. The range is the spread of the narrowest group with
    three readings or more; with fewer, or of other generations only, it goes from half to double.
    What no reading names a card for (it is the driver's) has no other generations.

    Raises:
        KeyError: no reading of that term.
    """
    if where.nvlink is None and any(each.nvlink is not None for each in _readings()[term]):
        return _either([amount_for(term, replace(where, nvlink=link)) for link in (False, True)])
    usable = [each for each in _readings()[term] if each.holds(where)]
    if not usable:
        return Amount(bytes=0, low_bytes=0, high_bytes=0, source="does not arise here")
    groups = _groups(usable, where)
    name, nearest = groups[0]
    value = _typical(nearest)
    low, high, spread = _range(groups)
    told = ", ".join(dict.fromkeys(each.reading.source for each in nearest))
    return Amount(
        bytes=value,
        low_bytes=min(low, value),
        high_bytes=max(high, value),
        source=f"{name}; range: {spread}; {told}",
    )


def _either(each: Sequence[Amount]) -> Amount:
    """What is one or the other: between them."""
    return Amount(
        bytes=sum(one.bytes for one in each) // len(each),
        low_bytes=min(one.low_bytes for one in each),
        high_bytes=max(one.high_bytes for one in each),
        source="without NVLink or with it: " + "; or ".join(one.source for one in each),
    )


def _groups(usable: Sequence[CostReading], where: Where) -> list[tuple[str, Sequence[CostReading]]]:
    """From the nearest to all, without empty ones."""
    card = [each for each in usable if each.card and each.card == where.card]
    generation = [
        each for each in usable if each.architecture and each.architecture == where.architecture
    ]
    named = [
        (_many(len(card), "this card"), card),
        (_many(len(generation), "its generation"), generation),
        (_many(len(usable), "any card"), usable),
    ]
    return [(name, group) for name, group in named if group]


def _many(count: int, whose: str) -> str:
    return f"{count} reading{'' if count == 1 else 's'} of {whose}"


def _range(groups: Sequence[tuple[str, Sequence[CostReading]]]) -> tuple[int, int, str]:
    """The least, the most, and how that was found."""
    by_card = any(each.card or each.architecture for each in groups[-1][1])
    near = not by_card or len(groups) > 1
    for name, group in groups:
        if len(group) >= _ENOUGH and (near or name == groups[-1][0]):
            low, high = _spread(group)
            if near:
                return low, high, f"the spread of {name}"
            return low // _FEW_RATIO, high * _FEW_RATIO, "half to double, none is of its generation"
    low, high = _spread(groups[-1][1])
    return low // _FEW_RATIO, high * _FEW_RATIO, f"half to double of {groups[-1][0]}"


def _typical(group: Sequence[CostReading]) -> int:
    """The median over cards of each card's median: one card with many readings is one card."""
    cards: dict[str, list[int]] = {}
    for each in group:
        cards.setdefault(each.card or each.reading.source, []).append(each.reading.size_bytes)
    return int(statistics.median(statistics.median(sizes) for sizes in cards.values()))


def _spread(group: Sequence[CostReading]) -> tuple[int, int]:
    low = min(each.reading.size_bytes - each.reading.precision_bytes for each in group)
    return max(low, 0), max(
        each.reading.size_bytes + each.reading.precision_bytes for each in group
    )


@functools.cache
def _readings() -> Mapping[str, tuple[CostReading, ...]]:
    text = resources.files(__package__).joinpath("costs.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return {
        term: tuple(_reading(each, data["sources"]) for each in found)
        for term, found in data["readings"].items()
    }


def _reading(values: Mapping[str, Any], sources: Mapping[str, str]) -> CostReading:
    card = find_card(values["card"]) if "card" in values else None
    if "card" in values and card is None:
        raise ValueError(f"costs.json: no such card: {values['card']}")
    return CostReading(
        reading=reading_from(values, sources),
        card=card.name if card else None,
        architecture=card.architecture if card else values.get("architecture"),
        nvlink=values.get("nvlink"),
        wsl=values.get("wsl"),
        stages=values.get("stages"),
        architectures=tuple(values.get("architectures", ())),
        drivers=_span(values, "driver"),
        vllms=_span(values, "vllm"),
    )


def _span(values: Mapping[str, Any], of: str) -> Span:
    first, end = (
        tuple(map(int, str(values[name]).split("."))) if name in values else None
        for name in (f"{of}_from", f"{of}_before")
    )
    return Span(first=first, end=end)
