"""What a report says about an engine whatever became of it: which one, how it was set up."""

from __future__ import annotations

import os
import sys
from typing import Any

_LONGEST_MESSAGE = 4000


def engine_facts(vllm_config: Any) -> dict[str, Any]:
    """Returns which engine a process belongs to, so that its processes' reports find together.

    ``instance_id`` is vLLM's own: made with the configuration, and during the start the same in
    every process that was given it (0.11.0 to 0.33.0).
    """
    parallel = getattr(vllm_config, "parallel_config", None)
    return {
        "instance_id": getattr(vllm_config, "instance_id", None) or None,
        "data_parallel_rank": data_parallel_rank(parallel),
        "vllm_version": getattr(sys.modules.get("vllm"), "__version__", None),
    }


def data_parallel_rank(parallel_config: Any) -> int:
    """Returns the number of the data-parallel engine; 0 where there is only one.

    Engines that do not wait for each other are told that they are alone, and keep their number
    only in ``data_parallel_index`` (newer versions).
    """
    for name in ("data_parallel_index", "data_parallel_rank"):
        value = getattr(parallel_config, name, None)
        if value:
            return int(value)
    return 0


def setup_facts(vllm_config: Any) -> dict[str, Any]:
    """Returns how the engine was set up: what ranks are to report, and of what size it is."""
    parallel = getattr(vllm_config, "parallel_config", None)
    model = getattr(vllm_config, "model_config", None)
    cache = getattr(vllm_config, "cache_config", None)
    fields = {
        "world_size": parallel,
        "tensor_parallel_size": parallel,
        "pipeline_parallel_size": parallel,
        "data_parallel_size": parallel,
        "data_parallel_size_local": parallel,
        "data_parallel_external_lb": parallel,
        "data_parallel_hybrid_lb": parallel,
        "nnodes": parallel,
        "gpu_memory_utilization": cache,
        "kv_cache_memory_bytes": cache,
        "max_model_len": model,
        "model": model,
    }
    facts = {name: _simple(getattr(owner, name, None)) for name, owner in fields.items()}
    backend = getattr(parallel, "distributed_executor_backend", None)
    return {
        **facts,
        "executor": str(getattr(backend, "__name__", backend)),
        # Offline: a process of the user's for each engine, which is told by the environment.
        "data_parallel_by_environment": int(os.environ.get("VLLM_DP_SIZE") or 1) > 1,
    }


def _simple(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else None


def error_facts(step: str, error: BaseException) -> dict[str, str]:
    """Returns which step of the start ended with which error."""
    message = str(error)[:_LONGEST_MESSAGE]
    return {"step": step, "type": type(error).__name__, "message": message}


def plain(value: Any) -> Any:
    """Returns ``value`` as what msgpack and JSON hold: other types by their text.

    An int beyond 64 bits, which msgpack refuses, is unknown.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 64 else None
    return str(value)
