"""What a timeline holds, as plain values: entries, the baseline's parts, the identity check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from memacct._types import DeviceDelta, HostDelta, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from memacct._core import HostMemory

# What an entry may tell besides: a number (its name says the unit) or a text.
Note = int | float | str
EntryKind = Literal["baseline", "checkpoint", "span_begin", "span_end", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselinePart:
    """One part of what was resident when a timeline started.

    ``kind`` is "interpreter" or a kind of mapping ("library", "file", "heap", "anon", "stack",
    ...); what lies in a file has a part a file, with its ``path``. Where mappings were not read:
    "anon", "file" or "shmem", whole.
    """

    kind: str
    path: str | None
    rss_bytes: int
    mappings_count: int | None  # None: mappings were not read

    @property
    def package(self) -> str | None:
        """The Python distribution folder that a library lies in, such as "numpy"; else None."""
        if self.path is None:
            return None
        for marker in ("/site-packages/", "/dist-packages/"):
            _, found, inside = self.path.rpartition(marker)
            folder, separator, _ = inside.partition("/")
            if found and separator:
                return folder
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What was resident when a timeline started.

    The parts are of the exact, per-mapping reading, and ``counter_lag_bytes`` is what the
    kernel's counter said less their sum: signed; how far the counter's batches lag, and what
    moved between the two readings. So, always:
    ``rss_bytes`` = sum of ``parts`` + ``counter_lag_bytes``.

    Where mappings were not read (a timeline that started by itself or in a forked child, from
    256 MiB on), the parts are the counter's own kinds, and the lag is not known: they sum up to
    ``rss_bytes`` alone.
    """

    rss_bytes: int
    parts: tuple[BaselinePart, ...]
    counter_lag_bytes: int | None

    @property
    def unexplained_bytes(self) -> int:
        """What the parts and the lag leave of ``rss_bytes``; 0 unless a part is lost."""
        parts_bytes = sum(part.rss_bytes for part in self.parts)
        return self.rss_bytes - parts_bytes - (self.counter_lag_bytes or 0)

    def by_kind(self) -> dict[str, int]:
        """Returns the resident bytes of each kind of part, largest first."""
        return _totals((part.kind, part.rss_bytes) for part in self.parts)

    def by_package(self) -> dict[str, int]:
        """Returns the libraries' resident bytes by package, or else path; largest first."""
        return _totals(
            (part.package or part.path or part.kind, part.rss_bytes)
            for part in self.parts
            if part.kind == "library"
        )


def _totals(items: Iterator[tuple[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for key, size_bytes in items:
        totals[key] = totals.get(key, 0) + size_bytes
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePoint:
    """A device, and torch's account of it, at one entry. See ``DeviceMemory`` for the terms."""

    uuid: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    device_used_bytes: int | None = None
    reserved_bytes: int | None = None
    own_bytes: int | None = None
    tree_bytes: int | None = None
    foreign_bytes: int | None = None
    unattributed_bytes: int | None = None
    allocator_reserved_bytes: int | None = None
    allocator_allocated_bytes: int | None = None
    non_torch_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One reading of a process at a named moment.

    Increments are those of the whole process: of threads that work at the same time, a
    timeline cannot tell whose they are.
    """

    index: int  # counted by the process; a number that is missing was lost
    kind: EntryKind
    name: str
    depth: int  # of open spans around it, of its thread or task
    span_index: int | None  # index of the "span_begin" that it is in, or that it ends
    thread_id: int  # the kernel's
    taken_ns: int  # CLOCK_MONOTONIC
    wall_ns: int  # since 1970; the process's clock at its start, and monotonic since
    host: HostMemory
    delta: HostDelta  # since the entry before it; of the first one, since itself
    since_baseline: HostDelta
    span_delta: HostDelta | None  # of a "span_end": of the whole span
    span_ns: int | None
    error: str | None  # of a "span_end": the exception that left the span
    garbage_count: int | None  # unreachable objects found; None: collection was not asked for
    devices: tuple[DevicePoint, ...] | None  # None: not asked for, or not readable
    now_bytes: int | None  # of an "end" or a check: resident memory by another reading (statm)
    notes: Mapping[str, Note] | None = None  # what was said of it besides, such as sizes

    @property
    def contradicts_itself(self) -> bool:
        """Whether its kinds of memory do not sum up, or exceed the peak; as far as known."""
        host = self.host
        kinds = (host.rss_anon_bytes, host.rss_file_bytes, host.rss_shmem_bytes)
        known = [kind for kind in kinds if kind is not None]
        if len(known) == len(kinds) and sum(known) != host.rss_bytes:
            return True
        return host.peak_rss_bytes is not None and host.rss_bytes > host.peak_rss_bytes

    def device_deltas(self, before: TimelineEntry) -> tuple[DeviceDelta, ...] | None:
        """Returns what changed on each device since another entry of this timeline."""
        return joined(self.devices, before.devices, DeviceDelta, DeviceDelta.between)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityCheck:
    """Whether baseline + increments = resident memory, as ``top`` shows it.

    The left side is summed up from the entries, by kind of memory where the kernel tells it;
    the right side is another reading of another file (``/proc/self/statm``).

    What it proves: the timeline begins with its baseline, whose parts (if known) and lag sum up
    to it; no entry between it and the last one is lost; in each entry the kinds of memory sum
    up to what is resident, which is no more than the process's peak; and the last one, with
    what came since, is what statm says. Entries hold absolute values, so sums of increments
    cancel out: that a value in the middle is right is shown by its own kinds and peak only,
    and with ``host="counters"``, which has neither, by nothing.
    """

    baseline_bytes: int
    increments_bytes: int
    since_last_bytes: int  # of the increments: since the last entry
    now_bytes: int
    problems: tuple[str, ...] = ()  # what is lost, or contradicts itself
    unkept_count: int = 0  # entries that this reader cannot see: they are in the file only

    @property
    def difference_bytes(self) -> int:
        """What the sum does not explain; 0 unless the process moved during the check."""
        return self.now_bytes - self.baseline_bytes - self.increments_bytes

    @property
    def holds(self) -> bool | None:
        """Whether both sides are equal, to the byte, and nothing is lost or contradictory.

        None: nothing speaks against it, but not all entries were there to be checked.
        """
        if self.difference_bytes != 0 or self.problems:
            return False
        return None if self.unkept_count else True

    def __str__(self) -> str:
        difference_bytes = self.difference_bytes
        verdict = f"off by {difference_bytes / 1024:+,.0f} KiB" if difference_bytes else "equal"
        if self.problems:
            verdict += f"; does not hold: {'; '.join(self.problems)}"
        if self.unkept_count:
            verdict += f"; {self.unkept_count} entries were not kept, nor checked"
        total = self.baseline_bytes + self.increments_bytes
        return (
            f"baseline {self.baseline_bytes / 1024:,.0f} + increments "
            f"{self.increments_bytes / 1024:,.0f} = {total / 1024:,.0f} KiB; "
            f"rss is {self.now_bytes / 1024:,.0f} KiB: {verdict}"
        )


def resident_change(delta: HostDelta) -> int:
    """Returns an increment as the sum of its kinds, where the kernel tells them apart."""
    kinds = (delta.rss_anon_bytes, delta.rss_file_bytes, delta.rss_shmem_bytes)
    known = [kind for kind in kinds if kind is not None]
    return sum(known) if len(known) == len(kinds) else delta.rss_bytes
