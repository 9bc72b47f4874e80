"""Waiting for neighbours to give memory back: until enough is free, and stands still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct.accounting.budget import wall_pause

if TYPE_CHECKING:
    from collections.abc import Callable

# A process that ends gives its memory back in steps, some tens of milliseconds apart: what is
# free the moment that it is enough may be far from what will be.
STILL_S = 0.5
POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """How it ended: what is free now, after how long. It may still be too little."""

    free_bytes: int
    waited_s: float


def wait_until_free(
    read: Callable[[], int],
    wanted_bytes: int,
    *,
    wait_s: float,
    still_s: float = STILL_S,
    poll_s: float = POLL_S,
    pause: Callable[[float], float] = wall_pause,
) -> Waited:
    """Reads until ``wanted_bytes`` are free and have not changed for a while, or time is up.

    Args:
        read: gives what is free now.
        wanted_bytes: what is to be free.
        wait_s: seconds to wait at most.
        still_s: seconds without a change that count as standing still.
        poll_s: seconds between two readings.
        pause: sleeps for the given seconds and returns how long it really took.
    """
    free_bytes, waited_s, still_since_s = read(), 0.0, 0.0
    while waited_s < wait_s:
        if free_bytes >= wanted_bytes and waited_s - still_since_s >= still_s:
            break
        waited_s += pause(min(poll_s, wait_s - waited_s))
        now_bytes = read()
        if now_bytes != free_bytes:
            free_bytes, still_since_s = now_bytes, waited_s
    return Waited(free_bytes=free_bytes, waited_s=waited_s)
