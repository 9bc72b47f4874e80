"""What is run on a GPU version: the demo's scenarios a to e, then each other shape of an engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memacct._units import GIB, MIB
from memacct.demo import Move, Scenario
from memacct.demo.scenarios import (
    ALLOCATES,
    ALONE,
    EAGER,
    GRAPH_PROFILING,
    GROW_3_GIB,
    RELEASES,
    TWO_ENGINES,
)

if TYPE_CHECKING:
    from .versions import Target

# Full graphs of a model that is not compiled: nothing to compile first, the same graphs each time.
GRAPH_SIZES = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One cell (or, with several engines, several results in one cell).

    Attributes:
        stock: whether the stock engine is run in the scenario too; otherwise only isolated.
        like: a scenario whose isolated engine should have the same KV cache; None: its own.
        why_not: why this version cannot do it; nothing is run.
    """

    key: str
    title: str
    scenario: Scenario = ALONE
    stock: bool = False
    like: Scenario | None = None
    why_not: str | None = None


def cases(target: Target) -> tuple[Case, ...]:
    """The cases of one GPU version."""
    scenarios = (ALONE, RELEASES, ALLOCATES, TWO_ENGINES, graphs(target))
    demo = tuple(
        Case(key=scenario.key, title=scenario.title, scenario=scenario, stock=True)
        for scenario in scenarios
    )
    return (*demo, spawn(), in_process(), other_runner(target), two_gpus(), ranks(), sleeping())


def graphs(target: Target) -> Scenario:
    """Scenario e; without graph profiling the neighbour moves in the profiling pass."""
    mode = "mode" if target.number >= (0, 12) else "level"
    compilation = {mode: 0, "cudagraph_mode": "FULL", "cudagraph_capture_sizes": list(GRAPH_SIZES)}
    engine = replace(
        GRAPH_PROFILING.engines[0],
        arguments={"compilation_config": compilation},
        environ={"VLLM_USE_V2_MODEL_RUNNER": "0"} if target.profiles_graphs_by_v1_only else {},
    )
    if target.profiles_graphs:
        return replace(GRAPH_PROFILING, engines=(engine,))
    return replace(
        GRAPH_PROFILING,
        engines=(engine,),
        title="with CUDA graphs, neighbour allocates 256 MiB during profiling",
        moves=(Move(cue="profiling", command=f"hold {256 * MIB}"),),
    )


def spawn() -> Case:
    """The engine's processes are started anew instead of forked."""
    engine = replace(EAGER, environ={"VLLM_WORKER_MULTIPROC_METHOD": "spawn"})
    scenario = replace(ALLOCATES, key="spawn", engines=(engine,))
    return Case(key="spawn", title="processes spawned", scenario=scenario, like=ALONE)


def in_process() -> Case:
    """No process beside the caller's."""
    engine = replace(EAGER, environ={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    scenario = replace(ALLOCATES, key="inproc", engines=(engine,))
    return Case(key="in-process", title="in one process", scenario=scenario, like=ALONE)


def other_runner(target: Target) -> Case:
    """The model runner that is not the version's default."""
    value = target.other_runner
    if value is None:
        return Case(key="runner", title="the other model runner", why_not="there is only V1")
    engine = replace(EAGER, environ={"VLLM_USE_V2_MODEL_RUNNER": value})
    name = "V1" if value == "0" else "V2"
    scenario = replace(ALLOCATES, key="runner", engines=(engine,))
    return Case(key="runner", title=f"model runner {name}", scenario=scenario)


def two_gpus() -> Case:
    """Tensor parallel, and the neighbour is on the second GPU only."""
    # The simulated GPUs do not share memory with each other; 0.11 would have it by default.
    environ = {"VLLM_ALLREDUCE_USE_SYMM_MEM": "0"}
    engine = replace(EAGER, tensor_parallel_size=2, environ=environ)
    scenario = replace(ALLOCATES, key="tp2", engines=(engine,), device_count=2, neighbour_device=1)
    return Case(key="tp2", title="world size 2", scenario=scenario)


def ranks() -> Case:
    """Two data-parallel ranks on a GPU each; the neighbour is on the second one's."""
    engine = replace(EAGER, arguments={"data_parallel_size": 2}, server=True)
    scenario = replace(ALLOCATES, key="dp2", engines=(engine,), device_count=2, neighbour_device=1)
    return Case(key="dp2", title="data parallel 2", scenario=scenario)


def sleeping() -> Case:
    """Sleeps and wakes up; the neighbour moves during profiling and during the sleep."""
    engine = replace(EAGER, arguments={"enable_sleep_mode": True}, sleeps=True)
    moves = (GROW_3_GIB, Move(cue="sleeping", command=f"hold {GIB}"))
    scenario = replace(ALLOCATES, key="sleep", engines=(engine,), moves=moves)
    return Case(key="sleep", title="sleep and wake_up", scenario=scenario)
