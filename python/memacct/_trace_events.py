"""What the samples of a trace tell: who moved on a device, and whether something leaks."""

from __future__ import annotations

import bisect
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from memacct._units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

FOREIGN = 2  # of the column `owner`: own, tree, foreign, unknown

EventKind = Literal["appear", "grow", "shrink", "exit", "reclassified"]

_NS_PER_HOUR = 3600 * 10**9


class ProcessKey(NamedTuple):
    """A process: its number may be given to another, its start not."""

    pid: int
    start_ticks: int | None


class Held(NamedTuple):
    """What a process held in one sample, and whose it is."""

    owner: int
    process_used_bytes: int | None
    name: str


class Sample(NamedTuple):
    """One reading of a device, with all who were listed."""

    taken_ns: int
    span_ns: int
    processes: Mapping[ProcessKey, Held]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignEvent:
    """A neighbour's move, as far as samples can tell.

    Attributes:
        kind: "appear" and "exit" of its memory on the device, "grow", "shrink", or
            "reclassified": it is the same, but belongs to this process's tree now, or no longer.
        pid: as the driver numbers it.
        name: as in ``/proc/<pid>/comm``; "" if procfs does not have it under that number.
        change_bytes: by how much the foreign memory changed; signed.
        before_bytes: what of it was foreign before; 0: nothing.
        after_bytes: and afterwards.
        after_ns: CLOCK_MONOTONIC: it happened later than this,
        before_ns: and earlier than this. It may have been several moves.
    """

    kind: EventKind
    pid: int
    name: str
    change_bytes: int
    before_bytes: int
    after_bytes: int
    after_ns: int
    before_ns: int

    def __str__(self) -> str:
        sign = "+" if self.change_bytes > 0 else ""
        return f"pid {self.pid} ({self.name or '?'}) {self.kind} {sign}" + format_bytes(
            self.change_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What was last told of a process, so what the next event of it is compared with."""

    foreign_bytes: int
    foreign: bool | None  # None: it was not listed
    since_ns: int

    @staticmethod
    def at(held: Held, sample: Sample) -> _Told:
        return _Told(
            foreign_bytes=foreign_bytes_of(held),
            foreign=held.owner == FOREIGN,
            since_ns=sample.taken_ns,
        )


def foreign_bytes_of(held: Held | None) -> int:
    """Returns what counts as foreign of a process in a sample; 0 if it is not listed."""
    if held is None or held.owner != FOREIGN:
        return 0
    return held.process_used_bytes or 0


def foreign_events(samples: Iterable[Sample], min_bytes: int) -> Iterator[ForeignEvent]:
    """Yields the moves between samples; their sum is the change of foreign memory over all.

    Args:
        samples: in the order in which they were taken; of each it is known what all foreign
            processes held.
        min_bytes: smaller moves of a process are added up until they are as large; what is
            left of them at the end is one event of each process.
    """
    moves = ForeignMoves(min_bytes)
    for sample in samples:
        yield from moves.step(sample)
    yield from moves.rest()


class ForeignMoves:
    """``foreign_events()`` sample by sample, for who watches and cannot wait for the last one.

    Args:
        min_bytes: smaller moves of a process are added up until they are as large.
    """

    def __init__(self, min_bytes: int) -> None:
        self._min_bytes = max(min_bytes, 1)
        self._told: dict[ProcessKey, _Told] = {}
        self._last: Sample | None = None

    def step(self, sample: Sample) -> Iterator[ForeignEvent]:
        """Yields the moves since the sample before; none of the first."""
        last, self._last = self._last, sample
        if last is None:
            self._told = {key: _Told.at(held, sample) for key, held in sample.processes.items()}
        else:
            yield from _moves(self._told, last, sample, self._min_bytes)

    def rest(self) -> Iterator[ForeignEvent]:
        """Yields what is left of smaller moves."""
        if self._last is not None:
            yield from _moves(self._told, self._last, self._last, 1)


def _moves(
    told: dict[ProcessKey, _Told], last: Sample, sample: Sample, min_bytes: int
) -> Iterator[ForeignEvent]:
    # Those that left first: what an exit frees is what another takes.
    gone = [key for key in told if key not in sample.processes]
    for key in (*gone, *sorted(sample.processes)):
        held = sample.processes.get(key)
        now = foreign_bytes_of(held)
        before = told.get(key) or _Told(foreign_bytes=0, foreign=None, since_ns=last.taken_ns)
        if now == before.foreign_bytes:
            # Nothing is pending, so the next move is later than this sample.
            if held is not None:
                told[key] = _Told.at(held, sample)
            elif before.foreign_bytes == 0:
                told.pop(key, None)
            continue
        told.setdefault(key, before)
        if abs(now - before.foreign_bytes) < min_bytes:
            continue
        yield _event(key, before, held, last, sample)
        if held is None:
            del told[key]
        else:
            told[key] = _Told.at(held, sample)


def _event(
    key: ProcessKey, before: _Told, held: Held | None, last: Sample, sample: Sample
) -> ForeignEvent:
    now = foreign_bytes_of(held)
    kind: EventKind = "grow" if now > before.foreign_bytes else "shrink"
    if held is None:
        kind = "exit"
    elif before.foreign is None:
        kind = "appear"
    elif before.foreign != (held.owner == FOREIGN):
        kind = "reclassified"
    named = held or last.processes.get(key)
    return ForeignEvent(
        kind=kind,
        pid=key.pid,
        name=named.name if named else "",
        change_bytes=now - before.foreign_bytes,
        before_bytes=before.foreign_bytes,
        after_bytes=now,
        after_ns=before.since_ns,
        before_ns=sample.taken_ns + sample.span_ns,
    )


# ---------------------------------------------------------------- what stays behind


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidueTrend:
    """Whether what a process cannot give back grows: the floor of its own device memory.

    An engine that sleeps and wakes goes up and down; what it holds at its lowest, over and over,
    is what it does not give back. That floor is the least in each of several equal windows.

    Attributes:
        floors: of each window with samples: when its least was seen (ns), and how much (bytes).
        slope_bytes_per_hour: the median of the slopes between any two floors, so that one odd
            window does not matter; None with fewer than two.
        alarm_bytes_per_hour: the slope that is too much.
        samples_count: in which own memory was known.
    """

    floors: tuple[tuple[int, int], ...]
    slope_bytes_per_hour: float | None
    alarm_bytes_per_hour: int
    samples_count: int

    @property
    def change_bytes(self) -> int | None:
        """From the first floor to the last."""
        return self.floors[-1][1] - self.floors[0][1] if len(self.floors) > 1 else None

    @property
    def alarm(self) -> bool:
        """True if it grows as fast as the alarm's slope, and is higher than it was."""
        return (
            self.slope_bytes_per_hour is not None
            and self.slope_bytes_per_hour >= self.alarm_bytes_per_hour
            and (self.change_bytes or 0) > 0
        )


def residue_trend(
    own: Sequence[tuple[int, int]],
    *,
    reserved: Sequence[tuple[int, int]],
    windows_count: int,
    alarm_bytes_per_hour: int,
) -> ResidueTrend:
    """Returns the trend of (taken_ns, bytes) points, in order of time, less what is reserved.

    Args:
        own: what the process held.
        reserved: what its caching allocator had then, which it could give back: each holds until
            the next. Points before the first are left out, if there is any.
        windows_count: how many windows the time is divided into.
        alarm_bytes_per_hour: the slope that is too much.
    """
    points = list(_residues(own, sorted(reserved))) if reserved else list(own)
    floors = _floors(points, windows_count)
    slopes = [
        (b - a) * _NS_PER_HOUR / (later - earlier)
        for i, (earlier, a) in enumerate(floors)
        for later, b in floors[i + 1 :]
    ]
    return ResidueTrend(
        floors=tuple(floors),
        slope_bytes_per_hour=statistics.median(slopes) if slopes else None,
        alarm_bytes_per_hour=alarm_bytes_per_hour,
        samples_count=len(points),
    )


def _residues(
    own: Sequence[tuple[int, int]], reserved: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    times = [when for when, _ in reserved]
    for when, held in own:
        place = bisect.bisect_right(times, when)
        if place > 0:
            yield when, held - reserved[place - 1][1]


def _floors(points: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    if not points:
        return []
    start = points[0][0]
    width = max(1, -(-(points[-1][0] + 1 - start) // count))
    lowest: dict[int, Any] = {}
    for when, held in points:
        window = (when - start) // width
        if window not in lowest or held < lowest[window][1]:
            lowest[window] = (when, held)
    return [lowest[window] for window in sorted(lowest)]
