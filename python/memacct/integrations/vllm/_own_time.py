"""How long memacct itself has held up this process: the plugin's own time, summed."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType


class Spent(NamedTuple):
    """Time spent.

    Attributes:
        wall_ns: what the process was held up, with whatever else the machine did meanwhile.
        cpu_ns: of that, what this thread computed, in the kernel too.
    """

    wall_ns: int
    cpu_ns: int

    @classmethod
    def now(cls) -> Spent:
        """The clocks; only differences of two readings mean something."""
        return cls(time.perf_counter_ns(), time.thread_time_ns())


class OwnTime:
    """Sums the time spent inside its ``with`` blocks; nested blocks count once.

    No automatic garbage collection begins inside: one over all that an engine has imported takes
    some 0.4 s, and what it frees is the engine's to free when its own allocations ask for it.
    """

    def __init__(self) -> None:
        self._closed = Spent(0, 0)
        self._entered = Spent(0, 0)
        self._depth = 0
        self._pid = os.getpid()
        self._put_off_collections = False

    def __enter__(self) -> None:
        if self._depth == 0:
            if self._pid != os.getpid():  # forked: what the parent took, it tells itself
                self._closed, self._pid = Spent(0, 0), os.getpid()
            # First: a reading of the clocks is a tuple, and to make it may begin a collection.
            self._put_off_collections = gc.isenabled()
            gc.disable()
            self._entered = Spent.now()
        self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._depth == 1:
            self._closed = self.spent()
            if self._put_off_collections:
                gc.enable()
        self._depth -= 1

    def pause(self, seconds: float) -> float:
        """Sleeps outside of the open blocks, and returns how many seconds it really took.

        A wait that the user asked for is not the plugin's own time, and the engine's other
        threads may collect their garbage during it.
        """
        from memacct.accounting.budget import wall_pause

        depth = self._depth
        if depth > 0:
            self._depth = 1
            self.__exit__(None, None, None)
        try:
            return wall_pause(seconds)
        finally:
            if depth > 0:
                self.__enter__()
                self._depth = depth

    def spent(self) -> Spent:
        """Returns the sum, up to now where a block is open."""
        if self._depth == 0:
            return self._closed
        now = Spent.now()
        return Spent(
            self._closed.wall_ns + now.wall_ns - self._entered.wall_ns,
            self._closed.cpu_ns + now.cpu_ns - self._entered.cpu_ns,
        )


#: Of this process: a forked child begins anew, unless it was forked inside of a block.
own_time = OwnTime()
