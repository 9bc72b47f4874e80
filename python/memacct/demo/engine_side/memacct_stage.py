"""A vLLM worker extension: reports what a worker allocated, and gives cues to the neighbours.

A neighbour that should act "during profiling" must act between two readings that lie
milliseconds apart. A cue makes that certain, on a simulated and on a real GPU alike: at a named
point the worker writes a file and stands still until the stage manager has let the neighbours
act and answers with another. The engine's own arithmetic, readings and allocations are untouched.

vLLM's interface for this is `worker_extension_cls` (RPC methods added to the worker). This module
is imported for it before the worker's init_device, which it wraps: only the newest vLLM would call
a hook of the extension there.

The cues, in the order in which a worker passes them:
    initialised   init_device has ended: the engine's first reading of free memory is taken
    profiling     inside the profiling pass, before its forward pass; on a CPU, before it
    graphs        inside the second sample of CUDA-graph memory, which is multiplied by the
                  number of graphs
    measured      the budget is decided, nothing of it allocated
    sleeping      inside sleep, between its two readings of free memory
"""

from __future__ import annotations

import functools
import importlib
import json
import mmap
import os
import time
from pathlib import Path
from typing import Any

CUES = ("initialised", "profiling", "graphs", "measured", "sleeping")
POLL_S = 0.002


class CueError(RuntimeError):
    """The stage manager did not answer, or this vLLM has no such point."""


class Stage:
    """Which cues this worker gives; built from the environment, the same in each worker."""

    def __init__(self, rank: int) -> None:
        """Raises CueError for a name that no point has."""
        self.folder = Path(os.environ.get("MEMACCT_STAGE_DIR", ""))
        self.wait_s = float(os.environ.get("MEMACCT_STAGE_WAIT_S", "120"))
        wanted = os.environ.get("MEMACCT_STAGE_CUES", "").split(",")
        mine = rank == int(os.environ.get("MEMACCT_STAGE_RANK", "0"))
        self.cues = {name for name in wanted if name} if mine else set()
        if unknown := self.cues - set(CUES):
            raise CueError(f"no such cue: {sorted(unknown)}; there are {CUES}")

    def give(self, name: str) -> None:
        """Stands still until the answer is there. Once for each name."""
        if name not in self.cues:
            return
        self.cues.discard(name)
        (self.folder / f"{name}.reached").touch()
        deadline_s = time.monotonic() + self.wait_s
        while not (self.folder / f"{name}.go").exists():
            if time.monotonic() > deadline_s:
                raise CueError(f"no answer to the cue {name!r} in {self.wait_s} s")
            time.sleep(POLL_S)


def before(owner: Any, method: str, act: Any) -> None:
    """Calls `act()` before each call of `owner.method`; `owner` is an instance."""
    original = getattr(owner, method)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        act()
        return original(*args, **kwargs)

    setattr(owner, method, wrapper)


def watch_graphs_v1(runner: Any, stage: Stage) -> None:
    """V1 runner: each `_warmup_and_capture` inside the profiling is one sample of its mode."""
    samples = 0

    def act() -> None:
        nonlocal samples
        samples += 1
        if samples == 2:  # noqa: PLR2004 - the second sample is the one that is multiplied
            stage.give("graphs")

    before(runner, "_warmup_and_capture", act)


def watch_graphs_v2(runner: Any, stage: Stage) -> None:
    """V2 runner: between the readings of a sample, only the capture itself happens."""
    import torch

    original = torch.cuda.graph.__enter__

    @functools.wraps(original)
    def enter(self: Any) -> Any:
        manager = runner.cudagraph_manager
        samples = getattr(manager, "_capture_mem_samples", None)
        if samples is not None and len(samples) == 1:
            stage.give("graphs")
        return original(self)

    torch.cuda.graph.__enter__ = enter


def set_up(worker: Any, stage: Stage) -> None:
    """Puts the cues that are wanted at their points."""
    map_file(os.environ.get("MEMACCT_STAGE_MAP"))
    runner = worker.model_runner
    if "profiling" in stage.cues and worker.device_config.device_type == "cpu":
        before(worker, "determine_available_memory", lambda: stage.give("profiling"))
    elif "profiling" in stage.cues:
        before(runner, "profile_run", lambda: stage.give("profiling"))
    if "graphs" in stage.cues:
        is_v1 = hasattr(runner, "_warmup_and_capture")
        (watch_graphs_v1 if is_v1 else watch_graphs_v2)(runner, stage)
    if "measured" in stage.cues:
        before(worker, "initialize_from_config", lambda: stage.give("measured"))
    if "sleeping" in stage.cues:
        watch_sleep(stage)
    stage.give("initialised")


