"""Where an engine's processes are met, so that they register: none of it ends an engine."""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

from memacct.integrations.vllm import _family
from memacct.integrations.vllm._config import read_config
from memacct.integrations.vllm._hooks import after_import, wrap
from memacct.integrations.vllm._own_time import own_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

logger = logging.getLogger("vllm.memacct")

_WEIGHT_CACHE_CLIENT = "vllm.model_executor.model_loader.weight_cache.ipc_loader"


def engine_configured(vllm_config: object, usage: object) -> None:
    """The process that has configured an engine; only GPUs have neighbours."""
    device = getattr(getattr(vllm_config, "device_config", None), "device_type", None)
    if device == "cuda":
        _tolerant(_family.begin_engine, usage, decodes=_decodes(vllm_config))


def _decodes(vllm_config: object) -> bool:
    """Whether memory is set aside for this process's decoding (vLLM 0.26 and later)."""
    model = getattr(vllm_config, "model_config", None)
    media = getattr(model, "multimodal_config", None)
    return bool(getattr(media, "mm_ipc_gpu_memory_gb", 0))


def engine_core_starts(vllm_config: object) -> None:
    """The process of an EngineCore, if its engine is an enabled one.

    A stock engine that the same process starts besides inherits the other's name.
    """

    def join() -> None:
        if read_config(getattr(vllm_config, "additional_config", None)).is_native:
            _family.join_engine_core(vllm_config)

    _tolerant(join)


def find_engine_core() -> bool:
    """Returns whether this process is inside an EngineCore's constructor, which then joins.

    Where processes are spawned, plugins are loaded there: too late to wrap it.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    while frame is not None:
        code, local = frame.f_code, frame.f_locals
        if code.co_name == "__init__" and _is_engine_core(local.get("self")):
            engine_core_starts(local.get("vllm_config"))
            return True
        frame = frame.f_back
    return False


def worker_starts(worker: Any) -> None:
    """A worker that is about to initialise its device."""
    _tolerant(_family.join_worker, worker)
    after_import(_WEIGHT_CACHE_CLIENT, _hook_weight_cache)


def _is_engine_core(value: object) -> bool:
    return any(kind.__name__ == "EngineCore" for kind in type(value).__mro__)


def _hook_weight_cache(module: ModuleType) -> None:
    wrap(module.IpcModelLoader, "_connect", _around_connect)


def _around_connect(original: Any, *args: Any, **kwargs: Any) -> Any:
    """Registers whoever answers: the daemon that keeps this worker's weights.

    It is started apart, and constant by then or still loading what the engine will map.
    """
    connection = original(*args, **kwargs)
    with own_time:
        _tolerant(_register_peer, connection)
    return connection


def _register_peer(connection: socket.socket) -> None:
    # Of the process that called listen(). Source: unix(7), SO_PEERCRED.
    size = struct.calcsize("3i")
    pid, _, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    if pid > 0 and pid != os.getpid():  # 0: of another pid namespace
        _family.register_sibling(pid, role=_family.WEIGHT_CACHE)


def _tolerant(action: Callable[..., None], *args: object, **kwargs: object) -> None:
    try:
        action(*args, **kwargs)
    except Exception:
        logger.exception(
            "memacct: this process of the engine could not be registered; what it holds counts as "
            "a neighbour's"
        )
