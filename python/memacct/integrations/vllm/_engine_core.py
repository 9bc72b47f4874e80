"""The engine core's own report, and its workers' gathered so that a missing one is told.

A call of a method that one worker lacks leaves the other workers' answers in vLLM's queues,
where the next call would take them for its own. So workers are asked by a function that every
worker can carry out, whether or not memacct is there.
"""

from __future__ import annotations

import logging
import types
from typing import TYPE_CHECKING, Any

from memacct._errors import ConfigError
from memacct.integrations.vllm._hooks import wrap
from memacct.integrations.vllm._own_time import own_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from memacct.integrations.vllm._config import PluginConfig

logger = logging.getLogger("vllm.memacct")

METHOD = "memacct_report"
_NAME = "engine"
_REASON = "_memacct_reason"


def hook_core(module: ModuleType) -> None:
    """Gives ``EngineCore`` its report, and follows what it starts.

    Args:
        module: ``vllm.v1.engine.core``.
    """
    core = module.EngineCore
    setattr(core, METHOD, core_report)
    wrap(core, "collective_rpc", _around_collective_rpc)
    wrap(core, "_initialize_kv_caches", _around_kv_caches)


def hook_executor(module: ModuleType) -> None:
    """Follows how the workers are started, from the engine core's side.

    Args:
        module: ``vllm.v1.executor.abstract``.
    """
    wrap(module.Executor, "__init__", _around_executor)


# ---------------------------------------------------------------- following the start


def _around_executor(original: Any, executor: Any, *args: Any, **kwargs: Any) -> Any:
    vllm_config = kwargs.get("vllm_config", args[0] if args else None)
    note = {"executor_class": type(executor).__name__, "step": "workers"}
    _forget()
    return _followed(vllm_config, note, original, executor, *args, **kwargs)


def _around_kv_caches(original: Any, core: Any, *args: Any, **kwargs: Any) -> Any:
    vllm_config = kwargs.get("vllm_config", args[0] if args else getattr(core, "vllm_config", None))
    result = _followed(vllm_config, {"step": "kv_caches"}, original, core, *args, **kwargs)
    config = _config_of(vllm_config)
    if config is not None:
        cache = getattr(vllm_config, "cache_config", None)
        blocks = getattr(cache, "num_gpu_blocks", None)
        _note(config, vllm_config, {"state": "ready", "step": None, "num_gpu_blocks": blocks})
    return result


def _followed(
    vllm_config: Any, note: dict[str, Any], original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    config = _config_of(vllm_config)
    if config is None:
        return original(*args, **kwargs)
    _note(config, vllm_config, {"state": "starting", **note})
    try:
        return original(*args, **kwargs)
    except Exception as error:
        from memacct.integrations.vllm._facts import error_facts

        failed = {"state": "failed", "error": error_facts(note["step"], error)}
        _note(config, vllm_config, failed)
        raise


def _forget() -> None:
    try:
        from memacct.integrations.vllm._report_file import forget_report

        forget_report(_NAME)
    except Exception:
        logger.exception("memacct: the engine core's report could not be made; vLLM goes on")


def _config_of(vllm_config: Any) -> PluginConfig | None:
    """The configuration where this engine is to report; None: it is not."""
    try:
        with own_time:
            from memacct.integrations.vllm._config import read_config

            config = read_config(getattr(vllm_config, "additional_config", None))
    except ConfigError:
        return None  # said in the process that made the configuration
    except Exception:
        logger.exception("memacct: the configuration could not be read; vLLM goes on")
        return None
    return config if config.reports else None


def _note(config: PluginConfig, vllm_config: Any, sections: dict[str, Any]) -> None:
    with own_time:
        try:
            from memacct.integrations.vllm._facts import engine_facts, plain, setup_facts
            from memacct.integrations.vllm._report_file import add_to_report

            facts = {
                **engine_facts(vllm_config),
                "profiler": config.profiler,
                "world_size": setup_facts(vllm_config)["world_size"],
            }
            add_to_report(config.report_dir, _NAME, plain({**facts, **sections}))
        except Exception:
            logger.exception("memacct: the engine core's report could not be made; vLLM goes on")


# ---------------------------------------------------------------- answering


def core_report(core: Any, with_workers: bool = False) -> dict[str, Any]:
    """Returns the engine core's own report; it raises nothing.

    Args:
        core: the engine core, whose method this is: ``call_utility("memacct_report")``.
        with_workers: with ``workers``, a list of each rank's report. A rank that cannot report
            is in it with ``status: missing`` and why.
    """
    from memacct.integrations.vllm._rpc import process_report

    vllm_config = getattr(core, "vllm_config", None)
    executor = getattr(core, "model_executor", None)
    data = process_report(
        _NAME,
        vllm_config,
        {
            "kind": "engine_core",
            "executor_class": type(executor).__name__,
            "is_sleeping": bool(getattr(executor, "is_sleeping", False)),
            "sleeping_tags": sorted(map(str, getattr(executor, "sleeping_tags", None) or ())),
        },
    )
    if with_workers:
        try:
            data["workers"] = core.collective_rpc(METHOD)
        except Exception as error:
            logger.exception("memacct: the workers could not be asked for their reports")
            data["workers"], data["workers_unread"] = [], repr(error)
    return data


def _around_collective_rpc(original: Any, core: Any, method: Any, *args: Any, **kwargs: Any) -> Any:
    asks = ask_anyone() if method == METHOD else method
    return original(core, asks, *args, **kwargs)


def ask_anyone() -> Callable[[Any], dict[str, Any]]:
    """Returns `_ask` as a function of no module, which is sent whole to each worker.

    A worker's installation may lack the module, or memacct at all.
    """
    return types.FunctionType(
        _ask.__code__.replace(co_name="ask_for_report"), {"__name__": "__main__"}, "ask_for_report"
    )


def _ask(wrapper: Any) -> dict[str, Any]:
    # Runs where memacct may be missing: nothing but Python's own, imported here.
    import os
    import socket

    told = getattr(wrapper, "memacct_report", None)
    if told is not None:
        report: dict[str, Any] = told()
        return report
    worker = getattr(wrapper, "worker", wrapper)
    return {
        "kind": "worker",
        "status": "missing",
        "reason": "plugin not loaded (VLLM_PLUGINS) or not installed there",
        "rank": getattr(worker, "rank", None),
        "pid": os.getpid(),
        "hostname": socket.gethostname(),
    }
