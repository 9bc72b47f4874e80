"""Which of the engine's processes this is, told by who called ``register``.

vLLM loads plugins from inside ``EngineCore.__init__`` and ``WorkerWrapperBase.init_worker``:
there, under spawn, the function that is to be followed runs already, and its frame has the
configuration, which no variable of the environment needs to carry.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from types import FrameType

_INSPECTION = "vllm.model_executor.models.registry"


class Caller(NamedTuple):
    """Who loads the plugin.

    Attributes:
        role: "front" is the user's own process, "inspection" a helper that lives a second.
        name: of the process, for people.
        additional_config: vLLM's, where it is known.
    """

    role: Literal["front", "core", "worker", "inspection"]
    name: str
    additional_config: object = None


def find_caller() -> Caller:
    """Returns who called ``register`` in this process."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if getattr(main, "name", None) == _INSPECTION:
        return Caller(role="inspection", name="inspection")
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (the only way to it)
    while frame is not None:
        found = _caller(frame)
        if found is not None:
            return found
        frame = frame.f_back
    return Caller(role="front", name="main")


def _caller(frame: FrameType) -> Caller | None:
    function, path = frame.f_code.co_name, frame.f_code.co_filename
    if function == "__init__" and path.endswith("/v1/engine/core.py"):
        config = frame.f_locals.get("vllm_config")
        return None if config is None else _core(config)
    if function == "init_worker" and path.endswith("/worker/worker_base.py"):
        arguments = frame.f_locals.get("kwargs")
        return None if not isinstance(arguments, dict) else _worker(arguments)
    return None


def _core(config: Any) -> Caller:
    return Caller(role="core", name=core_name(config), additional_config=_additional(config))


def _worker(arguments: dict[str, Any]) -> Caller:
    config = arguments.get("vllm_config")
    name = worker_name(arguments.get("rank"), config)
    return Caller(role="worker", name=name, additional_config=_additional(config))


def core_name(config: Any) -> str:
    """Returns "EngineCore", with its rank where there are several."""
    return "EngineCore" + _replica(config)


def worker_name(rank: object, config: Any) -> str:
    """Returns "Worker" with its rank, and its engine's where there are several."""
    return f"Worker {rank}" + _replica(config)


def _replica(config: Any) -> str:
    parallel = getattr(config, "parallel_config", None)
    if (getattr(parallel, "data_parallel_size", 1) or 1) == 1:
        return ""
    return f" DP{getattr(parallel, 'data_parallel_rank', '?')}"


def _additional(config: Any) -> object:
    return getattr(config, "additional_config", None)
