"""What must have come of a random start, by arithmetic from what was true when.

An engine that measures its own memory takes, whatever its neighbours do, what it takes alone. Only
where that is not there it takes less, and says so: at its first reading, if less is free than it
is to ask for (a stock engine is refused there), and when it decides the size of its KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starts_run import window

from memacct._units import GIB, MIB
from memacct.demo.scenarios import DEVICE_BYTES, TOLERANCE_BYTES
from memacct.demo.table import clamp_warning
from memacct.demo.warm import marks

if TYPE_CHECKING:
    from starts_run import Alone, Observation

    from memacct.demo import EngineResult

MARGIN_BYTES = 128 * MIB
REFUSAL = "ValueError: Free memory on device"
LOWERED = "memacct: the start goes on with"
NO_MEMORY = ("out of memory", "OutOfMemory")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`broken`: the sentences of what is not as it must be; empty if all is well."""

    outcome: str
    broken: tuple[str, ...] = ()


def judge(seen: Observation, isolated: Alone, second_alone: Alone) -> Verdict:
    """Holds a native start to the law."""
    result = seen.result
    broken = [*_memory_ran_out(result, "the engine")]
    outcome = "failed"
    if result.served:
        outcome = _judge_size(seen, isolated, broken)
    else:
        broken.append(f"it did not start: {result.error}")
    broken += _judge_second(seen, second_alone)
    return Verdict(outcome=outcome, broken=tuple(broken))


def describe(seen: Observation, isolated: Alone) -> str:
    """What came of a stock start: nothing is demanded of it."""
    result = seen.result
    if not result.served or result.kv_cache_bytes is None:
        error = result.error or ""
        if error.startswith(REFUSAL):
            return "refused"
        return f"aborted: {_in_short(error)}"
    difference = result.kv_cache_bytes - isolated.kv_cache_bytes
    if abs(difference) <= TOLERANCE_BYTES:
        return "as alone"
    return f"KV cache {difference / GIB:+.2f} GiB"


def _in_short(error: str) -> str:
    text = error.removeprefix("AssertionError: ").removeprefix("ValueError: ")
    return text.split(".")[0][:60]


def _memory_ran_out(result: EngineResult, who: str) -> list[str]:
    log = result.log()
    return [f"{who}: {words!r} in its log" for words in NO_MEMORY if words in log]


def _judge_size(seen: Observation, isolated: Alone, broken: list[str]) -> str:
    found = seen.result.kv_cache_bytes or 0
    missing = {0} if seen.second is not None else _missing(seen, isolated)
    # To the page: vLLM divides its budget into blocks.
    if not any(
        abs(isolated.kv_cache_bytes - short - found) <= TOLERANCE_BYTES for short in missing
    ):
        difference = (found - isolated.kv_cache_bytes) / MIB
        expected = sorted(round(-short / MIB, 2) for short in missing)
        broken.append(f"KV cache {difference:+.2f} MiB of alone, not one of {expected[:4]}")
    smaller = found < isolated.kv_cache_bytes - TOLERANCE_BYTES
    lowered = LOWERED in seen.result.log()
    clamped = clamp_warning(seen.result) is not None
    if smaller and not (lowered or clamped):
        broken.append("the KV cache is smaller, and no warning says so")
    if (lowered or clamped) and missing == {0}:
        broken.append("made smaller although it fits")
    if not smaller:
        return "as alone"
    return "lowered" if lowered else "clamped"


def _missing(seen: Observation, isolated: Alone) -> set[int]:
    """How much of the isolated KV cache may not have been there, for every possible order."""
    decided = "profile_cudagraph_memory ends"
    if decided not in {mark.name for mark in marks(seen.result)}:
        decided = "profile_run ends"
    return {
        _short(isolated, first, now)
        for first in window(seen, "measure begins", "measure ends")
        for now in window(seen, decided, "determine_available_memory ends")
    }


def _short(isolated: Alone, first: int, now: int) -> int:
    """The same for what others held at the first reading and when the budget was decided."""
    worker = isolated.result.workers[0]
    requested, wanted = worker["requested_bytes"], worker["available_bytes"]
    free = DEVICE_BYTES - isolated.baseline_own_bytes - first
    lowered = requested - (free - MARGIN_BYTES) if free < requested else 0
    free = DEVICE_BYTES - isolated.decided_own_bytes - now
    fits = free - worker["peak_activation_bytes"] - MARGIN_BYTES
    clamped = min(max(0, now - first), max(0, wanted - lowered - fits))
    return int(lowered + clamped)


def _judge_second(seen: Observation, alone: Alone) -> list[str]:
    if seen.second is None:
        return []
    broken = _memory_ran_out(seen.second, "the second engine")
    if not seen.second.served:
        if seen.plan.second_killed_ms is None:
            broken.append(f"the second engine did not start: {seen.second.error}")
        return broken
    difference = (seen.second.kv_cache_bytes or 0) - alone.kv_cache_bytes
    if abs(difference) > TOLERANCE_BYTES:
        broken.append(f"the second engine's KV cache {difference / MIB:+.2f} MiB of alone")
    return broken
