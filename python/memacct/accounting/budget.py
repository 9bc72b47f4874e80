"""The engine's budget: what it wants, what really fits, and which of the two won.

The wanted budget counts the engine's own consumption only, so it does not move with the
neighbours. A neighbour that grew is real all the same: the budget is capped by what is
free now, by one of three policies.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from memacct._errors import BudgetError
from memacct._units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from memacct.accounting.policy import ShortfallPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetTerms:
    """What a budget is decided from.

    Attributes:
        wanted_bytes: the engine's own arithmetic, neighbours left out.
        still_to_come_bytes: what the engine takes besides its budget and has not taken
            yet: the transient peak, the graphs.
        margin_bytes: what is to stay free when the cap binds.
        free_bytes: what is really free now.
        grown_bytes: how much less is free than would be had the neighbours stood still;
            negative when they released.
        shares_host: the device's memory is the machine's (an integrated GPU).
    """

    wanted_bytes: int
    still_to_come_bytes: int
    margin_bytes: int
    free_bytes: int
    grown_bytes: int
    shares_host: bool = False

    @property
    def fits_bytes(self) -> int:
        """What is left of the free memory for the budget."""
        return self.free_bytes - self.still_to_come_bytes - self.margin_bytes

    @property
    def shortfall_bytes(self) -> int:
        """By how much the wanted budget does not fit; 0 while no neighbour has grown.

        With neighbours that stand still the wanted budget is the engine's own arithmetic
        and its own business: the cap must not change what a start alone gives. So it never
        takes more than the neighbours took: an engine whose wish left less than the margin
        keeps what it would have had alone.

        On an integrated GPU the cap always binds. What the host holds is nobody's on the
        device, so a budget of the device's total does not leave it out; and to take too much
        there ends in no error of the allocator but in a machine that stands still.
        """
        if self.shares_host:
            return max(0, self.wanted_bytes - self.fits_bytes)
        if self.grown_bytes <= 0:
            return 0
        return min(self.grown_bytes, max(0, self.wanted_bytes - self.fits_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetCandidate:
    """One value that the budget could have had, and where it comes from."""

    name: Literal["wanted", "fits"]
    value_bytes: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBudget:
    """The decided budget, every candidate, and why one won."""

    final_bytes: int
    clamped: bool
    waited_s: float
    candidates: tuple[BudgetCandidate, ...]
    reason: str


def requested_bytes(total_bytes: int, utilization: float) -> int:
    """Returns what an engine asks for of a device.

    Source: vLLM's ``request_memory`` (0.14.1 to 0.33.0). Before, the product was not rounded
    up, which fits wherever this does.
    """
    return math.ceil(total_bytes * utilization)


def wall_pause(seconds: float) -> float:
    """Sleeps, and returns how many seconds it really took."""
    before_s = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - before_s


def decide_budget(
    read: Callable[[], BudgetTerms],
    *,
    on_shortfall: ShortfallPolicy = "clamp",
    wait_s: float = 0.0,
    pause: Callable[[float], float] = wall_pause,
    poll_s: float = 0.1,
) -> EngineBudget:
    """Decides the budget; with ``wait`` it reads again until the budget fits.

    Args:
        read: gives the terms as they are now.
        on_shortfall: ``clamp`` takes what fits; ``wait`` waits up to ``wait_s`` for the
            neighbours and then clamps; ``error`` raises.
        wait_s: seconds to wait at most.
        pause: sleeps for the given seconds and returns how long it really took.
        poll_s: seconds between two readings while waiting.

    Raises:
        BudgetError: the budget does not fit and the policy is ``error``.
    """
    terms = read()
    waited = 0.0
    while on_shortfall == "wait" and terms.shortfall_bytes > 0 and waited < wait_s:
        waited += pause(min(poll_s, wait_s - waited))
        terms = read()
    if terms.shortfall_bytes > 0 and on_shortfall == "error":
        raise BudgetError(f"{_shortfall_story(terms)}; on_shortfall is 'error'")
    return _decided(terms, waited)


def _decided(terms: BudgetTerms, waited_s: float) -> EngineBudget:
    clamped = terms.shortfall_bytes > 0
    candidates = (
        BudgetCandidate(
            name="wanted",
            value_bytes=terms.wanted_bytes,
            source="requested − own consumption − transient peak − graphs",
        ),
        BudgetCandidate(
            name="fits",
            value_bytes=terms.fits_bytes,
            source="free now − transient peak − graphs − margin",
        ),
    )
    return EngineBudget(
        final_bytes=terms.wanted_bytes - terms.shortfall_bytes,
        clamped=clamped,
        waited_s=waited_s,
        candidates=candidates,
        reason=_shortfall_story(terms) if clamped else _fits_story(terms),
    )


def _fits_story(terms: BudgetTerms) -> str:
    story = "the wanted budget fits"
    if terms.grown_bytes > 0:
        story += f", although others hold {format_bytes(terms.grown_bytes)} more than at start"
    elif terms.grown_bytes < 0:
        story += f"; others released {format_bytes(-terms.grown_bytes)} since the start"
    return story


def _shortfall_story(terms: BudgetTerms) -> str:
    cause = f"others on the device hold {format_bytes(terms.grown_bytes)} more than at start"
    if terms.shares_host:
        cause = "this GPU's memory is the machine's, of which others hold a part"
    return (
        f"{cause}, so "
        f"{format_bytes(terms.shortfall_bytes)} of the wanted budget of "
        f"{format_bytes(terms.wanted_bytes)} no longer fit (free {format_bytes(terms.free_bytes)}, "
        f"less {format_bytes(terms.still_to_come_bytes)} still to come, less a margin of "
        f"{format_bytes(terms.margin_bytes)})"
    )
