"""Random schedules of neighbours, carried out inside the reading process's own driver calls.

The processes are real; the simulated GPU changes what they hold before the calls that a schedule
names, and logs all that held from one instant to the next (cpp/sim/core/moves.hpp).
"""

from __future__ import annotations

import collections
import ctypes
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct._units import MIB
from memacct.sim._libraries import library_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOGGED_PROCESSES = 8  # kLoggedProcesses
_LONGEST_LOG = 512
_PAGE_BYTES = 2 * MIB
_LARGEST_PAGES = 64  # few sizes: what comes back, or adds up to the same, is common
_FEW_CALLS = 14  # two collects and a bit
_ALL_CALLS = 70  # more than eight collects


class _Move(ctypes.Structure):
    _fields_ = (("call", ctypes.c_uint32), ("pid", ctypes.c_int32), ("delta", ctypes.c_int64))


class _Held(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_int64), ("bytes", ctypes.c_uint64))


class _Instant(ctypes.Structure):
    _fields_ = (
        ("call", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("free_bytes", ctypes.c_uint64),
        ("unattributed_bytes", ctypes.c_uint64),
        ("processes", _Held * _LOGGED_PROCESSES),
    )


@dataclass(frozen=True)
class Instant:
    """All of the device at once; of processes that hold something."""

    free_bytes: int
    unattributed_bytes: int
    held_bytes: dict[int, int]


@dataclass
class Outcome:
    """What became of the schedules.

    Attributes:
        counts: how many readings were consistent, and how many were not.
        attempts: how many collects they took.
        wrong: readings that break the law, with their log.
    """

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    attempts: collections.Counter[int] = field(default_factory=collections.Counter)
    wrong: list[dict[str, Any]] = field(default_factory=list)


def _value(random_: random.Random, past: Sequence[int]) -> int:
    """What a process holds next: nothing, what it once held, or something new."""
    draw = random_.random()
    if draw < 0.15:
        return 0
    if draw < 0.6:
        return random_.choice(past)
    return random_.randint(1, _LARGEST_PAGES) * _PAGE_BYTES


def draw(random_: random.Random, held_bytes: dict[int, int], pids: Sequence[int]) -> list[_Move]:
    """Returns one schedule: who changes by how much, before which call."""
    restless = random_.random() < 0.1
    calls_count = _ALL_CALLS if restless else _FEW_CALLS
    moves_count = random_.randint(20, 60) if restless else random_.randint(0, 8)
    past = {pid: [held_bytes.get(pid, 0)] for pid in pids}
    moves = []
    for call in sorted(random_.randrange(calls_count) for _ in range(moves_count)):
        pid = random_.choice(pids)
        value = _value(random_, past[pid])
        moves.append(_Move(call, pid, value - past[pid][-1]))
        past[pid].append(value)
    return moves


class Driver:
    """The simulated GPU's plans, in this process."""

    def __init__(self) -> None:
        self._core = ctypes.CDLL(str(library_directory() / "libmemacct_sim_core.so"))
        self._log = (_Instant * _LONGEST_LOG)()

    def plan(self, moves: Sequence[_Move]) -> None:
        """Has `moves` carried out in the NVML calls from now on."""
        count = len(moves)
        self._core.memacct_sim_plan((_Move * max(count, 1))(*moves), ctypes.c_size_t(count))

    def log(self) -> list[Instant]:
        """Returns what held since, from the state at that time on."""
        count = self._core.memacct_sim_log(self._log, ctypes.c_size_t(_LONGEST_LOG))
        assert count <= _LONGEST_LOG
        return [
            Instant(
                one.free_bytes,
                one.unattributed_bytes,
                {held.pid: held.bytes for held in one.processes[: one.count]},
            )
            for one in self._log[:count]
        ]


def _held_at_once(reading: _core.DeviceMemory, instant: Instant) -> bool:
    listed = {process.pid: process.process_used_bytes for process in reading.processes}
    return (
        reading.free_bytes == instant.free_bytes
        and listed == instant.held_bytes
        and reading.unattributed_bytes == instant.unattributed_bytes
    )


def _within_bounds(reading: _core.DeviceMemory, instant: Instant, own_pid: int) -> bool:
    own = instant.held_bytes.get(own_pid, 0)
    foreign = sum(instant.held_bytes.values()) - own
    own_bounds, foreign_bounds = reading.own_read_bounds_bytes, reading.foreign_read_bounds_bytes
    assert own_bounds is not None
    assert foreign_bounds is not None
    return (
        own_bounds[0] <= own <= own_bounds[1] and foreign_bounds[0] <= foreign <= foreign_bounds[1]
    )


def obeys(reading: _core.DeviceMemory, log: Sequence[Instant], own_pid: int) -> bool:
    """Whether a consistent reading held at once, or an inconsistent one's bounds are right."""
    if reading.consistent:
        return any(_held_at_once(reading, instant) for instant in log)
    # Whenever the memory was as it was read: one of these is the instant that it was read at.
    then = [instant for instant in log if instant.free_bytes == reading.free_bytes]
    return bool(then) and all(_within_bounds(reading, instant, own_pid) for instant in then)


def run(seed: int, count: int, pids: Sequence[int], own_pid: int) -> Outcome:
    """Takes `count` readings, each beside its own schedule. Each fourth session is a new one."""
    random_ = random.Random(seed)  # noqa: S311 (to be the same each time)
    driver = Driver()
    driver.plan([])
    outcome = Outcome()
    for _ in range(count):
        if random_.random() < 0.25:
            _core.close_devices()  # nothing is remembered of the device then
            _core.list_devices()
        moves = draw(random_, driver.log()[-1].held_bytes, pids)
        driver.plan(moves)
        reading = _core.read_device(0)
        log = driver.log()
        outcome.counts["consistent" if reading.consistent else "inconsistent"] += 1
        outcome.attempts[reading.attempts_count] += 1
        if not obeys(reading, log, own_pid):
            plan = [(move.call, move.pid, move.delta) for move in moves]
            wrong = {"reading": reading.to_dict(), "moves": plan, "log": [vars(i) for i in log]}
            outcome.wrong.append(wrong)
    return outcome
