"""The profiling pass: what an engine itself consumes while it starts, and what it may take.

    with profile_pass(0, budget_bytes=20 * GIB) as profiling:
        load_weights()
        profiling.mark("weights")
        run_the_largest_batch()
    result = profiling.result
    kv_cache_bytes = result.budget.final_bytes

The neighbours on the device may do what they like meanwhile: the budget is what it would
have been had they stood still, capped by what is really free at the end.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from memacct import _core
from memacct._errors import DriverError, SourceUnavailableError
from memacct.accounting.budget import BudgetTerms, EngineBudget, decide_budget
from memacct.accounting.consumption import Consumption, ConsumptionFollower, Reading
from memacct.accounting.foreign import ForeignChange, foreign_changes
from memacct.accounting.policy import SHORTFALL_POLICIES

if TYPE_CHECKING:
    from types import TracebackType

    from memacct.accounting.policy import ShortfallPolicy


class Allocator(Protocol):
    """A caching allocator of one device, in bytes."""

    def reserved_bytes(self) -> int:
        """What it holds of the driver."""

    def allocated_bytes(self) -> int:
        """What it has handed out."""

    def peak_allocated_bytes(self) -> int:
        """The most it had handed out since ``reset_peak``."""

    def reset_peak(self) -> None:
        """Starts a new window for the peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One moment of the pass and what the engine had consumed by then."""

    name: str
    taken_ns: int
    reading: Reading
    consumption: Consumption


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileResult:
    """What a profiling pass found.

    Attributes:
        consumption: what the engine itself took (own and tree) from baseline to end.
        foreign: what each other process did meanwhile, as far as the driver lists them.
        foreign_delta_bytes: what all others took together (negative: released), listed or not;
            None where the driver does not tell this process's memory from theirs.
        transient_peak_bytes: what the allocator's peak was above what is allocated now;
            None without an allocator. What the allocator still caches for it is part of the
            consumption already, and the budget counts it once.
        budget: how much the engine may still take; None when no ``budget_bytes`` was given.
        marks: the baseline, each mark, and the end, in order.
    """

    device: str
    consumption: Consumption
    foreign: tuple[ForeignChange, ...]
    foreign_delta_bytes: int | None
    transient_peak_bytes: int | None
    budget: EngineBudget | None
    marks: tuple[Mark, ...]


class ProfilePass:
    """A profiling pass, to be entered once; see `profile_pass`."""

    def __init__(
        self,
        device: _core.DeviceKey,
        *,
        budget_bytes: int | None,
        allocator: Allocator | Literal["auto"] | None,
        on_shortfall: ShortfallPolicy,
        wait_s: float,
        margin_bytes: int,
        identify: bool,
    ) -> None:
        self._device = device
        self._budget_bytes = budget_bytes
        self._allocator = None if allocator == "auto" else allocator
        self._finds_allocator = allocator == "auto"
        self._on_shortfall = on_shortfall
        self._wait_s = wait_s
        self._margin_bytes = margin_bytes
        self._identify = identify
        self._follower: ConsumptionFollower | None = None
        self._marks: list[Mark] = []
        self._result: ProfileResult | None = None
        self._has_ended = False

    @property
    def result(self) -> ProfileResult:
        """What was found.

        Raises:
            ValueError: the pass has not ended, or ended by an exception.
        """
        if self._result is None:
            raise ValueError("a profiling pass has no result before its block has ended")
        return self._result

    def mark(self, name: str) -> Mark:
        """Records a moment, such as "weights"; returns what had been consumed by then.

        Raises:
            ValueError: outside the block.
        """
        if self._follower is None or self._has_ended:
            raise ValueError("a profiling pass takes marks only inside its block")
        return self._add(name, self._read_at_mark())

    def __enter__(self) -> ProfilePass:
        if self._follower is not None:
            raise ValueError("a profiling pass can be entered once; make another")
        if self._identify:
            self._find_itself()
        baseline = self._read()
        self._follower = ConsumptionFollower(baseline)
        self._add("baseline", baseline)
        if self._allocator is not None:
            self._allocator.reset_peak()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._has_ended = True
        if kind is None:
            self._result = self._finish()

    def _read(self) -> Reading:
        if self._finds_allocator and self._allocator is None:
            # Torch may be loaded, and its CUDA part initialised, only inside the block.
            self._allocator = _torch_allocator(self._device)
        reserved = None if self._allocator is None else self._allocator.reserved_bytes()
        device = _core.read_device(self._device, allocator_reserved_bytes=reserved)
        return Reading(
            free_bytes=device.free_bytes, device=device, allocator_reserved_bytes=reserved
        )

    def _read_at_mark(self) -> Reading:
        reading = self._read()
        unknown = reading.device is not None and reading.device.own_bytes is None
        if not (self._identify and unknown):
            return reading
        # The context may have been made only now.
        self._find_itself()
        return self._read()

    def _find_itself(self) -> None:
        # What could not be found, and why, is in the reading that follows.
        with contextlib.suppress(DriverError, SourceUnavailableError):
            _core.identify(self._device)

    def _follow(self, reading: Reading) -> Consumption:
        if self._follower is None:
            raise ValueError("a profiling pass has no baseline before its block")
        return self._follower.follow(reading)

    def _add(self, name: str, reading: Reading) -> Mark:
        mark = Mark(
            name=name,
            taken_ns=_core.monotonic_ns() if reading.device is None else reading.device.taken_ns,
            reading=reading,
            consumption=self._follow(reading),
        )
        self._marks.append(mark)
        return mark

    def _finish(self) -> ProfileResult:
        end = self._add("end", self._read_at_mark())
        transient, uncached = self._transient_peak(end.reading)
        budget = self._decide(end.consumption, uncached or 0)
        first = self._marks[0].reading
        moved: tuple[ForeignChange, ...] = ()
        if first.device is not None and end.reading.device is not None:
            moved = foreign_changes(first.device, end.reading.device)
        return ProfileResult(
            device=str(self._device) if end.reading.device is None else end.reading.device.uuid,
            consumption=end.consumption,
            foreign=moved,
            foreign_delta_bytes=_grown(first, end),
            transient_peak_bytes=transient,
            budget=budget,
            marks=tuple(self._marks),
        )

    def _transient_peak(self, end: Reading) -> tuple[int | None, int | None]:
        """The allocator's peak above what is allocated now, and above what it holds now."""
        if self._allocator is None:
            return None, None
        peak = self._allocator.peak_allocated_bytes()
        held = end.allocator_reserved_bytes or 0
        return max(0, peak - self._allocator.allocated_bytes()), max(0, peak - held)

    def _decide(self, consumption: Consumption, still_to_come_bytes: int) -> EngineBudget | None:
        if self._budget_bytes is None or self._follower is None:
            return None
        follower = self._follower
        wanted = self._budget_bytes - consumption.consumed_bytes - still_to_come_bytes

        def terms() -> BudgetTerms:
            now = self._read()
            return BudgetTerms(
                wanted_bytes=wanted,
                still_to_come_bytes=still_to_come_bytes,
                margin_bytes=self._margin_bytes,
                free_bytes=now.free_bytes,
                grown_bytes=follower.grown_bytes(now, follower.follow(now)),
                shares_host=_shares_host(now),
            )

        return decide_budget(terms, on_shortfall=self._on_shortfall, wait_s=self._wait_s)


