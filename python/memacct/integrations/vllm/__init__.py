"""memacct in vLLM: an engine that sizes its KV cache from its own memory.

vLLM loads ``register`` in each of its processes (entry point ``vllm.general_plugins``).
Nothing changes unless ``additional_config['memacct']['profiler']`` is ``native``,
``MEMACCT_VLLM=1`` is set, or the worker class is ``memacct.integrations.vllm.GPUWorker``
(``CPUWorker``), which works where ``VLLM_PLUGINS`` keeps the plugin out.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from memacct._errors import ConfigError
from memacct.integrations.vllm._own_time import own_time

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import ModuleType

    from memacct.integrations.vllm._config import PluginConfig
    from memacct.integrations.vllm._startup_stack import Caller

logger = logging.getLogger("vllm.memacct")

__all__ = ["CPUWorker", "GPUWorker", "register", "register_sibling", "report"]  # noqa: F822, RUF100 (made by __getattr__)


# Set where an enabled engine is configured; see _family.
_ENGINE_ID = "MEMACCT_ENGINE_ID"


def register() -> None:
    """Installs the inert hooks through which an enabled engine is found.

    Safe to call again; creates no CUDA or NVML state, opens nothing, starts nothing. vLLM
    lets an error of this function end the engine, so none leaves it.
    """
    with own_time:
        try:
            from memacct.integrations.vllm._hooks import after_import
            from memacct.integrations.vllm._shortfall_core import hook_core_if_enabled

            after_import("vllm.v1.worker.worker_base", _hook_worker)
            after_import("vllm.engine.arg_utils", _hook_arguments)
            after_import("vllm.v1.engine.core", _hook_core)
            after_import("vllm.v1.engine.core", _hook_core_report)
            after_import("vllm.v1.executor.abstract", _hook_executor)
            hook_core_if_enabled()
        except Exception:
            logger.exception("memacct: not installed, vLLM goes on")
        try:
            from memacct.integrations.vllm._startup_stack import find_caller

            _begin_timeline(find_caller())
        except Exception:
            logger.exception("memacct: no timeline of the start, vLLM goes on")


def _begin_timeline(caller: Caller) -> None:
    """In EngineCore and workers, whose start has begun; the others see a configuration later."""
    if caller.role in ("front", "inspection"):
        return
    config = _read_config(caller.additional_config)
    if config is not None and config.timeline:
        from memacct.integrations.vllm._startup import begin

        startup = begin(caller.name, config)
        if startup is not None:
            startup.open("EngineCore" if caller.role == "core" else "init_worker")


def _hook_worker(module: ModuleType) -> None:
    from memacct.integrations.vllm._hooks import wrap

    if not hasattr(module, "WorkerWrapperBase"):  # before 0.12, in a module that this one imports
        module = importlib.import_module("vllm.worker.worker_base")
    wrap(module.WorkerWrapperBase, "init_device", _around_init_device)
    module.WorkerWrapperBase.memacct_report = _worker_report


def _worker_report(wrapper: Any) -> dict[str, Any]:
    """One rank's report as plain data: ``collective_rpc("memacct_report")``."""
    from memacct.integrations.vllm._rpc import worker_report

    return worker_report(wrapper)


def _hook_core_report(module: ModuleType) -> None:
    from memacct.integrations.vllm._engine_core import hook_core

    hook_core(module)


def _hook_executor(module: ModuleType) -> None:
    from memacct.integrations.vllm._engine_core import hook_executor

    hook_executor(module)


def report(engine: Any) -> Any:
    """Returns all reports of a running engine as plain data: its processes, its ranks, its sums.

    The caller's process, each engine core and each rank, with their memory now and what was
    decided at their start. What cannot report is named with the reason.

    Args:
        engine: a vLLM ``LLM`` or ``LLMEngine``; of an ``AsyncLLM`` it is a coroutine.

    Raises:
        TypeError: it is none of these.
    """
    from memacct.integrations.vllm import _rpc

    return _rpc.report(engine)


def _around_init_device(original: Any, wrapper: Any, *args: Any, **kwargs: Any) -> Any:
    with own_time:
        attachment = attach(getattr(wrapper, "worker", None))
    with attachment:
        return original(wrapper, *args, **kwargs)


