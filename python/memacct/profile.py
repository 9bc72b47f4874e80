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
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from memacct import _core
from memacct._errors import DriverError, SourceUnavailableError
from memacct.accounting.budget import BudgetTerms, EngineBudget, decide_budget
from memacct.accounting.consumption import Consumption, Reading, consumed
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
        foreign_delta_bytes: what all others took together (negative: released), listed or not.
        transient_peak_bytes: what the allocator's peak was above what is allocated now;
            None without an allocator.
        budget: how much the engine may still take; None when no ``budget_bytes`` was given.
        marks: the baseline, each mark, and the end, in order.
    """

    device: str
    consumption: Consumption
    foreign: tuple[ForeignChange, ...]
    foreign_delta_bytes: int
    transient_peak_bytes: int | None
    budget: EngineBudget | None
    marks: tuple[Mark, ...]


class ProfilePass:
    """A running profiling pass; see `profile_pass`."""

    def __init__(
        self,
        device: _core.DeviceKey,
        *,
        budget_bytes: int | None,
        allocator: Allocator | None,
        on_shortfall: ShortfallPolicy,
        wait_s: float,
        margin_bytes: int,
        identify: bool,
    ) -> None:
        self._device = device
        self._budget_bytes = budget_bytes
        self._allocator = allocator
        self._on_shortfall = on_shortfall
        self._wait_s = wait_s
        self._margin_bytes = margin_bytes
        self._identify = identify
        self._marks: list[Mark] = []
        self._result: ProfileResult | None = None

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
        """Records a moment, such as "weights"; returns what had been consumed by then."""
        if not self._marks:
            raise ValueError("a profiling pass takes marks only inside its block")
        return self._add(name, self._read())

    def __enter__(self) -> ProfilePass:
        if self._identify:
            # What could not be found, and why, is in the reading below.
            with contextlib.suppress(DriverError, SourceUnavailableError):
                _core.identify(self._device)
        self._add("baseline", self._read())
        if self._allocator is not None:
            self._allocator.reset_peak()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._result = self._finish()

    def _read(self) -> Reading:
        reserved = None if self._allocator is None else self._allocator.reserved_bytes()
        device = _core.read_device(self._device, allocator_reserved_bytes=reserved)
        return Reading(
            free_bytes=device.free_bytes, device=device, allocator_reserved_bytes=reserved
        )

    def _add(self, name: str, reading: Reading) -> Mark:
        first = self._marks[0].reading if self._marks else reading
        mark = Mark(
            name=name,
            taken_ns=_core.monotonic_ns() if reading.device is None else reading.device.taken_ns,
            reading=reading,
            consumption=consumed(first, reading),
        )
        self._marks.append(mark)
        return mark

    def _finish(self) -> ProfileResult:
        transient = None
        if self._allocator is not None:
            held = self._allocator.allocated_bytes()
            transient = max(0, self._allocator.peak_allocated_bytes() - held)
        end = self._add("end", self._read())
        budget = self._decide(transient or 0)
        first = self._marks[0].reading
        moved: tuple[ForeignChange, ...] = ()
        if first.device is not None and end.reading.device is not None:
            moved = foreign_changes(first.device, end.reading.device)
        return ProfileResult(
            device=str(self._device) if end.reading.device is None else end.reading.device.uuid,
            consumption=end.consumption,
            foreign=moved,
            foreign_delta_bytes=self._grown(end.reading, end.consumption),
            transient_peak_bytes=transient,
            budget=budget,
            marks=tuple(self._marks),
        )

    def _decide(self, transient_bytes: int) -> EngineBudget | None:
        if self._budget_bytes is None:
            return None
        requested = self._budget_bytes
        consumption = self._marks[-1].consumption

        def terms() -> BudgetTerms:
            now = self._read()
            return BudgetTerms(
                wanted_bytes=requested - consumption.consumed_bytes - transient_bytes,
                still_to_come_bytes=transient_bytes,
                margin_bytes=self._margin_bytes,
                free_bytes=now.free_bytes,
                grown_bytes=self._grown(now, consumed(self._marks[0].reading, now)),
            )

        return decide_budget(
            terms, on_shortfall=self._on_shortfall, wait_s=self._wait_s, pause=_pause
        )

    def _grown(self, now: Reading, consumption: Consumption) -> int:
        before = self._marks[0].reading.free_bytes
        return before - consumption.consumed_bytes - now.free_bytes


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
        allocator: the engine's caching allocator; "auto" takes torch's if torch is loaded
            and ``device`` is an ordinal.
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
    Cost: one device reading a mark; no CUDA context is made.
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
        allocator=_torch_allocator(device) if allocator == "auto" else allocator,
        on_shortfall=on_shortfall,
        wait_s=wait_s,
        margin_bytes=margin_bytes,
        identify=identify,
    )


def _torch_allocator(device: _core.DeviceKey) -> Allocator | None:
    # Found by name, so that nothing below the integrations imports torch.
    if "torch" not in sys.modules or not isinstance(device, int):
        return None
    torch = sys.modules["torch"]
    if not torch.cuda.is_initialized():
        return None
    module = importlib.import_module("memacct.integrations.torch")
    allocator: Allocator = module.TorchAllocator(device)
    return allocator


def _pause(seconds: float) -> float:
    before = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - before
