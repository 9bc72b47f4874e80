"""What a recording holds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memacct._trace_events import ForeignEvent

#: Of the file; docs/run-file.md says what the records are.
SCHEMA = 1

#: In the order of the columns of a sample's ``host`` rows, after the process's number.
HOST_TERMS = (
    "rss_bytes",
    "rss_anon_bytes",
    "rss_file_bytes",
    "rss_shmem_bytes",
    "swap_bytes",
    "peak_rss_bytes",
    "pss_bytes",
    "uss_bytes",
)
#: Of a device's reading.
DEVICE_TERMS = (
    "total_bytes",
    "free_bytes",
    "device_used_bytes",
    "reserved_bytes",
    "own_bytes",
    "tree_bytes",
    "foreign_bytes",
    "unattributed_bytes",
)
#: Besides, where a GPU's memory is the machine's.
UNIFIED_TERMS = ("page_cache_bytes", "host_processes_bytes", "withheld_bytes")

State = Literal["finished", "died", "running"]


class HostPoint(NamedTuple):
    """A process's host memory from ``at_ns`` on; None: not known."""

    at_ns: int
    rss_bytes: int | None
    rss_anon_bytes: int | None
    rss_file_bytes: int | None
    rss_shmem_bytes: int | None
    swap_bytes: int | None
    peak_rss_bytes: int | None
    pss_bytes: int | None
    uss_bytes: int | None

    @property
    def counted_bytes(self) -> int | None:
        """What is stacked: pss, which counts a shared page once, or else rss."""
        return self.rss_bytes if self.pss_bytes is None else self.pss_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProcess:
    """A process of the recorded tree.

    Attributes:
        number: its place in ``Run.processes``.
        first_ns, ended_ns: of the first sample that has it, and of the first that no longer
            does; ``ended_ns`` is None if the last sample has it still.
        points: in order of time; each holds until the next.
    """

    number: int
    pid: int
    start_ticks: int
    parent_pid: int
    depth: int
    name: str
    title: str
    role: str | None
    rank: str | None
    first_ns: int
    ended_ns: int | None
    points: tuple[HostPoint, ...]


class ListedProcess(NamedTuple):
    """A process in the driver's list; ``number`` is its place in ``Run.processes``, if there."""

    pid: int
    process_used_bytes: int | None
    owner: str
    number: int | None


class DevicePoint(NamedTuple):
    """A device from ``at_ns`` on: the terms of the equation, and who is listed."""

    at_ns: int
    span_ns: int
    consistent: bool
    terms: Mapping[str, int | None]
    processes: tuple[ListedProcess, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDevice:
    """A GPU or MIG instance that was watched.

    Attributes:
        points: in order of time; each holds until the next.
        events: what neighbours did, from sample to sample.
    """

    number: int
    uuid: str
    index: int | None
    name: str
    parent_uuid: str | None
    points: tuple[DevicePoint, ...]
    events: tuple[ForeignEvent, ...]


class MachinePoint(NamedTuple):
    """The machine and the recorder's control group at ``at_ns``, as plain data."""

    at_ns: int
    machine: Mapping[str, Any]
    cgroup: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A recording, as far as it was written.

    Attributes:
        source: the file.
        header: its first record: command, host, versions, clock origin, rates.
        driver: what was said of the GPUs: ``driver_version``, and ``reason`` if there is none.
        samples_ns: CLOCK_MONOTONIC of each sample.
        names: of the foreign processes by pid.
        errors: records of readings that failed, each cause once.
        end: the last record of a recording that ended by itself; None: it did not, or not yet.
        state: "finished", "died" (its recorder was killed) or "running".
        torn_bytes: at the end of the file, of a record that was written half.
    """

    source: str
    header: Mapping[str, Any]
    driver: Mapping[str, Any]
    samples_ns: tuple[int, ...]
    processes: tuple[RunProcess, ...]
    devices: tuple[RunDevice, ...]
    machine: tuple[MachinePoint, ...]
    names: Mapping[int, str]
    errors: tuple[Mapping[str, Any], ...]
    end: Mapping[str, Any] | None
    state: State
    torn_bytes: int

    @property
    def origin_ns(self) -> int:
        """CLOCK_MONOTONIC at which the command was started, or watching began."""
        return int(self.header["clock"]["monotonic_ns"])

    @property
    def last_ns(self) -> int:
        """CLOCK_MONOTONIC of the last thing that is known."""
        ends = [] if self.end is None else [int(self.end["at_ns"])]
        return max([self.origin_ns, *self.samples_ns[-1:], *ends])

    def wall_ns(self, at_ns: int) -> int:
        """Returns a moment as nanoseconds since 1970, by the clocks at the start."""
        return int(self.header["clock"]["wall_ns"]) + at_ns - self.origin_ns