def attach(
    worker: Any, *, default_profiler: Literal["native", "stock"] = "stock"
) -> AbstractContextManager[None]:
    """Returns the context in which ``worker``'s init_device is to run, whatever it is.

    Raises:
        ConfigError: the configuration is wrong.
    """
    try:
        from memacct.integrations.vllm._attach import start
    except Exception:
        logger.exception("memacct: could not be loaded; profiling stays stock")
        return contextlib.nullcontext()
    return start(worker, default_profiler=default_profiler)


def _hook_arguments(module: ModuleType) -> None:
    from memacct.integrations.vllm._hooks import wrap

    wrap(module.EngineArgs, "create_engine_config", _around_create_engine_config)


def _hook_core(module: ModuleType) -> None:
    from memacct.integrations.vllm._hooks import wrap

    wrap(module.EngineCore, "__init__", _around_engine_core)
    if _ENGINE_ID in os.environ:
        from memacct.integrations.vllm._family_hooks import find_engine_core

        # In a process of its own it is inside of __init__ by now, too late to be wrapped.
        find_engine_core()


def _around_engine_core(original: Any, core: Any, *args: Any, **kwargs: Any) -> Any:
    if _ENGINE_ID in os.environ:
        with own_time:
            from memacct.integrations.vllm._family_hooks import engine_core_starts

            engine_core_starts(args[0] if args else kwargs.get("vllm_config"))
    return original(core, *args, **kwargs)


def _around_create_engine_config(original: Any, engine_args: Any, *args: Any, **kwargs: Any) -> Any:
    # Checked here, in the process that the user looks at and before any worker starts, so
    # that a wrong key is one sentence and not the end of a worker's traceback.
    with own_time:
        config = _read_config(getattr(engine_args, "additional_config", None))
        step = _configuring(config)
    with step:
        result = original(engine_args, *args, **kwargs)
    if config is not None and config.reports:
        with own_time:
            _enabled(config, result, args[0] if args else kwargs.get("usage_context"))
    return result


def _configuring(config: PluginConfig | None) -> AbstractContextManager[Any]:
    """The timeline's first span in the user's own process, where one is asked for."""
    if config is None or not config.timeline:
        # Of an engine before this one, in the same process.
        known = sys.modules.get("memacct.integrations.vllm._startup")
        if known is not None:
            known.rest()
        return contextlib.nullcontext()
    from memacct.integrations.vllm._startup import begin

    startup = begin("main", config)
    return contextlib.nullcontext() if startup is None else startup.step("create_engine_config")


def _read_config(given: object) -> PluginConfig | None:
    try:
        from memacct.integrations.vllm._config import read_config

        return read_config(given)
    except ConfigError:
        raise
    except Exception:
        logger.exception("memacct: the configuration could not be read; profiling stays stock")
        return None


def _enabled(config: PluginConfig, vllm_config: Any, usage: object) -> None:
    """What this process does for an enabled engine: a report, and its workers' environment."""
    try:
        from memacct.integrations.vllm._facts import engine_facts, setup_facts
        from memacct.integrations.vllm._ray import reach_ray_workers
        from memacct.integrations.vllm._report_file import forget_report, write_report

        if config.is_native:
            from memacct.integrations.vllm._family_hooks import engine_configured
            from memacct.integrations.vllm._shortfall_core import hook_core

            engine_configured(vllm_config, usage)
            hook_core()  # a forked core, or one in this process, loads no plugin again
        reach_ray_workers(getattr(vllm_config, "parallel_config", None))
        facts = {**engine_facts(vllm_config), "setup": setup_facts(vllm_config)}
        forget_report("main")
        write_report(config.report_dir, "main", {"profiler": config.profiler, **facts})
    except Exception:
        if config.strict:
            raise
        logger.exception(
            "memacct: the engine's own process could not be prepared or report; vLLM goes on"
        )


def __getattr__(name: str) -> Any:
    if name == "register_sibling":
        from memacct.integrations.vllm._family import register_sibling

        return register_sibling
    if name in ("GPUWorker", "CPUWorker"):
        from memacct.integrations.vllm._worker_classes import worker_class

        return worker_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
