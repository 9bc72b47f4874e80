"""How long memacct itself has held up this process: the plugin's own time, summed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class OwnTime:
    """Sums the time spent inside its ``with`` blocks; nested blocks count once."""

    def __init__(self) -> None:
        self.total_ns = 0
        self._depth = 0
        self._entered_ns = 0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._entered_ns = time.perf_counter_ns()
        self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.total_ns += time.perf_counter_ns() - self._entered_ns


#: Of this process. A forked child goes on from its parent's sum; reports subtract nothing,
#: so the figure is never below the truth.
own_time = OwnTime()
