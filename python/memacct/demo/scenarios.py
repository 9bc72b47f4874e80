"""The demo's scenarios as data: which engine, which neighbour, and what it does when."""

from __future__ import annotations

from dataclasses import dataclass

from memacct._units import GIB, MIB

from .engine import EngineOptions

# What every scenario is written for; on a larger device the same bytes are meant.
DEVICE_BYTES = 32 * GIB
# Beyond this, native's KV cache is not that of the isolated engine.
TOLERANCE_BYTES = 2 * MIB


@dataclass(frozen=True, kw_only=True)
class Move:
    """What the neighbour does when the engine stands at a cue (see memacct_stage.py)."""

    cue: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row (or, with several engines, one row for each) of the demo's table.

    Attributes:
        engines: started together; each waits at its first reading and inside its profiling pass
            until the others are there too.
        neighbour: commands for the neighbour before any engine starts; None: no neighbour.
        moves: in the order of the engine's cues.
        host_pids: the world where NVML lists processes by PIDs of another namespace.
        clamps: the budget does not fit and native must reduce it, with a warning.
    """

    key: str
    title: str
    engines: tuple[EngineOptions, ...]
    neighbour: tuple[str, ...] | None = None
    neighbour_device: int = 0
    moves: tuple[Move, ...] = ()
    device_count: int = 1
    host_pids: bool = False
    clamps: bool = False


EAGER = EngineOptions(budget_bytes=DEVICE_BYTES // 2)
# VLLM_PLUGINS is in the key of vLLM's compile cache: to find the same compiled model, the stock
# engine loads memacct's plugin too, which does nothing unless enabled.
GRAPHS = EngineOptions(budget_bytes=DEVICE_BYTES // 2, enforce_eager=False, plugins="memacct")
HOLD_7_GIB = (f"hold {7 * GIB}",)
GROW_3_GIB = Move(cue="profiling", command=f"hold {3 * GIB}")

ALONE = Scenario(key="a", title="alone", engines=(EAGER,))
RELEASES = Scenario(
    key="b",
    title="neighbour releases 7 GiB during profiling",
    engines=(EAGER,),
    neighbour=HOLD_7_GIB,
    moves=(Move(cue="profiling", command="release"),),
)
ALLOCATES = Scenario(
    key="c",
    title="neighbour allocates 3 GiB during profiling",
    engines=(EAGER,),
    neighbour=HOLD_7_GIB,
    moves=(GROW_3_GIB,),
)
TWO_ENGINES = Scenario(
    key="d",
    title="two engines at once",
    engines=(
        EngineOptions(budget_bytes=int(DEVICE_BYTES * 0.35)),
        EngineOptions(budget_bytes=int(DEVICE_BYTES * 0.20)),
    ),
)
GRAPH_PROFILING = Scenario(
    key="e",
    title="neighbour allocates 256 MiB during CUDA-graph profiling",
    engines=(GRAPHS,),
    neighbour=HOLD_7_GIB,
    moves=(Move(cue="graphs", command=f"hold {256 * MIB}"),),
)
HOST_PIDS = Scenario(
    key="f",
    title="container: NVML lists host PIDs; neighbour allocates 3 GiB",
    engines=(EAGER,),
    neighbour=HOLD_7_GIB,
    moves=(GROW_3_GIB,),
    host_pids=True,
)
TOO_LARGE = Scenario(
    key="g",
    title="neighbour leaves 12 GiB: the budget no longer fits",
    engines=(EAGER,),
    neighbour=HOLD_7_GIB,
    moves=(Move(cue="profiling", command=f"leave {12 * GIB}"),),
    clamps=True,
)
SCENARIOS = (ALONE, RELEASES, ALLOCATES, TWO_ENGINES, GRAPH_PROFILING, HOST_PIDS, TOO_LARGE)
