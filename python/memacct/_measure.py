"""measure(): two snapshots around a block, and if asked for the samples in between."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from memacct import _core
from memacct._errors import MemacctError, SamplerError
from memacct._sampler import Sampler
from memacct._trace import Peak

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from memacct._core import Snapshot
    from memacct._trace import Trace
    from memacct._types import SnapshotDelta

    Devices = Literal["auto", "all"] | Sequence[int | str] | None

HostTier = Literal["counters", "breakdown", "rollup", "residency", "mappings"]


class Measurement:
    """What ``measure()`` yields; its results are there when the block has ended.

    Attributes:
        name: as given.
        before: the snapshot at the start of the block.
    """

    def __init__(
        self, name: str, host: HostTier, devices: Devices, sampler: Sampler | None
    ) -> None:
        self.name = name
        self._host: HostTier = host
        self._devices = devices
        self._sampler = sampler
        self._before: Snapshot | None = None
        self._after: Snapshot | None = None
        self._trace: Trace | None = None

    def __enter__(self) -> Self:
        # The sampler's own memory comes before the first snapshot, and goes after the last.
        if self._sampler is not None:
            self._sampler.start()
        self._before = self._snapshot()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An error of ours must not hide the block's own.
        ours: tuple[type[Exception], ...] = () if error is None else (MemacctError,)
        try:
            with contextlib.suppress(*ours):
                self._after = self._snapshot()
        finally:
            if self._sampler is not None:
                self._sampler.stop()
                self._trace = self._sampler.trace()

    @property
    def before(self) -> Snapshot:
        """The snapshot at the start of the block."""
        return self._ended(self._before)

    @property
    def after(self) -> Snapshot:
        """The snapshot at the end of the block."""
        return self._ended(self._after)

    @property
    def delta(self) -> SnapshotDelta:
        """What changed over the block.

        Raises:
            SamplerError: the block has not ended.
        """
        return self.after - self.before

    @property
    def trace(self) -> Trace | None:
        """The samples of the block; None without ``sample_hz`` and ``device_hz``."""
        self._ended(self._after)
        return self._trace

    @property
    def peak(self) -> Peak | None:
        """The peak of rss, as sure as it can be told; None if the tier does not tell it.

        Without samples it is at least what both ends had, and exact where the kernel's peak grew.
        """
        if self.trace is not None and (peak := self.trace.peak_rss()) is not None:
            return peak
        ends = (self.before, self.after)
        highest = max(ends, key=lambda snapshot: snapshot.host.rss_bytes)
        old, new = (snapshot.host.peak_rss_bytes for snapshot in ends)
        if old is None or new is None:
            return None
        return Peak(
            name="rss_bytes",
            device=None,
            sampled_bytes=highest.host.rss_bytes,
            taken_ns=highest.taken_ns,
            exact_bytes=new if new > old else None,
            upper_bytes=new if new >= old else None,
        )

    def __repr__(self) -> str:
        return f"<measure {self.name!r}, {'ended' if self._after is not None else 'not ended'}>"

    def _snapshot(self) -> Snapshot:
        return _core.snapshot(host=self._host, devices=self._devices)

    def _ended(self, value: Snapshot | None) -> Snapshot:
        if value is None:
            raise SamplerError(f"measure({self.name!r}) has not ended")
        return value


def measure(
    name: str = "block",
    *,
    sample_hz: float | None = None,
    device_hz: float | None = None,
    host: HostTier = "breakdown",
    devices: Devices = "auto",
) -> Measurement:
    """Returns a context manager that measures its block, with samples of it if asked for.

    Args:
        name: of the block, for messages.
        sample_hz: host samples a second meanwhile; None: none.
        device_hz: device samples a second; default: 10 if ``sample_hz`` is given, else none.
        host: the tier of the two snapshots.
        devices: which devices; None: none.

    Returns:
        A context manager with ``delta``, ``peak``, ``trace``, ``before`` and ``after``.

    Raises:
        SamplerError: a rate is not allowed; the message names it.
        ValueError: no such tier or device.
    """
    if device_hz is None and sample_hz is not None:
        device_hz = 10.0
    if devices is None:
        device_hz = None
    sampler = None
    if sample_hz is not None or device_hz is not None:
        sampler = Sampler(sample_hz, device_hz=device_hz, devices=devices or "auto")
    return Measurement(name, host, devices, sampler)