mapped: list[mmap.mmap] = []


def map_file(path: str | None) -> None:
    """Maps a file and reads each of its pages, as a checkpoint that is served from its mapping."""
    if path:
        with Path(path).open("rb") as file:
            mapped.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        sum(mapped[-1][::4096])


def status_bytes() -> dict[str, int]:
    """What the kernel tells of this process's resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    terms = dict(line.split(":", 1) for line in lines if line.startswith(("VmHWM", "RssFile")))
    kib = {name: int(value.split()[0]) for name, value in terms.items()}
    return {
        "peak_rss_bytes": kib.get("VmHWM", 0) * 1024,
        "rss_file_bytes": kib.get("RssFile", 0) * 1024,
    }


def watch_sleep(stage: Stage) -> None:
    """The engine's own allocator unmaps between the two readings; its class is shared by all."""
    from vllm.device_allocator.cumem import CuMemAllocator

    original = CuMemAllocator.sleep

    @functools.wraps(original)
    def sleep(self: Any, *args: Any, **kwargs: Any) -> Any:
        stage.give("sleeping")
        return original(self, *args, **kwargs)

    CuMemAllocator.sleep = sleep


def wrapper_class() -> Any:
    """The wrapper of a worker: what an executor calls; elsewhere before 0.12.0."""
    for name in ("vllm.v1.worker.worker_base", "vllm.worker.worker_base"):
        try:
            found = getattr(importlib.import_module(name), "WorkerWrapperBase", None)
        except ImportError:
            continue
        if found is not None:
            return found
    raise CueError("this vLLM has no WorkerWrapperBase")


def rank_of(worker: Any) -> int:
    """The worker's number among all of the engine's, data-parallel ranks included."""
    parallel = worker.vllm_config.parallel_config
    # Dense models' ranks are engines of their own in newer versions, which count them elsewhere.
    group = getattr(parallel, "data_parallel_index", None) or parallel.data_parallel_rank
    return int(group) * int(parallel.world_size) + int(worker.rank)


def follow_workers() -> None:
    """Sets up each worker when its init_device has ended; once, however often imported."""
    wrapper = wrapper_class()
    original = wrapper.init_device
    if getattr(original, "memacct_stage", False):
        return

    @functools.wraps(original)
    def init_device(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        set_up(self.worker, Stage(rank_of(self.worker)))
        return result

    init_device.memacct_stage = True  # type: ignore[attr-defined]
    wrapper.init_device = init_device


def tensors_of(value: Any) -> list[Any]:
    """Every tensor in nested lists and dicts: a KV cache may be several tensors a layer."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_of(item)]
    return [value] if hasattr(value, "untyped_storage") else []


class StageExtension:
    """Mixed into the worker's class by vLLM."""

    def demo_worker_report(self) -> dict[str, Any]:
        """What this worker allocated for its KV cache: the bytes of the storages themselves."""
        runner = self.model_runner  # type: ignore[attr-defined]
        storages = {}
        for tensor in tensors_of(runner.kv_caches):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        report = {
            "pid": os.getpid(),
            "rank": rank_of(self),
            "runner": f"{type(runner).__module__}.{type(runner).__qualname__}",
            **status_bytes(),
            "kv_cache_bytes": sum(storages.values()),
            "num_gpu_blocks": self.cache_config.num_gpu_blocks,  # type: ignore[attr-defined]
            "available_bytes": getattr(self, "available_kv_cache_memory_bytes", None),
            "requested_bytes": getattr(self, "requested_memory", None),
            "peak_activation_bytes": getattr(self, "peak_activation_memory", None),
            "weights_bytes": getattr(runner, "model_memory_usage", None),
            "graphs_estimate_bytes": getattr(self, "cudagraph_memory_estimate", None),
        }
        path = Path(os.environ["MEMACCT_STAGE_DIR"]) / f"worker-{os.getpid()}.json"
        path.write_text(json.dumps(report))
        return report


follow_workers()
