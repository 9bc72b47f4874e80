"""One test's call under its limits: two readings, and what they say of it."""

from __future__ import annotations

import gc
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct._errors import ConfigError, MemacctError
from memacct._measure import measure
from memacct._units import parse_bytes
from memacct.report.growth import GrowthRow, growth_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from memacct._measure import Measurement

# A peak below the process's earlier ones is only seen by sampling.
_PEAK_HZ = 200.0
_HOST_TERMS = ("rss", "rss_anon", "rss_file", "rss_shmem", "swap", "hugetlb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a test may take; None: as much as it likes.

    Attributes:
        max_rss_growth: of resident memory, over the call, in bytes.
        max_rss_peak: the most resident memory of the whole process meanwhile, in bytes.
        max_device_growth: of the GPU memory of the process and its descendants, in bytes.
        gc: collect garbage before both readings.
    """

    max_rss_growth: int | None = None
    max_rss_peak: int | None = None
    max_device_growth: int | None = None
    gc: bool = False


def parse_limits(marks: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> Limits:
    """Returns the limits of all markers of a test; a later one's stand.

    Raises:
        ConfigError: an argument is not known or not allowed; the message names it.
    """
    names = [field.name for field in fields(Limits)]
    given: dict[str, Any] = {}
    for args, kwargs in marks:
        if args:
            raise ConfigError(f"{args[0]!r} needs a name: one of {', '.join(names)}")
        for name, value in kwargs.items():
            if name not in names:
                raise ConfigError(f"there is no argument {name!r}; there are {', '.join(names)}")
            given[name] = _parsed(name, value)
    return Limits(**given)


def _parsed(name: str, value: Any) -> int | bool | None:
    if name == "gc":
        if not isinstance(value, bool):
            raise ConfigError(f"gc={value!r} is not True or False")
        return value
    try:
        return None if value is None else parse_bytes(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


class Watch:
    """Reads before and after a call.

    Attributes:
        unknown: why a limit cannot be checked on this machine; None: it can.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._measured: Measurement | None = None
        self._devices_before: dict[str, int | None] = {}
        self._devices_after: dict[str, int | None] = {}
        self.unknown: str | None = None

    def start(self) -> None:
        """Takes the first reading."""
        limits = self._limits
        if limits.max_device_growth is not None:
            self._devices_before, self.unknown = _read_devices()
        sample_hz = None if limits.max_rss_peak is None else _PEAK_HZ
        measured = measure("the call", sample_hz=sample_hz, devices=None)
        if limits.gc:
            gc.collect()
        self._measured = measured.__enter__()

    def stop(self) -> None:
        """Takes the last one."""
        assert self._measured is not None  # noqa: S101 (start() comes first)
        if self._limits.gc:
            gc.collect()
        self._measured.__exit__(None, None, None)
        if self._limits.max_device_growth is not None and self.unknown is None:
            self._devices_after, self.unknown = _read_devices()

    def growth(self) -> dict[str, int]:
        """Returns by how much each known kind of memory grew, in bytes."""
        rows = {row.name: row.growth_bytes for row in self._host_rows()}
        return {name: value for name, value in rows.items() if value is not None}

    def failure(self) -> str | None:
        """Returns what is over its limit, in a table; None: nothing is."""
        rows = (*self._host_rows(), *self._peak_rows(), *self._device_rows())
        if self.unknown is not None:
            return f"a limit cannot be checked any more: {self.unknown}"
        return growth_text(rows) if any(row.is_over for row in rows) else None

    def _host_rows(self) -> list[GrowthRow]:
        assert self._measured is not None  # noqa: S101
        before, after = self._measured.before.host, self._measured.after.host
        rows = []
        for name in _HOST_TERMS:
            then, now = (getattr(reading, f"{name}_bytes") for reading in (before, after))
            limit = self._limits.max_rss_growth if name == "rss" else None
            if name == "rss" or then or now:
                label = name.removeprefix("rss_")
                rows.append(
                    GrowthRow(name=label, before_bytes=then, after_bytes=now, limit_bytes=limit)
                )
        return rows

    def _peak_rows(self) -> list[GrowthRow]:
        assert self._measured is not None  # noqa: S101
        limit, peak = self._limits.max_rss_peak, self._measured.peak
        if limit is None:
            return []
        if peak is None:
            self.unknown = "the kernel does not tell the peak of rss"
            return []
        seen = peak.sampled_bytes if peak.exact_bytes is None else peak.exact_bytes
        name = "peak rss, at least" if peak.exact_bytes is None else "peak rss"
        return [GrowthRow(name=name, after_bytes=seen, limit_bytes=limit, of_growth=False)]

    def _device_rows(self) -> list[GrowthRow]:
        if self._limits.max_device_growth is None or self.unknown is not None:
            return []
        devices = {uuid: self._devices_before.get(uuid, 0) for uuid in self._devices_after}
        return [
            GrowthRow(
                name=uuid,
                before_bytes=then,
                after_bytes=self._devices_after[uuid],
                limit_bytes=self._limits.max_device_growth,
            )
            for uuid, then in devices.items()
        ]


def _read_devices() -> tuple[dict[str, int | None], str | None]:
    """What this process and its descendants hold of each GPU, and why that is not known.

    Without a driver there is no device memory: nothing is held, and that is known.
    """
    try:
        devices = _core.snapshot(host="counters", devices="all").devices or ()
    except MemacctError as error:
        return {}, f"the GPUs cannot be read: {error}"
    held: dict[str, int | None] = {}
    for device in devices:
        if device.own_bytes is None or device.tree_bytes is None:
            why = device.attribution.reason or "the driver does not tell"
            return {}, f"what this process holds of {device.uuid} is not known: {why}"
        held[device.uuid] = device.own_bytes + device.tree_bytes
    return held, None