def _shares_host(reading: Reading) -> bool:
    unified = None if reading.device is None else reading.device.unified
    return unified is not None and unified.kind == "integrated"


def _grown(first: Reading, end: Mark) -> int | None:
    if not end.consumption.is_measured:
        return None
    return first.free_bytes - end.consumption.consumed_bytes - end.reading.free_bytes


def profile_pass(
    device: _core.DeviceKey,
    *,
    budget_bytes: int | None = None,
    allocator: Allocator | Literal["auto"] | None = "auto",
    on_shortfall: ShortfallPolicy = "clamp",
    wait_s: float = 0.0,
    margin_bytes: int = 0,
    identify: bool = True,
) -> ProfilePass:
    """Returns a context manager that profiles what its block consumes on ``device``.

    Args:
        device: CUDA ordinal of this process, or UUID.
        budget_bytes: what the engine may use of the device altogether; the result's budget
            is what is left of it. None: no budget is decided.
        allocator: the engine's caching allocator; "auto" takes torch's from the reading on
            at which torch uses CUDA. Its peak is reset at the beginning: passes on one device
            do not nest.
        on_shortfall: what to do when neighbours grew so far that the budget no longer
            fits: ``clamp`` it, ``wait`` for them and then clamp, or raise an ``error``.
        wait_s: seconds that ``wait`` waits at most.
        margin_bytes: what is to stay free when the budget is capped.
        identify: find this process's record by a fingerprint where its pid does not tell
            (allocates and frees some MiB, and only if a context is there already).

    Raises:
        ValueError: an argument is out of range.
        SourceUnavailableError: entering: there is no such device or no driver.
        BudgetError: leaving: the budget does not fit and ``on_shortfall`` is ``error``.

    Source: NVML's process lists and memory info; see `memacct.read_device`.
    Cost: one device reading a mark, and while this process is not found among the driver's
    records also a search for it (``identify``); no CUDA context is made.
    """
    if on_shortfall not in SHORTFALL_POLICIES:
        allowed = " | ".join(SHORTFALL_POLICIES)
        raise ValueError(f"on_shortfall is {on_shortfall!r}; allowed is {allowed}")
    for name, value in (
        ("budget_bytes", budget_bytes),
        ("margin_bytes", margin_bytes),
        ("wait_s", wait_s),
    ):
        if value is not None and value < 0:
            raise ValueError(f"{name} is {value}, but must not be negative")
    return ProfilePass(
        device,
        budget_bytes=budget_bytes,
        allocator=allocator,
        on_shortfall=on_shortfall,
        wait_s=wait_s,
        margin_bytes=margin_bytes,
        identify=identify,
    )


def _torch_allocator(device: _core.DeviceKey) -> Allocator | None:
    # Found by name, so that nothing below the integrations imports torch.
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return None
    module = importlib.import_module("memacct.integrations.torch")
    allocator: Allocator | None = module.allocator_of(device)
    return allocator
