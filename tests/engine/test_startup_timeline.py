"""The start of real engines as one tree of spans, whatever processes it takes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

import memacct
from memacct._timeline_read import is_alive
from memacct._units import GIB, MIB
from memacct.demo.engine import EngineOptions, EngineResult, EngineRun
from memacct.demo.scenarios import EAGER
from memacct.report.startup_tree import start_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from memacct.demo import Bench
    from memacct.demo.warm import WarmEngines, WarmStart
    from memacct.report.startup_types import StartTree, TreeNode

pytestmark = pytest.mark.engine

BY_CONFIG = replace(EAGER, plugins="memacct", additional_config={"memacct": {"timeline": True}})
BY_ENVIRONMENT = replace(EAGER, plugins="memacct")
V1 = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
FORKED = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_WORKER_MULTIPROC_METHOD": "fork"}
OWN_WORKER = {"distributed_executor_backend": "mp"}
# The model's only file: 51 tensors.
FILE = "model.safetensors"
FILE_BYTES = 200 * MIB
LAYERS_COUNT = 4
WHOLE_COST_RATIO = 0.005
COMPILE = """
import compileall, os, memacct
compileall.compile_dir(os.path.dirname(memacct.__file__), quiet=1)
"""

# Each step of the list that this version has, with the step that it lies in.
CORE_STEPS = {
    "Executor": "EngineCore",
    "initialize KV caches": "EngineCore",
    "Executor.get_kv_cache_specs": "initialize KV caches",
    "Executor.determine_available_memory": "initialize KV caches",
    "get_kv_cache_configs": "initialize KV caches",
    "Executor.initialize_from_config": "initialize KV caches",
    "Executor.compile_or_warm_up_model": "initialize KV caches",
    "StructuredOutputManager": "EngineCore",
    "Scheduler": "EngineCore",
}
WORKER_STEPS = {
    "init_worker": "Executor",
    "Worker.init_device": "Executor",
    "distributed environment": "Worker.init_device",
    "Worker.load_model": "Executor",
    "ModelRunner.load_model": "Worker.load_model",
    "loader.load_model": "ModelRunner.load_model",
    "load_weights": "loader.load_model",
    "weights: safetensors_weights_iterator": "load_weights",
    FILE: "weights: safetensors_weights_iterator",
    "process_weights_after_loading": "loader.load_model",
    "Worker.get_kv_cache_spec": "Executor.get_kv_cache_specs",
    "Worker.determine_available_memory": "Executor.determine_available_memory",
    "Worker.initialize_from_config": "Executor.initialize_from_config",
    "ModelRunner.initialize_kv_cache": "Worker.initialize_from_config",
    "Worker.compile_or_warm_up_model": "Executor.compile_or_warm_up_model",
}
V1_STEPS = {
    "workspace manager": "Worker.init_device",
    "ModelRunner": "Worker.init_device",
    "InputBatch": "ModelRunner",
    "ModelRunner.profile_run": "Worker.determine_available_memory",
}
V2_STEPS = {
    "workspace manager": "Worker.init_device",
    "ModelRunner V2": "Worker.init_device",
    "RequestState": "ModelRunner V2",
    "InputBuffers": "ModelRunner V2",
    "ModelRunner.profile_run": "Worker.determine_available_memory",
}
CPU_STEPS = {
    "ModelRunner": "Worker.init_device",
    "InputBatch": "ModelRunner",
    "ModelRunner.warming_up_model": "Worker.determine_available_memory",
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a start came to, and what its processes wrote of it."""

    result: EngineResult
    merged: memacct.MergedTimeline
    tree: StartTree


def told(result: EngineResult) -> Told:
    merged = memacct.read_timeline(result.log_path.parent / "memacct")
    tree = start_tree(merged, is_alive=is_alive)
    json.dumps(tree.as_data())  # plain data, or this raises
    return Told(result=result, merged=merged, tree=tree)


