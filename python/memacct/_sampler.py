"""Sampling in the background, by native threads that never take the GIL."""

from __future__ import annotations

import atexit
import math
import os
import weakref
from typing import TYPE_CHECKING, Any, Literal

from memacct import _core
from memacct._errors import SamplerError
from memacct._trace import Trace, TracedDevice, trace_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

HostTier = Literal["counters", "breakdown"]
State = Literal["new", "running", "stopped", "forked"]

_MOST_HOST_HZ = 100_000
_MOST_DEVICE_HZ = 1_000
_MOST_KEPT_COUNT = 1 << 26

_running: weakref.WeakSet[Sampler] = weakref.WeakSet()


class Sampler:
    """Samples this process and its devices from ``start()`` to ``stop()``; a context manager.

    Two native threads, one for the host and one for the devices, so that a slow driver holds up
    neither the host's samples nor the program. Each wakes at absolute deadlines; one that
    passes unserved is counted. What they read goes into rings of fixed size: the oldest
    records are overwritten, and counted.

    Args:
        sample_hz: host samples a second, up to 100,000; None: none.
        device_hz: samples of the devices a second, up to 1,000; None: none. With "auto" they
            cost next to nothing until this process has a CUDA context.
        host: "counters" (statm: vms, rss, shared) or "breakdown" (status).
        devices: as for ``snapshot()``.
        driver_budget_ratio: the part of the wall time, at most, in which driver calls are made.
            Where they are slow, samples are left out (``skipped_count``), and the rate in
            effect is below `device_hz`. 1: no limit.
        keep_count: host records that are kept, 128 bytes each; rounded up to a power of two.
        device_keep_count: records of devices that are kept: one a device and sample, and one
            for each process in its list.
        record: a file (or a folder for one) that the samples are kept in, which outlives this
            process however it ends: a flight recorder (docs/blackbox.md, ``read_blackbox()``).
            A fork's child cannot read them.
        sync_s: with `record`: seconds between flushes to the disk, for a machine that may be lost;
            None: when the kernel does it.

    Raises:
        SamplerError: a rate or size is not allowed; the message names it and what is.
        SourceReadError, SourceUnavailableError: the file cannot be made.
        ValueError: no such tier or devices.

    Note:
        After a fork the child's sampler is in the state "forked": it samples nothing, and what it
        had taken can be read. Whatever is running when the interpreter exits is stopped.
    """

    def __init__(
        self,
        sample_hz: float | None = 100.0,
        *,
        device_hz: float | None = 10.0,
        host: HostTier = "counters",
        devices: Literal["auto", "all"] | Sequence[int | str] = "auto",
        driver_budget_ratio: float = 0.02,
        keep_count: int = 1 << 16,
        device_keep_count: int = 1 << 15,
        record: str | os.PathLike[str] | None = None,
        sync_s: float | None = None,
    ) -> None:
        if sample_hz is None and device_hz is None:
            raise SamplerError("sample_hz=None and device_hz=None leave nothing to sample")
        if host not in ("counters", "breakdown"):
            raise ValueError(f"host={host!r} must be 'counters' or 'breakdown'")
        self._native = _core.NativeSampler(
            host_period_ns=_period_ns("sample_hz", sample_hz, _MOST_HOST_HZ),
            host=host,
            host_capacity=_capacity("keep_count", keep_count),
            device_period_ns=_period_ns("device_hz", device_hz, _MOST_DEVICE_HZ),
            devices=devices,
            device_capacity=_capacity("device_keep_count", device_keep_count),
            driver_budget_ratio=_ratio("driver_budget_ratio", driver_budget_ratio),
            record=None if record is None else os.fspath(record),
            sync_period_ns=_sync_ns(sync_s, record),
        )
        self._peak_before_bytes: int | None = None
        self._peak_after_bytes: int | None = None

    @property
    def state(self) -> State:
        """One of "new", "running", "stopped", and "forked": it ran in the parent process."""
        return self._native.state()

    @property
    def running(self) -> bool:
        """Whether it is sampling."""
        return self.state == "running"

    def start(self) -> Self:
        """Starts sampling, from any thread; the first samples are taken at once.

        Raises:
            SamplerError: it was started before, here or in the parent process.
        """
        self._peak_before_bytes = _peak_rss_bytes()
        self._native.start()
        _running.add(self)
        return self

    def stop(self) -> None:
        """Stops sampling, and waits for a reading in progress (some seconds at most).

        Idempotent; does nothing before the start and after a fork.
        """
        if self.running:
            self._native.stop()
            self._peak_after_bytes = _peak_rss_bytes()
        _running.discard(self)

    def trace(self) -> Trace:
        """Returns a copy of what was sampled so far, as far as it is kept.

        Raises:
            SamplerError: it was never started.

        Cost: without the GIL, some 30 ns a record.
        """
        if self.state == "new":
            raise SamplerError("this sampler was not started: there is no trace")
        after = _peak_rss_bytes() if self.running else self._peak_after_bytes
        errors = dict(self._native.errors())
        last = str(errors.pop("last"))
        devices = self._native.devices()
        return trace_of(
            self._native.rows(),
            device_list=tuple(TracedDevice(uuid=u, name=n, index=i) for u, n, i in devices),
            host_counts=self._native.host_counts(),
            device_counts=self._native.device_counts(),
            error_counts=errors,
            last_error=last or None,
            peak_rss_before_bytes=self._peak_before_bytes,
            peak_rss_after_bytes=after,
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Sampler {self.state}>"


def _stop_all() -> None:
    """Stops what is running, before the libraries that it uses are torn down."""
    for sampler in list(_running):
        sampler.stop()


# This module is only loaded by who samples.
atexit.register(_stop_all)


def _peak_rss_bytes() -> int | None:
    return _core.snapshot(devices=None).host.peak_rss_bytes


def _number(name: str, value: Any, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SamplerError(f"{name}={value!r} must be {allowed}")
    return float(value)


def _sync_ns(sync_s: float | None, record: object) -> int:
    if sync_s is None:
        return 0
    if record is None:
        raise SamplerError(f"sync_s={sync_s!r} is for a recording: give record, too")
    if not 0.001 <= sync_s <= 86_400:  # noqa: PLR2004 (a day)
        raise SamplerError(f"sync_s={sync_s!r} must be from 0.001 to 86400")
    return int(sync_s * 1e9)


def _period_ns(name: str, value: float | None, most: int) -> int:
    if value is None:
        return 0
    allowed = f"above 0 and at most {most:,}, or None"
    if not 0 < _number(name, value, allowed) <= most:
        raise SamplerError(f"{name}={value!r} must be {allowed}")
    # A day between two samples: a period is to fit into any clock's arithmetic.
    return min(round(1e9 / value), 86_400 * 10**9)


def _ratio(name: str, value: Any) -> float:
    if not 0 < _number(name, value, "above 0 and at most 1") <= 1:
        raise SamplerError(f"{name}={value!r} must be above 0 and at most 1")
    return float(value)


def _capacity(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST_KEPT_COUNT:
        raise SamplerError(f"{name}={value!r} must be from 1 to {_MOST_KEPT_COUNT:,}")
    return 1 << (value - 1).bit_length()
