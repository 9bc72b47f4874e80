"""(8) Does an allocation find its process's record: alone, beside movers, several at once?"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from device_process import DeviceProcess, context

from memacct import _core
from memacct._units import MIB

from .answer import Answer, spread
from .cuda import ALLOCATE, PAGE_BYTES
from .namespaces import unshare_prefix
from .nvml import Nvml

PROOF_BYTES = 34 * MIB
# Moves by the very sizes that a fingerprint has, as fast as the driver lets it.
MOVER = """
import random, threading
context()
stop = threading.Event()
moves = [0]
def move():
    call("cuInit", 0)
    while not stop.is_set():
        allocate(random.randrange(3, 33, 2) * 2 * 2**20)
        release()
        moves[0] += 1
mover = threading.Thread(target=move)
mover.start()
"""
STOP = "stop.set(); mover.join(); result = moves[0]"
IDENTIFY = """
import time
result = []
for _ in range({count}):
    _core.forget_identity()
    begin_ns = time.perf_counter_ns()
    found = attempt(_core.identify, 0)
    took_ms = (time.perf_counter_ns() - begin_ns) / 1e6
    result.append([took_ms, found.get("source", found.get("raised")), found.get("own_pid"),
                   found.get("reason", found.get("text"))])
"""


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    rounds, times = (5, 3) if short else (30, 10)
    _records_move(answer, nvml, rounds)
    prefix, reason = unshare_prefix()
    if prefix is None:
        answer.skip("identify() in a pid namespace, where it must allocate", reason)
    with DeviceProcess(None, prefix=prefix or []) as one:
        one.run("context()")
        _situation(answer, "alone", [one], times)
        with DeviceProcess(None) as mover:
            mover.run(MOVER)
            _situation(answer, "beside a mover", [one], times)
            answer.figures["moves_count"] = mover.run(STOP)
        with DeviceProcess(None, prefix=prefix or []) as two:
            two.run("context()")
            _situation(answer, "two at once", [one, two], times)
    situations = ("alone", "beside a mover", "two at once")
    answer.text = "; ".join(
        f"{name}: {answer.figures[name]['found_count']} of {answer.figures[name]['asked_count']} "
        f"in {answer.figures[name]['took']['p50_ms']} ms"
        for name in situations
    )
    return answer


def _records_move(answer: Answer, nvml: Nvml, rounds: int) -> None:
    """The rule itself, without memacct: exactly one record moves, by exactly that."""
    context()
    own_pid = _core.identify(0).own_pid
    counts: dict[int, int] = {}
    took_ms = []
    for _ in range(rounds):
        size = random.randrange(3, 33, 2) * PAGE_BYTES
        begin_ns = time.perf_counter_ns()
        before = nvml.processes()
        release = ALLOCATE["cuMemAlloc"](size)
        holding = nvml.processes()
        release()
        after = nvml.processes()
        took_ms.append((time.perf_counter_ns() - begin_ns) / 1e6)
        for pid, held in holding.items():
            first, last = before.get(pid), after.get(pid)
            if held is not None and first is not None and first == last == held - size:
                counts[pid] = counts.get(pid, 0) + 1
    answer.figures["rule"] = {
        "rounds": rounds,
        "matches_by_pid": list(counts.items()),
        "round": spread(took_ms, "ms", 3),
    }
    answer.check(
        "each allocation moves one record, by exactly its size",
        list(counts.values()) == [rounds],
        list(counts.items()),
    )
    answer.check("and it is the one that memacct finds", list(counts) == [own_pid], own_pid)


def _situation(answer: Answer, name: str, processes: list[DeviceProcess], times: int) -> None:
    """identify() in all of them at the same time, and whether what it found is theirs."""
    found: list[list[Any]] = [[] for _ in processes]

    def run(place: int) -> None:
        found[place] = processes[place].run(IDENTIFY.format(count=times))

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(processes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [row for each in found for row in each]
    proofs = [_proof(process) for process in processes]
    failed = sorted({row[3] for row in rows if row[2] is None})
    answer.figures[name] = {
        "asked_count": len(rows),
        "found_count": sum(row[2] is not None for row in rows),
        "sources": sorted({row[1] for row in rows}),
        "pids": [sorted({row[2] for row in each if row[2] is not None}) for each in found],
        "took": spread([row[0] for row in rows], "ms"),
        "reasons": failed,
        "own_moves_with_it": proofs,
    }
    one_each = all(len(pids) <= 1 for pids in answer.figures[name]["pids"])
    answer.check(
        f"{name}: never another's record",
        one_each and False not in proofs,
        answer.figures[name]["pids"],
    )
    answer.check(f"{name}: found each time", not failed, failed)


def _proof(process: DeviceProcess) -> bool | None:
    """Returns whether the record that was found is the one that moves with an allocation."""
    before = process.read()["own_bytes"]
    process.run(f"allocate({PROOF_BYTES})")
    held = process.read()["own_bytes"]
    process.run("release()")
    return None if None in (before, held) else held - before == PROOF_BYTES
