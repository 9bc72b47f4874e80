"""The timelines of processes, as far as they got: one, and several merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._printable import printable
from memacct._timeline_text import render_entries, render_merged, verdict
from memacct._timeline_types import Baseline, IdentityCheck, TimelineEntry, resident_change
from memacct._types import HostDelta

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct._core import HostMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRecord:
    """The timeline of one process, as far as it got; ``str()`` is a table."""

    id: str
    parent_id: str | None  # of the timeline that a fork went on from
    pid: int
    start_ticks: int | None  # of the process; tells two processes of one pid apart
    machine: str
    command: str
    name: str | None  # the role that it was given
    started_ns: int  # CLOCK_MONOTONIC
    started_wall_ns: int
    baseline: Baseline | None  # None: its parts were not asked for or not known
    entries: tuple[TimelineEntry, ...]  # by time
    lost_count: int  # entries that were counted and are not here, but for those at the end
    unkept_count: int = 0  # entries beyond those that memory keeps; not in lost_count
    parent_pid: int | None = None  # of the process that started this one, then

    @property
    def increments_bytes(self) -> int:
        """The sum of the increments, each of which is that of its kinds of memory."""
        return sum(resident_change(entry.delta) for entry in self.entries)

    def identity(self) -> IdentityCheck | None:
        """Returns the last check that the process made, mostly at its end; None if it made none."""
        found = None
        increments_bytes = 0
        for entry in self.entries:
            increments_bytes += resident_change(entry.delta)
            if entry.now_bytes is not None:
                found = IdentityCheck(
                    baseline_bytes=self.entries[0].host.rss_bytes,
                    increments_bytes=increments_bytes,
                    since_last_bytes=0,
                    now_bytes=entry.now_bytes,
                    problems=tuple(self._problems()),
                    unkept_count=self.unkept_count,
                )
        return found

    def _problems(self) -> Iterator[str]:
        first = self.entries[0]
        if first.kind != "baseline" or first.index != 0:
            yield "the baseline is lost"
        if self.lost_count:
            yield f"{self.lost_count} entries are lost"
        baseline = self.baseline
        if baseline is not None and baseline.unexplained_bytes:
            yield f"the baseline's parts are off by {baseline.unexplained_bytes} bytes"
        wrong = [entry for entry in self.entries if entry.contradicts_itself]
        if wrong:
            more = f" and {len(wrong) - 1} more" if wrong[1:] else ""
            yield f"entry {wrong[0].index}{more} contradicts itself"

    def check_against(self, reading: HostMemory, now_bytes: int) -> IdentityCheck:
        """Returns the check of these entries, and what came after them, with ``now_bytes``.

        Args:
            reading: of the process, after its last entry.
            now_bytes: its resident memory then, by another reading.
        """
        last = HostDelta.between(reading, self.entries[-1].host)
        since_last_bytes = resident_change(last)
        return IdentityCheck(
            baseline_bytes=self.entries[0].host.rss_bytes,
            increments_bytes=self.increments_bytes + since_last_bytes,
            since_last_bytes=since_last_bytes,
            now_bytes=now_bytes,
            problems=tuple(self._problems()),
            unkept_count=self.unkept_count,
        )

    @property
    def title(self) -> str:
        """Who it is of."""
        role = f"{self.name}, " if self.name else ""
        return printable(f"process {self.pid} ({role}{self.command} on {self.machine})")

    def __str__(self) -> str:
        return self.text(self.identity())

    def text(self, check: IdentityCheck | None) -> str:
        """Returns the table, with ``check`` below it."""
        lost = f"\n{self.lost_count} entries were lost" if self.lost_count else ""
        if self.unkept_count:
            lost += f"\n{self.unkept_count} entries were not kept in memory"
        table = render_entries(self.entries, self.baseline, check, self.started_ns)
        return f"{self.title}\n{table}{lost}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedTimeline:
    """The timelines of several processes; ``str()`` is one table, by wall time."""

    records: tuple[TimelineRecord, ...]  # by start
    torn_count: int  # lines that were written half, and dropped

    @property
    def entries(self) -> tuple[tuple[TimelineRecord, TimelineEntry], ...]:
        """Every entry with its process, by wall time.

        The entries of one process keep their order, even if the clock was set meanwhile: its
        wall clock is read once, at the start, and the monotonic clock is added to it.
        """
        pairs = [(record, entry) for record in self.records for entry in record.entries]
        return tuple(sorted(pairs, key=lambda pair: pair[1].wall_ns))

    def __str__(self) -> str:
        start_ns = min((record.started_wall_ns for record in self.records), default=0)
        rows = [(record.pid, entry) for record, entry in self.entries]
        lines = [record.title for record in self.records]
        lines.append(render_merged(rows, start_ns))
        lines += [f"{record.pid}: {verdict(record.identity())}" for record in self.records]
        if self.torn_count:
            lines.append(f"{self.torn_count} lines were written half, and are left out")
        return "\n".join(lines)
