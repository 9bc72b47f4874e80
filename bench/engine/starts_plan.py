"""One random start, drawn from its seed: which engine, which neighbours, who moves when.

Points are calls of the engine, not times, so that a seed means the same on a fast and on a slow
machine. Only a race (a neighbour that moves by the clock, whatever the engine does) differs from
run to run; what must hold, holds for every order.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memacct._units import GIB, MIB
from memacct.demo.scenarios import DEVICE_BYTES, EAGER

if TYPE_CHECKING:
    from memacct.demo.engine import EngineOptions

GRAPH_SIZES = (1, 2, 4, 8)
# Graphs without torch.compile: the same captures and the same profiling of them, in seconds.
GRAPHS = replace(
    EAGER,
    enforce_eager=False,
    arguments={
        "compilation_config": {
            "mode": 0,
            "cudagraph_mode": "FULL",
            "cudagraph_capture_sizes": list(GRAPH_SIZES),
        },
        "kernel_config": {"enable_jit_warmup": False},
    },
)
V1 = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
ENGINES: dict[str, EngineOptions] = {
    "eager-v2": EAGER,
    "eager-v1": replace(EAGER, environ=V1),
    "graphs-v2": GRAPHS,
    "graphs-v1": replace(GRAPHS, environ=V1),
    "second": replace(EAGER, budget_bytes=int(DEVICE_BYTES * 0.25)),
}
CONTEXT_BYTES = 400 * MIB
# What neighbours may hold together so that the isolated engine's KV cache still fits: the device
# less the engine's budget, its context (taken before its first reading), its margin and graphs.
ROOM_BYTES = DEVICE_BYTES - EAGER.budget_bytes - CONTEXT_BYTES - 512 * MIB
PAGE_BYTES = 2 * MIB
SORTS = ("steps", "race", "second engine", "crowded", "refused")
KINDS = ("readings", "memory", "launches", "nvml")


@dataclass(frozen=True, kw_only=True)
class Move:
    """What a neighbour does at one point of the start.

    Attributes:
        neighbour: index; a new one arrives with its first move.
        action: "allocate", "release" (all it holds) or "exit".
        kind: what calls are counted; see memacct.demo.warm.KINDS.
        ratio: it happens before the call that lies at this part of all calls of the kind.
        early: only until the engine has decided its budget.
    """

    neighbour: int
    action: str
    size_bytes: int = 0
    kind: str = "readings"
    ratio: float = 0.0
    early: bool = False


@dataclass(frozen=True, kw_only=True)
class Race:
    """What a neighbour does by the clock, `delay_ms` after the one before it."""

    neighbour: int
    action: str
    size_bytes: int
    delay_ms: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A start.

    Attributes:
        engine: a key of ENGINES.
        sort: "steps", "race", "second engine", "crowded" or "refused".
        holds_bytes: by neighbour, before the start.
        second: the point at which another engine starts on the same device; None: none.
        second_killed_ms: after so long it is killed; None: it ends by itself.
    """

    seed: int
    engine: str
    sort: str
    holds_bytes: tuple[int, ...]
    moves: tuple[Move, ...] = ()
    races: tuple[Race, ...] = ()
    second: Move | None = None
    second_killed_ms: float | None = None


def draw(seed: int) -> Plan:
    """The plan of a seed, always the same."""
    chance = random.Random(seed)  # noqa: S311 - a plan, not a secret
    engine = chance.choices(list(ENGINES)[:4], weights=(60, 20, 10, 10))[0]
    sort = chance.choices(SORTS, weights=(48, 22, 14, 10, 6))[0]
    room = ROOM_BYTES - ENGINES["second"].budget_bytes if sort == "second engine" else ROOM_BYTES
    holds = _shares(chance, room, chance.randint(1, 3))
    plan = Plan(seed=seed, engine=engine, sort=sort, holds_bytes=holds)
    if sort == "race":
        return replace(plan, races=_races(chance, holds))
    moves = _steps(chance, room, holds)
    if sort == "crowded":
        # What is taken after the budget was decided, no budget can leave room for.
        early = tuple(replace(move, early=True) for move in moves if move.action == "allocate")
        late = tuple(move for move in moves if move.action != "allocate")
        return replace(plan, moves=(*early, *late, _crowding(chance, room, holds)))
    if sort == "refused":
        return _refused(chance, plan)
    if sort == "second engine":
        killed = chance.uniform(100, 3000) if chance.random() < 0.3 else None
        return replace(plan, moves=moves[:1], second=_point(chance), second_killed_ms=killed)
    return replace(plan, moves=moves)


