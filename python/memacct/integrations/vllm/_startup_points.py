"""The points of an engine's start at which its memory is read, as data.

Each is looked for when its module has been imported, and left out where this vLLM has none of
that name: no version is asked for. A module is never imported for the purpose.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

# What is done at a point besides, or instead of, a span around the call:
#   span        nothing else
#   front       the process that serves the user: its start ends with the outermost one
#   children    processes are started in it: they are told the folder
#   core        EngineCore's own start
#   core end    the last thing that EngineCore does in its start; no span
#   core ended  called when its start is over, for vLLM before 0.12; no span
#   caches      as span; the executor, known now, gets its spans before
#   worker made the worker's process begins with it
#   worker      no span; the worker, known now, gets its spans before
#   loader      no span; the loader's class, known now, gets its spans
#   weights     a generator of (name, tensor): a span for it and for each file of it
#   buffers     as span; tells how large what is in the new object is
#   processing  as span; tells the sums of "often"
#   often       called hundreds of times: summed up, told by the span around it
Role = Literal[
    "span",
    "front",
    "children",
    "core",
    "core end",
    "core ended",
    "caches",
    "worker made",
    "worker",
    "loader",
    "weights",
    "buffers",
    "processing",
    "often",
]


class Point(NamedTuple):  # a dataclass takes longer to make, in every process of an engine
    """One function of vLLM.

    Attributes:
        module: where it is looked up by its callers, which may have a name of their own for it.
        path: "function" or "Class.method"; "*_iterator" is each function that ends so.
        name: of the span.
        role: what is done there.
    """

    module: str
    path: str
    name: str = ""
    role: Role = "span"

    @property
    def key(self) -> str:
        """Text that names it."""
        return f"{self.module}:{self.path}"


def _points(module: str, *listed: tuple[str, str] | tuple[str, str, Role]) -> tuple[Point, ...]:
    found = []
    for path, name, *role in listed:
        found.append(Point(module=module, path=path, name=name, role=role[0] if role else "span"))
    return tuple(found)


_LOADERS = "vllm.model_executor.model_loader"

POINTS: tuple[Point, ...] = (
    *_points("vllm.v1.engine.llm_engine", ("LLMEngine.__init__", "LLMEngine", "front")),
    *_points("vllm.v1.engine.async_llm", ("AsyncLLM.__init__", "AsyncLLM", "front")),
    *_points("vllm.v1.engine.core_client", ("MPClient.__init__", "wait for EngineCore")),
    *_points(
        "vllm.v1.engine.utils",
        ("CoreEngineProcManager.__init__", "start EngineCore", "children"),
        ("CoreEngineActorManager.__init__", "start EngineCore (Ray)", "children"),
    ),
    *_points("vllm.v1.utils", ("APIServerProcessManager.__init__", "start servers", "children")),
    *_points(
        "vllm.v1.engine.core",
        ("EngineCore.__init__", "EngineCore", "core"),
        ("EngineCore._initialize_kv_caches", "initialize KV caches", "caches"),
        ("get_kv_cache_configs", "get_kv_cache_configs"),
        ("freeze_gc_heap", "freeze_gc_heap", "core end"),
        ("EngineCoreProc.run_busy_loop", "run_busy_loop", "core ended"),
        ("DPEngineCoreProc.run_busy_loop", "run_busy_loop", "core ended"),
    ),
    *_points("vllm.v1.executor.abstract", ("Executor.__init__", "Executor", "children")),
    *_points(
        "vllm.v1.structured_output",
        ("StructuredOutputManager.__init__", "StructuredOutputManager"),
    ),
    *_points("vllm.v1.core.sched.scheduler", ("Scheduler.__init__", "Scheduler")),
    *(
        point
        # The first one until vLLM 0.11.
        for module in ("vllm.worker.worker_base", "vllm.v1.worker.worker_base")
        for point in _points(
            module,
            ("WorkerWrapperBase.init_worker", "init_worker", "worker made"),
            ("WorkerWrapperBase.init_device", "init_device", "worker"),
        )
    ),
    *_points(
        "vllm.v1.worker.gpu_worker",
        ("init_worker_distributed_environment", "distributed environment"),
        ("init_workspace_manager", "workspace manager"),
    ),
    *_points("vllm.v1.worker.xpu_worker", ("init_workspace_manager", "workspace manager")),
    *_points(
        "vllm.v1.worker.cpu_worker",
        ("init_worker_distributed_environment", "distributed environment"),
    ),
    *_points("vllm.v1.worker.gpu_model_runner", ("GPUModelRunner.__init__", "ModelRunner")),
    *_points("vllm.v1.worker.gpu.model_runner", ("GPUModelRunner.__init__", "ModelRunner V2")),
    *_points("vllm.v1.worker.gpu_input_batch", ("InputBatch.__init__", "InputBatch", "buffers")),
    *_points("vllm.v1.worker.gpu.states", ("RequestState.__init__", "RequestState", "buffers")),
    *_points(
        "vllm.v1.worker.gpu.input_batch", ("InputBuffers.__init__", "InputBuffers", "buffers")
    ),
    *_points(f"{_LOADERS}.base_loader", ("BaseModelLoader.__init__", "loader", "loader")),
    *(
        Point(module=f"{_LOADERS}.{module}", path="*_iterator", role="weights")
        for module in (
            "default_loader",
            "runai_streamer_loader",
            "gguf_loader",
            "bitsandbytes_loader",
            "tensorizer_loader",
            "tensorizer",
        )
    ),
    *_points(
        f"{_LOADERS}.sharded_state_loader",
        ("ShardedStateLoader.iterate_over_files", "sharded state", "weights"),
    ),
    *(
        Point(
            module=f"{_LOADERS}.{module}",
            path="process_weights_after_loading",
            name="process_weights_after_loading",
            role="processing",
        )
        for module in ("utils", "base_loader", "gguf_loader", "weight_cache.ipc_loader")
    ),
    *_points(f"{_LOADERS}.utils", ("device_loading_context", "device_loading_context", "often")),
)

# Of classes that are known once there is an instance: any worker, runner, executor and loader,
# also one that vLLM does not know. Wrapped on its own class.
EXECUTOR_METHODS = {
    "get_kv_cache_specs": "Executor.get_kv_cache_specs",
    "determine_available_memory": "Executor.determine_available_memory",
    "initialize_from_config": "Executor.initialize_from_config",
    "compile_or_warm_up_model": "Executor.compile_or_warm_up_model",
}
WORKER_METHODS = {
    "init_device": "Worker.init_device",
    "load_model": "Worker.load_model",
    "get_kv_cache_spec": "Worker.get_kv_cache_spec",
    "determine_available_memory": "Worker.determine_available_memory",
    "initialize_cache": "Worker.initialize_cache",
    "initialize_from_config": "Worker.initialize_from_config",
    "compile_or_warm_up_model": "Worker.compile_or_warm_up_model",
}
# Those that load, replace, drop or move what a worker holds, once it serves.
AFTER_START_METHODS = {
    "sleep": "Worker.sleep",
    "wake_up": "Worker.wake_up",
    "discard": "Worker.discard",
    "reload_weights": "Worker.reload_weights",
    "update_weights": "Worker.update_weights",
    "start_weight_update": "Worker.start_weight_update",
    "start_draft_weight_update": "Worker.start_draft_weight_update",
    "finish_weight_update": "Worker.finish_weight_update",
    "reset_weights": "Worker.reset_weights",
    "checkpoint_prepare": "Worker.checkpoint_prepare",
    "checkpoint_restore": "Worker.checkpoint_restore",
}
RUNNER_METHODS = {
    "load_model": "ModelRunner.load_model",
    "profile_run": "ModelRunner.profile_run",
    "profile_cudagraph_memory": "ModelRunner.profile_cudagraph_memory",
    "initialize_kv_cache": "ModelRunner.initialize_kv_cache",
    "warming_up_model": "ModelRunner.warming_up_model",
    "capture_model": "ModelRunner.capture_model",
}
LOADER_METHODS = {"load_model": "loader.load_model", "load_weights": "load_weights"}
