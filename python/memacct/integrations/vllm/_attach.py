"""From a worker that is about to initialise its device to the session that follows it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Literal

from memacct._errors import BudgetError, ConfigError
from memacct.integrations.vllm._config import PluginConfig, read_config
from memacct.integrations.vllm._own_time import own_time
from memacct.integrations.vllm._state import LOST
from memacct.integrations.vllm._witness import witnessed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

logger = logging.getLogger("vllm.memacct")

_ATTRIBUTE = "_memacct_session"


def start(
    worker: Any, *, default_profiler: Literal["native", "stock"]
) -> AbstractContextManager[None]:
    """Returns the context in which ``worker``'s init_device is to run.

    Attaches a session to the worker if the configuration asks for one. Where the plugin and
    the worker class are both there, the second finds the first's session and lets it be.

    Raises:
        ConfigError: the configuration is wrong.
    """
    config = session = None
    try:
        session = getattr(worker, _ATTRIBUTE, None)
        if session is None:
            given = getattr(getattr(worker, "vllm_config", None), "additional_config", None)
            config = read_config(given, default_profiler=default_profiler)
            session = _session_for(worker, config) if config.is_native else None
            if session is not None:
                setattr(worker, _ATTRIBUTE, session)
        elif session.is_initialising:
            return contextlib.nullcontext()
        else:
            config = session.config
    except ConfigError:
        raise
    except Exception as error:
        if config is not None and config.strict:
            raise
        logger.exception("memacct: could not attach; profiling stays stock")
        _lost(worker, f"could not attach: {error!r}")
    attachment = contextlib.nullcontext() if session is None else _during_init_device(session)
    return witnessed(worker, config, attachment) if config and config.reports else attachment


def _lost(worker: Any, reason: str) -> None:
    with contextlib.suppress(Exception):  # a worker that takes no attributes
        setattr(worker, LOST, reason)


def _session_for(worker: Any, config: PluginConfig) -> Any:
    from vllm.platforms import current_platform

    device_type = worker.device_config.device_type
    if device_type == "cpu":
        from memacct.integrations.vllm._cpu_session import CPUSession

        return CPUSession(worker, config)
    if device_type == "cuda" and current_platform.is_cuda():
        from memacct.integrations.vllm._gpu_session import GPUSession
        from memacct.integrations.vllm._shortfall_core import hook_core

        hook_core()  # an engine core that runs its worker itself is in this process
        return GPUSession(worker, config)
    reason = f"no native profiling for device type {device_type!r}"
    logger.warning("memacct: %s; profiling stays stock", reason)
    _lost(worker, reason)
    return None


@contextlib.contextmanager
def _during_init_device(session: Any) -> Iterator[None]:
    try:
        prepared = _carried_out(session, session.before_init_device)
        try:
            yield
        except ValueError:
            explain = getattr(session, "explain_refusal", None)
            if prepared and explain is not None:
                _carried_out(session, explain)
            raise
        if prepared:
            _carried_out(session, session.after_init_device)
    finally:
        # Whatever happened: the worker may be initialised again.
        session.is_initialising = False


def _carried_out(session: Any, step: Callable[[], None]) -> bool:
    """Returns whether ``step`` succeeded; a fault of ours leaves the profiling to vLLM."""
    with own_time:
        try:
            step()
        except (ConfigError, BudgetError):
            raise
        except Exception as error:
            if session.config.strict:
                raise
            logger.exception("memacct: could not follow this worker")
            session.lose(repr(error))
            return False
        return True