@contextlib.contextmanager
def ended_with(started: WarmStart) -> Iterator[None]:
    """Ends the processes that a forked engine started: its own end is not theirs."""
    try:
        yield
    finally:
        for record in memacct.read_timeline(started.folder / "memacct").records:
            if record.pid != started.pid and is_alive(record):
                os.kill(record.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def in_process(warm: WarmEngines) -> Told:
    """One process, the V1 runner, weights read at once, each tensor of them a point."""
    options = replace(
        BY_ENVIRONMENT,
        environ={**V1, "MEMACCT_TIMELINE": "tensors"},
        arguments={"safetensors_load_strategy": "eager"},
    )
    return told(warm.start(options, "timeline-eager").finish())


@pytest.fixture(scope="module")
def mapped(warm: WarmEngines) -> Told:
    """The same with weights that are mapped, and the native profiler beside it."""
    config = {"memacct": {"timeline": "tensors", "profiler": "native"}}
    options = replace(BY_CONFIG, environ=V1, additional_config=config)
    return told(warm.start(options, "timeline-lazy").finish())


@pytest.fixture(scope="module")
def forked(warm: WarmEngines) -> Told:
    """Three processes by fork, the V2 runner."""
    options = replace(BY_CONFIG, environ=FORKED, arguments=OWN_WORKER)
    started = warm.start(options, "timeline-fork", stay=True)
    with ended_with(started):
        assert started.wait() == "result"
    started.go()
    return told(started.finish())


@pytest.fixture(scope="module")
def spawned(cpu_python: Path, bench: Bench, say: Callable[[str], None]) -> Told:
    """Three processes by spawn, on the CPU."""
    options = EngineOptions(
        budget_bytes=3 * GIB,
        plugins="memacct",
        additional_config={"memacct": {"timeline": True}},
    )
    # As pip leaves an installed package: a start does not compile it.
    subprocess.run([cpu_python, "-c", COMPILE], check=True)
    say("engine start: timeline-spawn")
    engine = EngineRun(
        options,
        python=cpu_python,
        model=bench.model,
        folder=bench.folder / "timeline-spawn",
        total_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        environ=os.environ,
    )
    with engine:
        return told(engine.finish())


def parents(tree: StartTree) -> dict[str, list[tuple[TreeNode, str]]]:
    """Each step by name, with the name of the span around it; processes are looked through."""
    found: dict[str, list[tuple[TreeNode, str]]] = {}

    def visit(node: TreeNode, around: str) -> None:
        if node.kind != "process":
            found.setdefault(node.name, []).append((node, around))
            around = node.name
        for child in node.children:
            visit(child, around)

    for root in tree.roots:
        visit(root, "")
    return found


def assert_steps(found: Told, steps: dict[str, str], process: str) -> None:
    assert found.result.served, found.result.error
    pids = {account.name: account.pid for account in found.tree.processes}
    known = parents(found.tree)
    missing = [name for name in steps if name not in known]
    assert missing == []
    for name, around in steps.items():
        assert [(node.pid, place) for node, place in known[name]] == [(pids[process], around)]
        assert all(node.end_ns is not None for node, _ in known[name])


def test_every_step_of_one_process(in_process: Told) -> None:
    assert_steps(in_process, CORE_STEPS | WORKER_STEPS | V1_STEPS, "main")
    assert len(in_process.tree.processes) == 1


def test_every_step_of_forked_processes(forked: Told) -> None:
    assert_steps(forked, CORE_STEPS, "EngineCore")
    assert_steps(forked, WORKER_STEPS | V2_STEPS, "Worker 0")
    assert_steps(forked, {"EngineCore": "wait for EngineCore"}, "EngineCore")
    assert_steps(forked, {"wait for EngineCore": "LLMEngine"}, "main")


def test_every_step_of_spawned_processes(spawned: Told) -> None:
    assert_steps(spawned, CORE_STEPS, "EngineCore")
    assert_steps(spawned, WORKER_STEPS | CPU_STEPS, "Worker 0")
    assert_steps(spawned, {"EngineCore": "wait for EngineCore"}, "EngineCore")


@pytest.mark.parametrize("name", ["in_process", "mapped", "forked", "spawned"])
def test_the_sum_is_the_resident_memory_of_every_process(
    name: str, request: pytest.FixtureRequest
) -> None:
    found: Told = request.getfixturevalue(name)
    assert found.tree.processes
    for account in found.tree.processes:
        assert account.holds, account.check
        assert account.state == "started"
        assert account.lost_count == 0
    for record in found.merged.records:
        check = record.identity()
        assert check is not None
        assert check.difference_bytes == 0


def test_each_process_says_once_which_hooks_it_found(forked: Told, in_process: Told) -> None:
    lines = [line for line in forked.result.log().splitlines() if "hooks found" in line]
    assert len(lines) == len(forked.tree.processes)
    (line,) = [line for line in in_process.result.log().splitlines() if "hooks found" in line]
    assert "not in this vLLM: " in line
    assert "Worker.initialize_cache" in line


def test_device_memory_is_told_from_the_context_on(forked: Told, in_process: Told) -> None:
    for found in (forked, in_process):
        cache = found.tree.find("ModelRunner.initialize_kv_cache")
        assert cache.begin.own_device_bytes is not None
        # Each layer's tensor is rounded up to whole pages of 2 MiB.
        assert cache.delta.own_device_bytes is not None
        assert found.result.kv_cache_bytes is not None
        rounded_bytes = cache.delta.own_device_bytes - found.result.kv_cache_bytes
        assert 0 <= rounded_bytes <= LAYERS_COUNT * 2 * MIB
        assert found.tree.find("LLMEngine").begin.own_device_bytes is None
        assert found.tree.find("init_worker").end.own_device_bytes is None
    core = next(each for each in forked.tree.processes if each.name == "EngineCore")
    assert core.last.own_device_bytes is None  # no context was made there by reading


def number(node: TreeNode, name: str) -> int:
    value = node.notes[name]
    assert isinstance(value, int)
    return value


def test_buffers_tell_their_sizes(in_process: Told, forked: Told) -> None:
    batch = in_process.tree.find("InputBatch")
    tokens_bytes = number(batch, "token_ids_cpu_tensor_bytes")
    # int32 and bool of one shape, max_num_seqs x max_model_len.
    assert tokens_bytes == 4 * number(batch, "is_token_ids_tensor_bytes")
    assert tokens_bytes % (4 * EAGER.max_model_len) == 0
    state = forked.tree.find("RequestState")
    assert number(state, "all_token_ids_bytes") >= tokens_bytes
    loaded = forked.tree.find("process_weights_after_loading")
    assert number(loaded, "device_loading_context_count") > 0


def weights(found: Told) -> tuple[TreeNode, list[TreeNode]]:
    file = found.tree.find(FILE)
    assert number(file, "tensors_count") == len(file.children) == 51
    each_bytes = [number(tensor, "tensor_bytes") for tensor in file.children]
    assert number(file, "tensors_bytes") == sum(each_bytes)
    return file, file.children


def test_mapped_weights_are_reclaimable_and_weights_read_at_once_are_held(
    mapped: Told, in_process: Told
) -> None:
    """The simulated GPU keeps what is copied to it in this process: held, in both."""
    file, points = weights(mapped)
    size_bytes = number(file, "file_bytes")
    assert size_bytes > FILE_BYTES
    grown = points[-1].end.since(file.begin)
    assert grown.reclaimable_bytes == pytest.approx(size_bytes, rel=0.05)
    copied_bytes = grown.held_bytes
    assert copied_bytes is not None
    # Of the file itself nothing is held: only the copies are.
    assert copied_bytes == pytest.approx(number(file, "tensors_bytes"), rel=0.05)

    eager, points = weights(in_process)
    grown = points[-1].end.since(eager.begin)
    assert grown.reclaimable_bytes == pytest.approx(0, abs=0.05 * size_bytes)
    assert grown.held_bytes is not None
    assert grown.held_bytes - copied_bytes == pytest.approx(size_bytes, rel=0.1)
    # All of it was there before the first tensor was used, which may be any: its copy is there too.
    held_bytes = points[0].end.since(eager.begin).held_bytes
    assert held_bytes is not None
    first_bytes = number(points[0], "tensor_bytes")
    assert 0.9 * size_bytes < held_bytes < 1.1 * size_bytes + first_bytes
    assert first_bytes < size_bytes / 2


def test_the_native_profiler_goes_with_it(mapped: Told, in_process: Told) -> None:
    assert_steps(mapped, CORE_STEPS | WORKER_STEPS | V1_STEPS, "main")
    assert mapped.result.kv_cache_bytes == in_process.result.kv_cache_bytes
    assert "memacct: KV cache budget" in mapped.result.log()


def test_it_costs_less_than_half_a_percent_of_the_start(spawned: Told) -> None:
    """All processes' own time together, though they do not wait for each other's whole."""
    took_ns = max(node.end_ns or 0 for node in spawned.tree.walk())
    cpu_ns = sum(account.own_cpu_ns or 0 for account in spawned.tree.processes)
    wall_ns = sum(account.own_wall_ns or 0 for account in spawned.tree.processes)
    assert len(spawned.tree.processes) == 3
    assert cpu_ns > 0
    assert cpu_ns / took_ns < WHOLE_COST_RATIO, f"{wall_ns=} {took_ns=}"


def until_recorded(folder: Path, name: str, limit_s: float = 60.0) -> int:
    """Waits until a process has begun the span ``name``; returns its pid."""
    deadline_s = time.monotonic() + limit_s
    said = f'"name":{json.dumps(name)}'.encode()
    while time.monotonic() < deadline_s:
        for file in folder.glob("timeline-*.jsonl"):
            if said in file.read_bytes():
                return int(file.name.split("-")[1])
        time.sleep(0.002)
    raise AssertionError(f"no process began {name!r} in {limit_s} s")


def test_it_survives_a_worker_that_is_killed_while_it_loads(warm: WarmEngines) -> None:
    options = replace(BY_CONFIG, environ=FORKED, arguments=OWN_WORKER)
    started = warm.start(options, "timeline-killed")
    with ended_with(started):
        pid = until_recorded(started.folder / "memacct", FILE)
        os.kill(pid, signal.SIGKILL)
        result = started.finish()
    found = told(result)
    assert not result.served
    (worker,) = [account for account in found.tree.processes if account.pid == pid]
    assert (worker.name, worker.state, worker.holds) == ("Worker 0", "ended", None)
    assert "Worker.load_model" in worker.open_spans
    # What was recorded before is there, each line whole but for a last one.
    assert found.tree.find("Worker.init_device").end_ns is not None
    assert found.tree.find("Worker.load_model").end_ns is None
    assert found.tree.find(FILE).begin.rss_bytes
    assert found.merged.torn_count <= 1
    text = str(found.tree)
    assert "Worker 0 (process" in text
    assert "was killed or failed in " in text
    (node, around) = parents(found.tree)["Worker.load_model"][0]
    assert (node.pid, around) == (pid, "Executor")
