"""Reports on request: each rank's, the engine core's, and all of them gathered.

Nothing here raises into the engine: what cannot be told is said in the report.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from memacct._core import __version__
from memacct.integrations.vllm._engine_core import METHOD
from memacct.integrations.vllm._facts import engine_facts, plain, setup_facts
from memacct.integrations.vllm._hooks import found
from memacct.integrations.vllm._own_time import own_time
from memacct.integrations.vllm._present import present, worker_present
from memacct.integrations.vllm._report_file import SCHEMA_VERSION, last_report
from memacct.integrations.vllm._state import state_of
from memacct.integrations.vllm._witness import report_name
from memacct.report.engine_starts import merge_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger("vllm.memacct")

_NOT_LOADED = "plugin not loaded (VLLM_PLUGINS) or not installed there"


def process_report(name: str, vllm_config: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """Returns this process's report: who, what it said at its start, and its memory now.

    Args:
        name: of the report written at the start (``main``, ``engine``, ``rank0``).
        vllm_config: the engine's.
        facts: what else is known; a key ``now`` stands for the memory of the process.
    """
    spent = own_time.spent()
    start = last_report(name)
    facts_then = engine_facts(vllm_config)
    if start is not None and start.get("instance_id"):
        # vLLM names the engine anew whenever its configuration is checked (0.14.1 to 0.33.0),
        # which happens in the engine core once more after its start.
        facts_then["instance_id"] = start["instance_id"]
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "memacct_version": __version__,
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "hostname": socket.gethostname(),
        **facts_then,
        "start": start,
        "hooks": dict(sorted(found.items())),
        "overhead_ns": spent.wall_ns,
        "overhead_cpu_ns": spent.cpu_ns,
        **facts,
    }
    if "now" not in data:
        data["now"] = _or_why_not(present)
    return dict(plain(data))


def _or_why_not(read: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    try:
        return read(*args)
    except Exception as error:
        logger.exception("memacct: the present memory could not be read")
        return {"unread": repr(error)}


def worker_report(wrapper: Any) -> dict[str, Any]:
    """Returns one rank's report as plain data: ``collective_rpc("memacct_report")``.

    Args:
        wrapper: vLLM's ``WorkerWrapperBase``, whose method this is, or the worker itself.
    """
    worker = vars(wrapper).get("worker", wrapper)
    facts: dict[str, Any] = {"kind": "worker", "rank": getattr(worker, "rank", None)}
    try:
        status, reason = state_of(worker)
        session = getattr(worker, "_memacct_session", None)
        config = getattr(session, "config", None)
        facts |= {
            "local_rank": getattr(worker, "local_rank", None),
            "status": status,
            "reason": reason,
            "profiler": getattr(config, "profiler", "stock"),
            "now": _or_why_not(worker_present, worker, session),
        }
        vllm_config = getattr(worker, "vllm_config", None)
        return process_report(report_name(worker), vllm_config, facts)
    except Exception as error:
        logger.exception("memacct: the report could not be made")
        return dict(plain({**facts, "status": "failed", "reason": repr(error), "now": None}))


def report(engine: Any) -> Any:
    """Returns all of an engine's reports as plain data (of an AsyncLLM: a coroutine of it).

    The caller's process, each engine core, and each rank, merged as ``memacct report`` merges
    what processes wrote to ``report_dir``; a part that cannot report is named with the reason.

    Args:
        engine: a vLLM ``LLM``, ``LLMEngine`` or ``AsyncLLM``.

    Raises:
        TypeError: it is none of these.
    """
    engine = getattr(engine, "llm_engine", engine)
    client = getattr(engine, "engine_core", None)
    if client is None:
        raise TypeError(f"{type(engine).__name__} is not an engine of vLLM: it has no engine_core")
    # By the engine's own kind: newer clients have both faces.
    if type(engine).__name__.startswith("Async"):
        return _report_async(engine, client)
    return _merged(engine, [_ask_core(client)])


def _ask_core(client: Any) -> dict[str, Any]:
    try:
        core = getattr(client, "engine_core", None)  # in this process
        if core is not None:
            return _checked(getattr(core, METHOD)(True))
        return _checked(client.call_utility(METHOD, True))
    except Exception as error:  # noqa: BLE001 (vLLM says what the engine core raised as Exception)
        return _missing_core(error)


async def _report_async(engine: Any, client: Any) -> dict[str, Any]:
    cores = await asyncio.gather(*_questions(client), return_exceptions=True)
    told = [_missing_core(c) if isinstance(c, BaseException) else _checked(c) for c in cores]
    return _merged(engine, told)


def _questions(client: Any) -> list[Coroutine[Any, Any, Any]]:
    """One for each data-parallel engine: the public way answers for the first one only."""
    identities = getattr(client, "core_engines", None)
    ask_one = getattr(client, "_call_utility_async", None)
    if not identities or ask_one is None:
        return [client.call_utility_async(METHOD, True)]
    return [ask_one(METHOD, True, engine=identity) for identity in identities]


def _checked(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        return _missing_core(TypeError(f"the engine core answered {told!r}"))
    return told


def _missing_core(error: BaseException) -> dict[str, Any]:
    lacks_it = METHOD in str(error)
    return {
        "kind": "engine_core",
        "status": "missing",
        "reason": _NOT_LOADED if lacks_it else f"{type(error).__name__}: {error}",
        "workers": [],
    }


def _merged(engine: Any, cores: list[dict[str, Any]]) -> dict[str, Any]:
    vllm_config = getattr(engine, "vllm_config", None)
    facts = {"kind": "main", "setup": setup_facts(vllm_config)}
    main = process_report("main", vllm_config, facts)
    return merge_reports(main, cores)
