"""An engine in miniature: takes a context, then profiles while it loads 512 MiB.

At each pause the test moves the neighbours. Argument: JSON, the keyword arguments of
``profile_pass`` and ``start`` (``context``: it is there before the pass; ``driver``: only the
driver is initialised) and ``caching`` (``cached`` or ``emptied``: 1 GiB is taken and given back in
between, and is then in the allocator's cache or not).
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import sys
from typing import Any

import memacct
from memacct.profile import ProfilePass, profile_pass

cuda = ctypes.CDLL("libcuda.so.1")


def check(code: int) -> None:
    assert code == 0, code


def use_device() -> None:
    check(cuda.cuInit(0))
    context = ctypes.c_void_p()
    check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    check(cuda.cuCtxSetCurrent(context))


def pause(what: str) -> None:
    print(what, flush=True)
    sys.stdin.readline()


class CachingAllocator:
    """Keeps what was freed for later, as torch's does."""

    def __init__(self) -> None:
        self.live: dict[int, int] = {}
        self.cached: dict[int, int] = {}
        self.peak = 0

    def take(self, size: int) -> int:
        pointer = ctypes.c_uint64()
        check(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)))
        self.live[pointer.value] = size
        self.peak = max(self.peak, self.allocated_bytes())
        return pointer.value

    def give(self, address: int) -> None:
        self.cached[address] = self.live.pop(address)

    def empty_cache(self) -> None:
        for address in self.cached:
            check(cuda.cuMemFree_v2(ctypes.c_uint64(address)))
        self.cached.clear()

    def reserved_bytes(self) -> int:
        return self.allocated_bytes() + sum(self.cached.values())

    def allocated_bytes(self) -> int:
        return sum(self.live.values())

    def peak_allocated_bytes(self) -> int:
        return self.peak

    def reset_peak(self) -> None:
        self.peak = self.allocated_bytes()


def run(profiling: ProfilePass, allocator: CachingAllocator, *, start: str, caching: str) -> None:
    with profiling:
        pause("started")
        if start != "context":
            use_device()
        allocator.take(384 << 20)
        if caching:
            allocator.give(allocator.take(1 << 30))
        if caching == "emptied":
            allocator.empty_cache()
        profiling.mark("weights")
        allocator.take(128 << 20)
        pause("loaded")


def told(profiling: ProfilePass) -> dict[str, Any]:
    result = profiling.result
    last = result.marks[-1].reading.device
    assert last is not None
    return {
        "consumed": result.consumption.consumed_bytes,
        "source": result.consumption.source,
        "reason": result.consumption.reason,
        "foreign_delta": result.foreign_delta_bytes,
        "foreign": [[c.event, c.delta_bytes] for c in result.foreign],
        "marks": [[m.name, m.consumption.consumed_bytes] for m in result.marks],
        "budget": result.budget and dataclasses.asdict(result.budget),
        "transient_peak": result.transient_peak_bytes,
        "attribution": last.attribution.source,
    }


def refused(call: Any, *args: Any) -> str:
    try:
        call(*args)
    except ValueError as error:
        return str(error)
    return "not refused"


def main() -> None:
    options = json.loads(sys.argv[1])
    start = options.pop("start", "context")
    caching = options.pop("caching", "")
    if start == "driver":
        check(cuda.cuInit(0))
    if start == "context":
        use_device()
    allocator = CachingAllocator()
    profiling = profile_pass(0, allocator=allocator if caching else None, **options)
    try:
        run(profiling, allocator, start=start, caching=caching)
    except memacct.BudgetError as error:
        print(json.dumps({"error": str(error)}))
        return
    late = {
        "entered_again": refused(profiling.__enter__),
        "marked_late": refused(profiling.mark, "late"),
    }
    print(json.dumps({**told(profiling), **late}))


main()
