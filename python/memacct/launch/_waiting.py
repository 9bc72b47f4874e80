"""Waits until GPUs are free and still, and reserves them before anybody else can choose them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._errors import MemacctError
from memacct._units import format_bytes
from memacct.accounting.choosing import Candidate, choose
from memacct.accounting.waiting import POLL_S
from memacct.launch._gpus import GpuWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memacct.launch._plan import Plan
    from memacct.reservations import Reservation, Reservations

# A line at most so often; the same one again not before that.
PROGRESS_S = 2.0
REPEAT_S = 20.0


class WaitedTooLongError(MemacctError):
    """The time is up, and no GPU is free and still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Where to start; ``reservation`` is None where there could be none."""

    gpus: tuple[Candidate, ...]
    reservation: Reservation | None
    waited_s: float


def wait_for_gpus(
    plan: Plan,
    reservations: Reservations | None,
    *,
    wait_s: float,
    still_s: float,
    what: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Chosen:
    """Returns the GPUs to start on, reserved.

    Args:
        plan: what is asked for.
        reservations: where other starts look; None: nobody is told.
        wait_s: seconds to wait at most, and no less than `still_s`.
        still_s: seconds for which nobody may have moved on a GPU.
        what: the program, for others who wait.
        say: is told how it goes: what has changed at most every two seconds.

    Raises:
        WaitedTooLongError: not within that time; it says who holds what.
    """
    watch = GpuWatch(plan.uuids, still_s)
    began_s = time.monotonic()
    progress = _Progress(plan, wait_s, still_s, say)
    while True:
        chosen, seen = _try(plan, watch, reservations, what)
        waited_s = time.monotonic() - began_s
        if chosen is not None:
            gpus, reservation = chosen
            return Chosen(gpus=gpus, reservation=reservation, waited_s=waited_s)
        if waited_s >= max(wait_s, still_s + POLL_S):
            raise WaitedTooLongError(
                f"{plan.need_text} not free and still within {waited_s:.0f} s: {_story(seen, plan)}"
            )
        progress.tell(waited_s, _story(seen, plan))
        time.sleep(POLL_S)


class _Progress:
    """Says how the wait goes."""

    def __init__(
        self, plan: Plan, wait_s: float, still_s: float, say: Callable[[str], None]
    ) -> None:
        self._plan, self._wait_s, self._say = plan, wait_s, say
        self._next_s = still_s + POLL_S  # that nobody moves for so long is not worth a line
        self._repeat_s = 0.0
        self._said = ""

    def tell(self, waited_s: float, story: str) -> None:
        """Says a line if it is time for one."""
        if waited_s < (self._repeat_s if story == self._said else self._next_s):
            return
        self._next_s, self._repeat_s, self._said = waited_s + PROGRESS_S, waited_s + REPEAT_S, story
        times = f"{waited_s:.0f} of {self._wait_s:g} s"
        self._say(f"waiting for {self._plan.need_text}, {times}: {story}")


def _try(
    plan: Plan, watch: GpuWatch, reservations: Reservations | None, what: str
) -> tuple[tuple[tuple[Candidate, ...], Reservation | None] | None, Sequence[Candidate]]:
    if reservations is None:
        seen = watch.read({})
        gpus = choose(seen, plan.need_bytes, plan.count)
        return ((gpus, None) if gpus else None), seen
    with reservations.exclusive():
        seen = watch.read(reservations.promised())
        gpus = choose(seen, plan.need_bytes, plan.count)
        if not gpus:
            return None, seen
        # Without a need nobody knows how much will be taken: all that is there.
        sizes = plan.need_bytes or {gpu.uuid: gpu.available_bytes for gpu in gpus}
        mine = {gpu.uuid: sizes[gpu.uuid] for gpu in gpus}
        return (gpus, reservations.reserve(mine, what)), seen


def _story(seen: Sequence[Candidate], plan: Plan) -> str:
    return "; ".join(_line(each, plan) for each in seen) or "no GPU can be read"


def _line(candidate: Candidate, plan: Plan) -> str:
    parts = [f"{format_bytes(candidate.free_bytes)} free"]
    if candidate.promised_bytes:
        parts.append(f"{format_bytes(candidate.promised_bytes)} of it reserved by another start")
    need = None if plan.need_bytes is None else plan.need_bytes[candidate.uuid]
    if not candidate.still and (need is None or candidate.available_bytes >= need):
        parts.append("moving")
    if candidate.holders:
        parts.append(f"held by {candidate.holders}")
    return f"{candidate}: {', '.join(parts)}"
