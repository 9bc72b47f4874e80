"""What a sampler has seen: tables of samples, peaks, and what its neighbours did meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from memacct._trace_events import (
    FOREIGN,
    ForeignEvent,
    Held,
    ProcessKey,
    ResidueTrend,
    Sample,
    foreign_events,
    residue_trend,
)
from memacct._units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from memacct._core import StreamCounts

Table = Literal["host", "devices", "processes"]

OWNERS = ("own", "tree", "foreign", "unknown")
ATTRIBUTIONS = ("pid", "nspid", "fingerprint", "broker", "allocator_bound", "none")
NOTE_KINDS = ("text", "device", "device_name", "error", "checkpoint", "gap")

# The columns that may be unknown, in the order of the bits of `known`.
MAYBE: dict[Table, tuple[str, ...]] = {
    "host": (
        *("shared_bytes", "rss_anon_bytes", "rss_file_bytes", "rss_shmem_bytes", "swap_bytes"),
        *("hugetlb_bytes", "locked_bytes", "pinned_bytes", "peak_rss_bytes"),
    ),
    "devices": (
        *("device_used_bytes", "reserved_bytes", "own_bytes", "tree_bytes", "foreign_bytes"),
        *("unattributed_bytes", "own_low_bytes", "own_high_bytes"),
    ),
    "processes": ("process_used_bytes", "start_ticks"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedDevice:
    """A device of a trace; its number in the tables is its place in ``Trace.device_list``."""

    uuid: str
    name: str
    index: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The most that was seen of something, and what is known of the true peak.

    Attributes:
        name: such as "rss_bytes" or "own_bytes".
        device: its UUID; None: of the host.
        sampled_bytes: the largest sample. A LOWER BOUND: what comes and goes between two
            samples is not seen.
        taken_ns: CLOCK_MONOTONIC of that sample.
        exact_bytes: the true peak, where the kernel kept it (VmHWM grew meanwhile); else None.
        upper_bytes: the true peak is not above this; None: no such bound is known.
    """

    name: str
    device: str | None
    sampled_bytes: int
    taken_ns: int
    exact_bytes: int | None = None
    upper_bytes: int | None = None

    def __str__(self) -> str:
        of = f"{self.name} of {self.device}" if self.device else self.name
        if self.exact_bytes is not None:
            return f"{of}: {format_bytes(self.exact_bytes)} (the kernel's own peak)"
        return f"{of}: at least {format_bytes(self.sampled_bytes)} (largest sample)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """The samples of a sampler: a copy, which later samples do not change.

    Attributes:
        host, devices, processes: read-only numpy structured arrays, each in order of time. In a
            column that may be unknown, ``known`` has a bit and an unknown value is all ones
            (the least int64 in ``unattributed_bytes``): use ``column()``, which masks it.
        device_list: the devices; the column ``device`` is a place in it.
        notes: (taken_ns, kind, number, value, text): errors, and gaps to keep to the budget.
        host_counts, device_counts: taken, missed, skipped and failed samples, times, rates.
        error_counts: failed readings by kind; `last_error` is the text of the last one.
        overwritten_count: records that the rings no longer held.
        peak_rss_before_bytes, peak_rss_after_bytes: VmHWM at the start and at the end.
    """

    host: npt.NDArray[np.void]
    devices: npt.NDArray[np.void]
    processes: npt.NDArray[np.void]
    device_list: tuple[TracedDevice, ...]
    notes: tuple[tuple[int, str, int, int, str], ...]
    host_counts: StreamCounts | None
    device_counts: StreamCounts | None
    error_counts: Mapping[str, int]
    last_error: str | None
    overwritten_count: int
    peak_rss_before_bytes: int | None = None
    peak_rss_after_bytes: int | None = None
    _samples: dict[int, tuple[Sample, ...]] = field(default_factory=dict, repr=False, compare=False)

    # ------------------------------------------------------------ tables

    def device_number(self, device: int | str) -> int:
        """Returns the place of a device in ``device_list``.

        Args:
            device: that place, a UUID or an unambiguous beginning of one.

        Raises:
            ValueError: there is no such device, or more than one; the message names them.
        """
        listed = [each.uuid for each in self.device_list]
        if isinstance(device, int) and not isinstance(device, bool) and 0 <= device < len(listed):
            return device
        found = [
            i
            for i, uuid in enumerate(listed)
            if isinstance(device, str) and device and uuid.startswith(device)
        ]
        if len(found) != 1:
            what = "ambiguous" if found else "not in the trace"
            raise ValueError(
                f"device {device!r} is {what}, which has {', '.join(listed) or 'none'}"
            )
        return found[0]

    def column(self, table: Table, name: str, device: int | str | None = None) -> Any:
        """Returns a column as a numpy masked array: what is unknown is masked.

        Args:
            table: "host", "devices" or "processes".
            name: of the column.
            device: only the rows of this one.
        """
        import numpy as np

        rows = getattr(self, table)
        if device is not None:
            rows = rows[rows["device"] == self.device_number(device)]
        maybe = MAYBE[table]
        mask: Any = False
        if name in maybe:
            mask = (rows["known"] >> maybe.index(name)) & 1 == 0
        return np.ma.MaskedArray(rows[name], mask=mask)

    @cached_property
    def names(self) -> dict[int, str]:
        """The processes' names by pid, as far as procfs told them; of the last with that pid."""
        named = self.processes[self.processes["name"] != b""]
        pairs = zip(named["pid"].tolist(), named["name"].tolist(), strict=True)
        return {pid: name.decode(errors="backslashreplace") for pid, name in dict(pairs).items()}

    @property
    def host_hz_in_effect(self) -> float | None:
        """Host samples a second, as they came: the median over the trace."""
        return _rate(self.host["taken_ns"])

    def device_hz_in_effect(self, device: int | str = 0) -> float | None:
        """Samples of a device a second, as they came; below what was asked for if it is slow."""
        return _rate(self.column("devices", "taken_ns", device).data)

    # ------------------------------------------------------------ peaks

    def peak_rss(self) -> Peak | None:
        """Returns this process's peak; None without a sample.

        The kernel keeps the peak of the process's whole life (VmHWM). If that grew during the
        trace, it is the trace's true peak; if not, it is an upper bound.
        """
        peak = self._peak("host", "rss_bytes", None)
        before, after = self.peak_rss_before_bytes, self.peak_rss_after_bytes
        if peak is None or before is None or after is None or after < before:
            return peak  # it is unknown, or was reset meanwhile (clear_refs)
        return Peak(
            name=peak.name,
            device=None,
            sampled_bytes=peak.sampled_bytes,
            taken_ns=peak.taken_ns,
            exact_bytes=max(after, peak.sampled_bytes) if after > before else None,
            upper_bytes=max(after, peak.sampled_bytes),
        )

    def peaks(self) -> tuple[Peak, ...]:
        """Returns the peaks of rss and of each device's terms, as far as they are known."""
        terms = ("device_used_bytes", "own_bytes", "tree_bytes", "foreign_bytes")
        found = [self.peak_rss()]
        for number in range(len(self.device_list)):
            found += [self._peak("devices", name, number) for name in terms]
        return tuple(peak for peak in found if peak is not None)

    def _peak(self, table: Table, name: str, device: int | None) -> Peak | None:
        values = self.column(table, name, device)
        if values.count() == 0:
            return None
        place = int(values.argmax())
        return Peak(
            name=name,
            device=None if device is None else self.device_list[device].uuid,
            sampled_bytes=int(values[place]),
            taken_ns=int(self.column(table, "taken_ns", device)[place]),
        )

    # ------------------------------------------------------------ neighbours

    def foreign_events(
        self, device: int | str = 0, *, min_bytes: int | str = 0
    ) -> tuple[ForeignEvent, ...]:
        """Returns who else moved on a device, when and by how much.

        The changes sum up to that of ``foreign_bytes`` from the first to the last sample in
        which it is known, to the byte. Samples in which it is not are passed over.

        Args:
            device: its place in ``device_list`` or its UUID.
            min_bytes: smaller moves of a process are added up until they are as large.
        """
        return tuple(foreign_events(self._device_samples(device), parse_bytes(min_bytes)))

    def residue_trend(
        self,
        device: int | str = 0,
        *,
        reserved: Sequence[tuple[int, int]] = (),
        windows_count: int = 24,
        alarm_bytes_per_hour: int | str = "64MiB",
    ) -> ResidueTrend:
        """Returns whether the floor of this process's own device memory grows.

        Args:
            device: its place in ``device_list`` or its UUID.
            reserved: (taken_ns, bytes) that its caching allocator held, which are taken off.
            windows_count: how many windows the trace is divided into.
            alarm_bytes_per_hour: growth that is too much.

        Raises:
            ValueError: ``windows_count`` is below 2.
        """
        if windows_count < 2:  # noqa: PLR2004 (a slope needs two)
            raise ValueError(f"windows_count={windows_count!r} must be 2 or more")
        own = self.column("devices", "own_bytes", device)
        times = self.column("devices", "taken_ns", device)
        known = ~own.mask if own.mask is not False else slice(None)
        return residue_trend(
            list(zip(times.data[known].tolist(), own.data[known].tolist(), strict=True)),
            reserved=reserved,
            windows_count=windows_count,
            alarm_bytes_per_hour=parse_bytes(alarm_bytes_per_hour),
        )

    def _device_samples(self, device: int | str) -> tuple[Sample, ...]:
        number = self.device_number(device)
        if number not in self._samples:
            self._samples[number] = tuple(self._find_samples(number))
        return self._samples[number]

    def _find_samples(self, number: int) -> Iterator[Sample]:
        import numpy as np

        listed = self.processes[self.processes["device"] == number]
        times = listed["taken_ns"]
        readings = self.devices[self.devices["device"] == number]
        foreign = self.column("devices", "foreign_bytes", number)
        for row, expected in zip(readings, foreign, strict=True):
            if expected is np.ma.masked:
                continue
            rows = listed[
                np.searchsorted(times, row["taken_ns"], "left") : np.searchsorted(
                    times, row["taken_ns"], "right"
                )
            ]
            processes = dict(_process(each) for each in rows)
            # Of a recording that was cut off, the last reading's list may not be whole.
            if (
                sum(
                    held.process_used_bytes or 0
                    for held in processes.values()
                    if held.owner == FOREIGN
                )
                == expected
            ):
                yield Sample(int(row["taken_ns"]), int(row["span_ns"]), processes)

    # ------------------------------------------------------------ plain data

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as a dict that JSON can hold; unknown is None."""
        return {
            "device_list": [
                {"uuid": d.uuid, "name": d.name, "index": d.index} for d in self.device_list
            ],
            **{table: list(self._plain_rows(table)) for table in MAYBE},
            "notes": [list(note) for note in self.notes],
            "host_counts": None if self.host_counts is None else self.host_counts.to_dict(),
            "device_counts": None if self.device_counts is None else self.device_counts.to_dict(),
            "error_counts": dict(self.error_counts),
            "last_error": self.last_error,
            "overwritten_count": self.overwritten_count,
            "peak_rss_before_bytes": self.peak_rss_before_bytes,
            "peak_rss_after_bytes": self.peak_rss_after_bytes,
        }

    def _plain_rows(self, table: Table) -> Iterator[dict[str, Any]]:
        rows = getattr(self, table)
        columns = [name for name in rows.dtype.names if name != "known"]
        values = {name: self.column(table, name).tolist() for name in columns}
        if table == "devices":
            values["attribution"] = [
                ATTRIBUTIONS[i] if i < len(ATTRIBUTIONS) else None for i in values["attribution"]
            ]
        if table == "processes":
            values["owner"] = [OWNERS[i] for i in values["owner"]]
            values["name"] = [name.decode(errors="backslashreplace") for name in values["name"]]
        return (dict(zip(columns, row, strict=True)) for row in zip(*values.values(), strict=True))


def _process(row: Any) -> tuple[ProcessKey, Held]:
    known = int(row["known"])
    start_ticks = int(row["start_ticks"]) if known & 2 else None
    return ProcessKey(int(row["pid"]), start_ticks), Held(
        owner=int(row["owner"]),
        process_used_bytes=int(row["process_used_bytes"]) if known & 1 else None,
        name=row["name"].decode(errors="backslashreplace"),
    )


def _rate(taken_ns: Any) -> float | None:
    import numpy as np

    if len(taken_ns) < 2:  # noqa: PLR2004 (an interval needs two)
        return None
    return float(1e9 / np.median(np.diff(taken_ns)))


def trace_of(native: dict[str, Any], **others: Any) -> Trace:
    """Returns the trace of the native tables (``rows()`` of a sampler, or of a recording)."""
    return Trace(
        host=native["host"],
        devices=native["devices"],
        processes=native["processes"],
        notes=tuple(
            (when, NOTE_KINDS[kind], number, value, text)
            for when, kind, number, value, text in native["notes"]
        ),
        overwritten_count=native["overwritten_count"],
        **others,
    )
