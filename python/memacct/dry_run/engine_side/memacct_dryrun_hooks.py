"""A vLLM plugin that writes down how a start goes: of each worker and of each engine core.

vLLM loads it in each of its processes (entry point group ``vllm.general_plugins``). Nothing of
the engine's arithmetic, readings or allocations is touched.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

import memacct_cutlass
import memacct_dryrun_core as core_side
import memacct_dryrun_made_up as made_up
import memacct_flashinfer
import memacct_flashinfer_sampler
import memacct_unified
from memacct_dryrun_files import FOLDER, Record, machine_status
from memacct_dryrun_worker import Watched, wrap

WRAPPER_MODULES = ("vllm.v1.worker.worker_base", "vllm.worker.worker_base")


def register() -> None:
    """The plugin: hooks what this process has imported. Cheap where it is neither kind."""
    if not os.environ.get(FOLDER):
        return
    memacct_flashinfer.apply()
    memacct_cutlass.apply()
    memacct_flashinfer_sampler.apply()
    memacct_unified.apply()
    importlib.import_module("memacct_small_results").apply()
    # A process that only inspects a model has not imported these, and shall not.
    for name in WRAPPER_MODULES:
        if name in sys.modules:
            hook_workers(sys.modules[name])
    if "vllm.v1.engine.core" in sys.modules:
        core_side.hook(sys.modules["vllm.v1.engine.core"])


def hook_all() -> None:
    """For the process that makes the engine itself: imports what is to be hooked."""
    for name in WRAPPER_MODULES:
        with contextlib.suppress(ImportError):
            hook_workers(importlib.import_module(name))
    core_side.hook(importlib.import_module("vllm.v1.engine.core"))


def hook_workers(module: Any) -> None:
    """Has each worker watched from its first step on."""
    found = getattr(module, "WorkerWrapperBase", None)
    if found is not None:
        wrap(found, "init_device", _around_init_device)


def rank_of(worker: Any) -> int:
    """The worker's number among all of the engine's, data-parallel ranks included."""
    parallel = worker.vllm_config.parallel_config
    # Dense models' ranks are engines of their own in newer versions, which count them elsewhere.
    group = getattr(parallel, "data_parallel_index", None) or parallel.data_parallel_rank
    return int(group) * int(parallel.world_size) + int(worker.rank)


def _around_init_device(original: Any, wrapper: Any, *args: Any, **kwargs: Any) -> Any:
    worker = wrapper.worker
    rank = rank_of(worker)
    config = worker.vllm_config
    record = Record(
        f"worker-{rank}",
        rank=rank,
        resolved=core_side.resolved(config),
        utilization=float(config.cache_config.gpu_memory_utilization),
    )
    record.moment("begin", machine=machine_status())
    watched = Watched(worker, record)
    _watch_profiling(watched)
    made_up.hook_worker_process()
    with record.phase("init device"):
        try:
            result = original(wrapper, *args, **kwargs)
        except BaseException as error:
            watched.fail("init_device", error)
            raise
    _hook_instance(watched)
    return result


def _watch_profiling(watched: Watched) -> None:
    """Keeps the result of the engine's own profiling, which it only logs."""
    worker_module = importlib.import_module(type(watched.worker).__module__)

    class Kept:
        def __init__(self, manager: Any) -> None:
            self.manager = manager

        def __enter__(self) -> Any:
            watched.profiling = self.manager.__enter__()
            return watched.profiling

        def __exit__(self, *what: object) -> Any:
            return self.manager.__exit__(*what)

    def around(original: Any, *args: Any, **kwargs: Any) -> Any:
        return Kept(original(*args, **kwargs))

    wrap(worker_module, "memory_profiling", around)


def _hook_instance(watched: Watched) -> None:
    worker, record = watched.worker, watched.record
    import torch

    watched.observe_out_of_memory()
    uuid = str(getattr(torch.cuda.get_device_properties(worker.device), "uuid", ""))
    record.tell(device_uuid=uuid, device=worker.device.index, **watched.terms())
    watched.moment("initialised")
    steps = {
        "load_model": ("load", "loaded"),
        "determine_available_memory": ("profile", "profiled"),
        "initialize_from_config": ("allocate KV cache", "allocated"),
        "compile_or_warm_up_model": ("warm up", "started"),
    }
    for method, (phase, moment) in steps.items():
        wrap(worker, method, _step(watched, method, phase, moment))
    runner = worker.model_runner
    wrap(runner, "profile_run", _around_profile_run(watched))
    wrap(runner, "profile_cudagraph_memory", _around_graph_profiling(watched))
    wrap(runner, "capture_model", _around_capture(watched))


def _step(watched: Watched, method: str, phase: str, moment: str) -> Any:
    def around(original: Any, *args: Any, **kwargs: Any) -> Any:
        with watched.record.phase(phase):
            try:
                result = original(*args, **kwargs)
            except BaseException as error:
                watched.fail(method, error)
                raise
        more: dict[str, Any] = {}
        if method == "determine_available_memory":
            more["available_bytes"] = int(result)
        if method in {"initialize_from_config", "compile_or_warm_up_model"}:
            more.update(kv_cache_bytes=watched.cache_bytes(), pools=watched.pools())
        watched.moment(moment, **more, **watched.pages())
        facts = {"settings": watched.settings(), "compile_s": watched.compile_s()}
        facts["notes"] = memacct_flashinfer.notes() or None
        watched.record.tell(**watched.terms(), **facts)
        return result

    return around


def _around_profile_run(watched: Watched) -> Any:
    def around(original: Any, *args: Any, **kwargs: Any) -> Any:
        if "forward" in watched.record.facts["moments"]:
            return original(*args, **kwargs)  # only the first is the profiling pass
        import torch

        # The engine resets the peak of what is allocated; what was cached before is given back.
        watched.moment("before forward")
        with watched.record.phase("profile: forward pass"):
            result = original(*args, **kwargs)
            torch.cuda.synchronize(watched.worker.device)
        # Before anything is given back: the pages that the peak took are still held.
        watched.moment("forward", **watched.pages())
        return result

    return around


def _around_graph_profiling(watched: Watched) -> Any:
    def around(original: Any, *args: Any, **kwargs: Any) -> Any:
        with watched.record.phase("profile: graphs"):
            try:
                return original(*args, **kwargs)
            except BaseException as error:
                watched.fail("profile_cudagraph_memory", error)
                raise

    return around


def _around_capture(watched: Watched) -> Any:
    def around(original: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("profile_only"):
            return original(*args, **kwargs)
        watched.moment("before capture", pools=watched.pools())
        with watched.record.phase("capture graphs"):
            try:
                result = original(*args, **kwargs)
            except BaseException as error:
                watched.fail("capture_model", error)
                raise
        watched.moment("captured", pools=watched.pools())
        watched.record.tell(graphs_bytes=None if result is None else int(result))
        return result

    return around
