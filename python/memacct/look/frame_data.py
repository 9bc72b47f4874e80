"""What one frame of ``watch`` shows: plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.look.events import Event
    from memacct.look.look_types import Look
    from memacct.look.parts import Keys
    from memacct.look.screen import Screen


class Frame(NamedTuple):
    """All that a frame shows.

    Attributes:
        events: the oldest first.
        cpu_ratio: what watching itself takes of one CPU; None: not known yet.
        clock: the time of day.
    """

    look: Look
    screen: Screen
    keys: Keys
    events: Sequence[Event]
    interval_s: float
    now_ns: int
    clock: str
    cpu_ratio: float | None = None
