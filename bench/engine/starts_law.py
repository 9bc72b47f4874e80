"""What must have come of a random start, by arithmetic from what was true when.

An engine of its own memory's making takes, whatever its neighbours do, what it takes alone. Only
where that is not there any more it takes less, and says so; and only where vLLM's own first
reading finds less than was asked for it does not start, as it would not beside a neighbour that
stands still.
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
    refusals = _refusals(seen, isolated)
    if not result.served:
        outcome = "refused" if (result.error or "").startswith(REFUSAL) else "failed"
        if outcome == "failed" or True not in refusals:
            broken.append(f"it did not start: {result.error}")
    else:
        if refusals == {True}:
            broken.append("it started although its first reading found less than its budget")
        outcome = _judge_size(seen, isolated, broken)
    broken += _judge_second(seen, second_alone)
    return Verdict(outcome=outcome, broken=tuple(broken))


def describe(seen: Observation, isolated: Alone) -> str:
    """What came of a stock start: nothing is demanded of it."""
    result = seen.result
    if not result.served or result.kv_cache_bytes is None:
        error = result.error or ""
        if error.startswith(REFUSAL):
            return "refused"
        return f"aborted: {_short(error)}"
    difference = result.kv_cache_bytes - isolated.kv_cache_bytes
    if abs(difference) <= TOLERANCE_BYTES:
        return "as alone"
    return f"KV cache {difference / GIB:+.2f} GiB"


def _short(error: str) -> str:
    text = error.removeprefix("AssertionError: ").removeprefix("ValueError: ")
    return text.split(".")[0][:60]


def _memory_ran_out(result: EngineResult, who: str) -> list[str]:
    log = result.log()
    return [f"{who}: {words!r} in its log" for words in NO_MEMORY if words in log]


def _refusals(seen: Observation, isolated: Alone) -> set[bool]:
    """Whether vLLM's first reading can find less than was asked for; both where it depends."""
    requested = isolated.result.workers[0]["requested_bytes"]
    others = window(seen, "measure begins", "measure ends")
    if seen.second is not None:
        return {False}
    return {DEVICE_BYTES - isolated.baseline_own_bytes - held < requested for held in others}


def _judge_size(seen: Observation, isolated: Alone, broken: list[str]) -> str:
    found = seen.result.kv_cache_bytes or 0
    shortfalls = {0} if seen.second is not None else _shortfalls(seen, isolated)
    # To the page: vLLM divides its budget into blocks.
    exact = [
        short
        for short in shortfalls
        if abs(isolated.kv_cache_bytes - short - found) <= TOLERANCE_BYTES
    ]
    if not exact:
        difference = (found - isolated.kv_cache_bytes) / MIB
        expected = sorted(round(-short / MIB, 2) for short in shortfalls)
        broken.append(f"KV cache {difference:+.2f} MiB of alone, not one of {expected[:4]}")
    clamped = found < isolated.kv_cache_bytes - TOLERANCE_BYTES
    said = clamp_warning(seen.result) is not None
    if clamped and not said:
        broken.append("the KV cache is smaller, and no warning says so")
    if said and shortfalls == {0}:
        broken.append("clamped although it fits")
    return "clamped" if clamped else "as alone"


def _shortfalls(seen: Observation, isolated: Alone) -> set[int]:
    """By how much the isolated KV cache may not have fitted when the budget was decided."""
    worker = isolated.result.workers[0]
    decided = "profile_cudagraph_memory ends"
    if decided not in {mark.name for mark in marks(seen.result)}:
        decided = "profile_run ends"
    found = set()
    for first in window(seen, "measure begins", "measure ends"):
        for now in window(seen, decided, "determine_available_memory ends"):
            free = DEVICE_BYTES - isolated.decided_own_bytes - now
            fits = free - worker["peak_activation_bytes"] - MARGIN_BYTES
            found.add(min(max(0, now - first), max(0, worker["available_bytes"] - fits)))
    return found


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
