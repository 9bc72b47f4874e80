"""What became of a worker's start: its report is written however the start ends."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from memacct.integrations.vllm._facts import engine_facts, error_facts, plain
from memacct.integrations.vllm._hooks import wrap
from memacct.integrations.vllm._own_time import own_time
from memacct.integrations.vllm._report_file import (
    add_to_report,
    forget_report,
    last_report,
    write_report,
)
from memacct.integrations.vllm._state import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from memacct.integrations.vllm._config import PluginConfig

logger = logging.getLogger("vllm.memacct")

_BUDGET = "determine_available_memory"
_STEPS = ("load_model", _BUDGET, "initialize_from_config", "compile_or_warm_up_model")


def report_name(worker: Any) -> str:
    """Returns the name of a worker's report."""
    return f"rank{int(getattr(worker, 'rank', 0))}"


@contextlib.contextmanager
def witnessed(
    worker: Any, config: PluginConfig, attachment: AbstractContextManager[None]
) -> Iterator[None]:
    """The context of a worker's init_device: ``attachment``, and a report of what follows."""
    forget_report(report_name(worker))
    try:
        with attachment:
            yield
    except Exception as error:
        _carefully(_note_failure, worker, config, "init_device", error)
        raise
    # Last, so that these are outside of whatever else was put around the same methods.
    _carefully(_watch, worker, config)


def _watch(worker: Any, config: PluginConfig) -> None:
    for name in _STEPS:
        wrap(worker, name, _told(worker, config, name))


def _told(worker: Any, config: PluginConfig, step: str) -> Callable[..., Any]:
    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            result = original(*args, **kwargs)
        except Exception as error:
            _carefully(_note_failure, worker, config, step, error)
            raise
        if step == _BUDGET:
            _carefully(_note_budget, worker, config, result)
        return result

    return around


def _carefully(note: Callable[..., None], *args: Any) -> None:
    """A report that fails changes nothing of what it is about."""
    with own_time:
        try:
            note(*args)
        except Exception:
            logger.exception("memacct: the report could not be made; vLLM goes on")


def _note_failure(worker: Any, config: PluginConfig, step: str, error: Exception) -> None:
    from memacct.integrations.vllm._present import worker_present

    session = getattr(worker, "_memacct_session", None)
    sections = {**_always(worker, config), "error": error_facts(step, error)}
    with contextlib.suppress(Exception):  # the error matters more than the memory at its time
        sections["now"] = plain(worker_present(worker, session))
    add_to_report(config.report_dir, report_name(worker), sections)


def _note_budget(worker: Any, config: PluginConfig, budget_bytes: Any) -> None:
    told = last_report(report_name(worker))
    if told is not None and "final_bytes" in told:
        return  # by the session, which knows more
    requested = getattr(worker, "requested_memory", getattr(worker, "requested_cpu_memory", None))
    data = {
        **_always(worker, config),
        "device": str(getattr(worker, "device", None)),
        "requested_bytes": None if requested is None else int(requested),
        "final_bytes": None if budget_bytes is None else int(budget_bytes),
        "clamped": False,
    }
    write_report(config.report_dir, report_name(worker), data)


def _always(worker: Any, config: PluginConfig) -> dict[str, Any]:
    status, reason = state_of(worker)
    return {
        **engine_facts(getattr(worker, "vllm_config", None)),
        "profiler": config.profiler,
        "rank": int(getattr(worker, "rank", 0)),
        "status": status,
        "reason": reason,
    }
