"""What the engine itself took between two readings of a device.

The device's free memory says what everybody took. The engine's own consumption is read
from the driver's per-process numbers instead, so that a neighbour who allocates or frees
in between is in neither term. Where the driver does not tell (a container's view, a list
full of N/A), the caching allocator bounds the answer from below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from memacct.accounting.siblings import siblings_bytes

if TYPE_CHECKING:
    from memacct._core import DeviceMemory
    from memacct.accounting.siblings import Sibling

ConsumptionSource = Literal[
    "own+tree+siblings",
    "own+tree",
    "own+siblings",
    "own",
    "held_over",
    "allocator_bound",
    "device",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One moment of a device as an engine sees it.

    Attributes:
        free_bytes: in the engine's own terms (for a CUDA engine, cudaMemGetInfo's), so
            that what is derived from it can be handed back to the engine's arithmetic.
        device: the driver's reading; None where it could not be read.
        allocator_reserved_bytes: what the engine's caching allocator holds; None where
            the allocator's own account is not to be trusted.
        siblings: the engine's other processes, as far as they were known by then.
    """

    free_bytes: int
    device: DeviceMemory | None = None
    allocator_reserved_bytes: int | None = None
    siblings: tuple[Sibling, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """What the engine took since the baseline; negative if it gave back.

    Attributes:
        consumed_bytes: the value to compute with.
        bounds_bytes: (low, high) that contain the truth; None where nothing bounds it.
        source: the names joined by ``+`` are the measured parts: this process, its descendants,
            the engine's other processes (named only where there are any); ``held_over`` takes
            the neighbours to stand still since the last measured reading; ``allocator_bound``
            is the lower bound, taken because the device's change is below it and so must be
            wrong; ``device`` is the change of the whole device, as a stock engine takes it.
        reason: why no better source applied; empty where every part was measured.
        tree_bytes: the descendants' part; None where it is not known.
        siblings_bytes: the part of the engine's other processes; None where it is not known.
    """

    consumed_bytes: int
    bounds_bytes: tuple[int | None, int | None]
    source: ConsumptionSource
    reason: str = ""
    tree_bytes: int | None = None
    siblings_bytes: int | None = None

    @property
    def is_measured(self) -> bool:
        """Whether the neighbours' doings are certain to be left out."""
        return self.source.split("+")[0] == "own"


def consumed(before: Reading, after: Reading) -> Consumption:
    """Returns what the engine itself took from ``before`` to ``after``.

    A sibling known at either reading counts in both: what it held at the first is not charged,
    even if nobody knew then that it was the engine's.
    """
    first, last = before.device, after.device
    if first is None or last is None or first.own_bytes is None or last.own_bytes is None:
        return _bounded(before, after, _why_unknown(first, last))
    siblings = {sibling.pid: sibling for sibling in (*before.siblings, *after.siblings)}.values()
    tree = _difference(last.tree_bytes, first.tree_bytes)
    beside = _difference(siblings_bytes(last, siblings), siblings_bytes(first, siblings))
    total = last.own_bytes - first.own_bytes + (tree or 0) + (beside or 0)
    whole = tree is not None and beside is not None
    return Consumption(
        consumed_bytes=total,
        bounds_bytes=(total, total) if whole else (None, None),
        source=_parts(tree is not None, beside is not None and len(siblings) > 0),
        reason=_what_is_missing(tree, beside),
        tree_bytes=tree,
        siblings_bytes=beside,
    )


class ConsumptionFollower:
    """What the engine took since one baseline, reading after reading.

    A reading in which the driver does not tell is completed from the last one in which it
    did. To fall back to the device's change in the middle would charge the engine, between
    two readings, with all that its neighbours had done since the baseline.
    """

    def __init__(self, baseline: Reading) -> None:
        self.baseline = baseline
        self._siblings: dict[int, Sibling] = {}
        self._last_grown_bytes = 0
        self._last_tree_bytes: int | None = None
        self._last_siblings_bytes: int | None = None
        self._has_measured = False

    @property
    def last_grown_bytes(self) -> int:
        """`grown_bytes` of the last reading; 0 before the first."""
        return self._last_grown_bytes

    @property
    def siblings(self) -> tuple[Sibling, ...]:
        """The engine's other processes that any reading has known."""
        return tuple(self._siblings.values())

    def follow(self, reading: Reading) -> Consumption:
        """Returns what the engine took from the baseline to ``reading``, the next in time."""
        # One that has ended meanwhile, and is known no more, has given back what it held.
        self._siblings |= {sibling.pid: sibling for sibling in reading.siblings}
        found = consumed(replace(self.baseline, siblings=self.siblings), reading)
        if found.is_measured:
            found = self._completed(found)
        elif self._has_measured:
            found = self._held_over(reading, found)
        self._has_measured = self._has_measured or found.is_measured
        self._last_grown_bytes = self.grown_bytes(reading, found)
        return found

    def _completed(self, found: Consumption) -> Consumption:
        """Puts the last known numbers in the place of what this reading does not tell."""
        total, stood_in = found.consumed_bytes, False
        if found.tree_bytes is not None:
            self._last_tree_bytes = found.tree_bytes
        elif self._last_tree_bytes is not None:
            total, stood_in = total + self._last_tree_bytes, True
        if found.siblings_bytes is not None:
            self._last_siblings_bytes = found.siblings_bytes
        elif self._last_siblings_bytes is not None:
            total, stood_in = total + self._last_siblings_bytes, True
        if not stood_in:
            return found
        reason = f"{found.reason}; their last known number stands"
        return replace(found, consumed_bytes=total, reason=reason)

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


def _parts(has_tree: bool, has_siblings: bool) -> ConsumptionSource:
    if has_siblings:
        return "own+tree+siblings" if has_tree else "own+siblings"
    return "own+tree" if has_tree else "own"


def _what_is_missing(tree: int | None, beside: int | None) -> str:
    reasons = []
    if tree is None:
        reasons.append("what this process's children hold could not be told from others' memory")
    if beside is None:
        reasons.append("the driver does not tell what the engine's other processes hold")
    return "; ".join(reasons)


def _why_unknown(first: DeviceMemory | None, last: DeviceMemory | None) -> str:
    if first is None or last is None:
        return "the driver's process list could not be read"
    unknown = last if last.own_bytes is None else first
    return unknown.attribution.reason or "this process's record was not found"


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before
