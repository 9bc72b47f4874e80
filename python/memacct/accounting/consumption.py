"""What the engine itself took between two readings of a device.

The device's free memory says what everybody took. The engine's own consumption is read
from the driver's per-process numbers instead, so that a neighbour who allocates or frees
in between is in neither term. Where the driver does not tell (a container's view, a list
full of N/A), the caching allocator bounds the answer from below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from memacct._core import DeviceMemory

ConsumptionSource = Literal["own+tree", "own", "held_over", "allocator_bound", "device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One moment of a device as an engine sees it.

    Attributes:
        free_bytes: in the engine's own terms (for a CUDA engine, cudaMemGetInfo's), so
            that what is derived from it can be handed back to the engine's arithmetic.
        device: the driver's reading; None where it could not be read.
        allocator_reserved_bytes: what the engine's caching allocator holds; None where
            the allocator's own account is not to be trusted.
    """

    free_bytes: int
    device: DeviceMemory | None = None
    allocator_reserved_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """What the engine took since the baseline; negative if it gave back.

    Attributes:
        consumed_bytes: the value to compute with.
        bounds_bytes: (low, high) that contain the truth; None where nothing bounds it.
        source: ``own+tree`` and ``own`` are measured; ``held_over`` takes the neighbours to
            stand still since the last measured reading; ``allocator_bound`` is the lower
            bound, taken because the device's change is below it and so must be wrong;
            ``device`` is the change of the whole device, as a stock engine takes it.
        reason: why no better source applied; empty for ``own+tree``.
    """

    consumed_bytes: int
    bounds_bytes: tuple[int | None, int | None]
    source: ConsumptionSource
    reason: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether the neighbours' doings are certain to be left out."""
        return self.source in ("own+tree", "own")


def consumed(before: Reading, after: Reading) -> Consumption:
    """Returns what the engine itself took from ``before`` to ``after``."""
    first, last = before.device, after.device
    own = _difference(last and last.own_bytes, first and first.own_bytes)
    if own is None:
        return _bounded(before, after, _why_unknown(first, last))
    tree = _tree_difference(before, after)
    if tree is None:
        return Consumption(
            consumed_bytes=own,
            bounds_bytes=(None, None),
            source="own",
            reason="what this process's children hold could not be told from others' memory",
        )
    total = own + tree
    return Consumption(consumed_bytes=total, bounds_bytes=(total, total), source="own+tree")


class ConsumptionFollower:
    """What the engine took since one baseline, reading after reading.

    A reading in which the driver does not tell is completed from the last one in which it
    did. To fall back to the device's change in the middle would charge the engine, between
    two readings, with all that its neighbours had done since the baseline.
    """

    def __init__(self, baseline: Reading) -> None:
        self.baseline = baseline
        self._last_grown_bytes = 0
        self._last_tree_bytes: int | None = None
        self._has_measured = False

    @property
    def last_grown_bytes(self) -> int:
        """`grown_bytes` of the last reading; 0 before the first."""
        return self._last_grown_bytes

    def follow(self, reading: Reading) -> Consumption:
        """Returns what the engine took from the baseline to ``reading``, the next in time."""
        found = consumed(self.baseline, reading)
        if found.source == "own+tree":
            self._last_tree_bytes = _tree_difference(self.baseline, reading)
        elif found.source == "own" and self._last_tree_bytes is not None:
            found = replace(
                found,
                consumed_bytes=found.consumed_bytes + self._last_tree_bytes,
                reason=f"{found.reason}; their last known number stands",
            )
        elif not found.is_measured and self._has_measured:
            found = self._held_over(reading, found)
        self._has_measured = self._has_measured or found.is_measured
        self._last_grown_bytes = self.grown_bytes(reading, found)
        return found

    def grown_bytes(self, reading: Reading, consumption: Consumption) -> int:
        """Returns how much less is free than would be had the neighbours stood still.

        Negative where they released.
        """
        return self.baseline.free_bytes - consumption.consumed_bytes - reading.free_bytes

    def _held_over(self, reading: Reading, found: Consumption) -> Consumption:
        since_bytes = self.baseline.free_bytes - reading.free_bytes - self._last_grown_bytes
        low = found.bounds_bytes[0]
        return Consumption(
            consumed_bytes=since_bytes if low is None else max(low, since_bytes),
            bounds_bytes=found.bounds_bytes,
            source="held_over",
            reason=f"{found.reason}; the neighbours are taken to stand still since it last told",
        )


def _bounded(before: Reading, after: Reading, reason: str) -> Consumption:
    device = before.free_bytes - after.free_bytes
    low = _difference(after.allocator_reserved_bytes, before.allocator_reserved_bytes)
    # When the allocator alone took more than the device lost, a neighbour released at
    # least the difference: the stock reading is below the truth, perhaps negative.
    beyond_doubt = low is not None and device < low
    return Consumption(
        consumed_bytes=low if low is not None and beyond_doubt else device,
        bounds_bytes=(low, None),
        source="allocator_bound" if beyond_doubt else "device",
        reason=reason,
    )


def _why_unknown(first: DeviceMemory | None, last: DeviceMemory | None) -> str:
    if first is None or last is None:
        return "the driver's process list could not be read"
    unknown = last if last.own_bytes is None else first
    return unknown.attribution.reason or "this process's record was not found"


def _tree_difference(before: Reading, after: Reading) -> int | None:
    first, last = before.device, after.device
    return _difference(last and last.tree_bytes, first and first.tree_bytes)


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before