def _shares(chance: random.Random, room: int, count: int) -> tuple[int, ...]:
    """What `count` neighbours hold at first: together at most half of the room."""
    whole = chance.uniform(0.05, 0.5) * room
    cuts = sorted(chance.random() for _ in range(count - 1))
    parts = [b - a for a, b in zip([0.0, *cuts], [*cuts, 1.0], strict=True)]
    return tuple(_pages(whole * part - CONTEXT_BYTES) for part in parts)


def _pages(size_bytes: float) -> int:
    return max(PAGE_BYTES, int(size_bytes) // PAGE_BYTES * PAGE_BYTES)


def _point(chance: random.Random) -> Move:
    kind = chance.choices(KINDS, weights=(40, 30, 10, 20))[0]
    return Move(neighbour=0, action="allocate", kind=kind, ratio=chance.random())


def _steps(chance: random.Random, room: int, holds: tuple[int, ...]) -> tuple[Move, ...]:
    """1 to 4 moves; all that was ever held fits in the room, so any order of them does."""
    left = room - sum(holds) - len(holds) * CONTEXT_BYTES
    moves = []
    for _ in range(chance.randint(1, 4)):
        who = chance.randint(0, len(holds))  # the last number: one that arrives
        action = chance.choices(("allocate", "release", "exit"), weights=(50, 35, 15))[0]
        size = 0
        if action == "allocate" or who == len(holds):
            action = "allocate"
            size = _pages(chance.choice((chance.random() ** 3, 0.02)) * (left - CONTEXT_BYTES))
            left -= size + (CONTEXT_BYTES if who == len(holds) else 0)
        moves.append(replace(_point(chance), neighbour=who, action=action, size_bytes=size))
        if left < GIB:
            break
    return tuple(moves)


def _crowding(chance: random.Random, room: int, holds: tuple[int, ...]) -> Move:
    """Up to 6 GiB more than there is room for, before the budget is decided."""
    held = sum(holds) + len(holds) * CONTEXT_BYTES
    size = _pages(room - held + chance.uniform(0.1, 6) * GIB)
    return replace(_point(chance), neighbour=0, size_bytes=size, early=True)


def _refused(chance: random.Random, plan: Plan) -> Plan:
    """A neighbour that leaves less than the budget, and may release at any point."""
    hold = _pages(DEVICE_BYTES - EAGER.budget_bytes - chance.uniform(0.8, -2) * GIB)
    moves = (replace(_point(chance), action="release"),) if chance.random() < 0.6 else ()
    return replace(plan, holds_bytes=(hold,), moves=moves)


def _races(chance: random.Random, holds: tuple[int, ...]) -> tuple[Race, ...]:
    """Neighbours 0 and up breathe: each allocates and releases by the clock, again and again."""
    left = ROOM_BYTES - sum(holds) - len(holds) * CONTEXT_BYTES
    share = left // len(holds)
    races = []
    for turn in range(60):
        who = chance.randrange(len(holds))
        action = "release" if turn % 3 == 2 else "allocate"
        size = _pages(chance.random() * share / 40)
        delay = chance.choice((chance.uniform(0, 5), chance.uniform(5, 60)))
        races.append(Race(neighbour=who, action=action, size_bytes=size, delay_ms=delay))
    return tuple(races)
