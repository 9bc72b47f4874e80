"""(7) How long after SIGKILL is a process's memory held, and what does the list say till then?"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from device_process import DeviceProcess

from memacct._units import GIB

from .answer import Answer, spread
from .nvml import Nvml

ASSUMED_S = 2.0
DEADLINE_S = 5.0
FAILURES_COUNT = 2  # after so many it is known


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    kills: list[dict[str, Any]] = []
    for _ in range(2 if short else 10):
        kills.append(_kill(nvml))
        if sum(kill["free_ms"] is None for kill in kills) == FAILURES_COUNT:
            break
    for name in ("reaped_ms", "gone_ms", "free_ms", "free_after_reaped_ms"):
        known = [kill[name] for kill in kills if kill[name] is not None]
        if known:
            answer.figures[name] = spread(known, "ms")
    answer.figures["listed_meanwhile"] = [kill["listed"] for kill in kills]
    answer.figures["left"] = [kill["left"] for kill in kills]
    late = [kill["free_ms"] for kill in kills if kill["free_ms"] is None]
    answer.check("all of it is free again", not late, f"{len(late)} of {len(kills)} are not")
    worst = max((kill["free_after_reaped_ms"] or 0.0 for kill in kills), default=0.0)
    answer.check(
        f"within {ASSUMED_S:.0f} s after its end was told", worst <= ASSUMED_S * 1e3, worst
    )
    early = sum((kill["free_after_reaped_ms"] or 0.0) <= 0 for kill in kills)
    answer.check(
        "free before its parent hears of its end (nothing was assumed)",
        None,
        f"{early} of {len(kills)}",
    )
    seconds = answer.figures.get("free_ms", {})
    answer.text = (
        f"1 GiB is free {seconds.get('p50_ms')} ms after SIGKILL (median; at most "
        f"{seconds.get('max_ms')} ms)"
    )
    return answer


def _kill(nvml: Nvml) -> dict[str, Any]:
    before = nvml.free_bytes()
    victim = DeviceProcess(None)
    own_pid = None
    listed = set(nvml.processes())
    victim.run(f"context(); allocate({GIB})")
    rows = nvml.processes()
    # In another namespace its number is not the one that we know.
    known = [victim.pid] if victim.pid in rows else [pid for pid in rows if pid not in listed]
    own_pid = known[0] if len(known) == 1 else None
    os.kill(victim.pid, signal.SIGKILL)
    seen = _watch(nvml, victim, own_pid, before)
    victim.kill()
    return {**seen, "left": nvml.free_bytes() - before}


def _watch(nvml: Nvml, victim: DeviceProcess, own_pid: int | None, before: int) -> dict[str, Any]:
    """Asks without a pause until the memory is free, the row gone and the process reaped."""
    begin_s = time.monotonic()
    seen: dict[str, Any] = {"reaped_ms": None, "gone_ms": None, "free_ms": None, "listed": []}
    while time.monotonic() - begin_s < DEADLINE_S:
        free, rows = nvml.free_bytes(), nvml.processes()
        now_ms = (time.monotonic() - begin_s) * 1e3
        state = rows.get(own_pid, "absent") if own_pid is not None else "not told apart"
        if not seen["listed"] or seen["listed"][-1][1] != state:
            seen["listed"].append([round(now_ms, 2), state])
        if seen["free_ms"] is None and free >= before:
            seen["free_ms"] = now_ms
        if seen["gone_ms"] is None and own_pid is not None and own_pid not in rows:
            seen["gone_ms"] = now_ms
        if seen["reaped_ms"] is None and victim.ended():
            seen["reaped_ms"] = now_ms
        awaited = (
            ("free_ms", "reaped_ms") if own_pid is None else ("free_ms", "gone_ms", "reaped_ms")
        )
        if all(seen[name] is not None for name in awaited):
            break
    late = seen["free_ms"] is not None and seen["reaped_ms"] is not None
    seen["free_after_reaped_ms"] = seen["free_ms"] - seen["reaped_ms"] if late else None
    return seen
