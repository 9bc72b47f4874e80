"""How far memacct's profiler got with a worker: whose numbers its budget is made of."""

from __future__ import annotations

import os
from typing import Any, Literal

#: ``native``: memacct's. ``stock``: vLLM's, as asked. ``fallback``: vLLM's, although asked not.
Status = Literal["native", "stock", "fallback"]

LOST = "_memacct_lost"
_STOCK = "memacct's profiler is not enabled (profiler: stock)"
_OWN_NUMBER = "kv_cache_memory_bytes is the user's own number: nothing was profiled"
_OWN_SPACE = "VLLM_CPU_KVCACHE_SPACE is the user's own number: nothing was measured"


def state_of(worker: Any) -> tuple[Status, str | None]:
    """Returns the state of a worker, and why it is not a better one; None: it is the best."""
    session = getattr(worker, "_memacct_session", None)
    if session is None:
        lost = getattr(worker, LOST, None)
        return ("stock", _STOCK) if lost is None else ("fallback", lost)
    if session.lost_reason is not None:
        return "fallback", session.lost_reason
    if getattr(getattr(worker, "cache_config", None), "kv_cache_memory_bytes", None):
        return "native", _OWN_NUMBER
    if _is_old_cpu(worker) and os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        return "native", _OWN_SPACE
    return _by_consumption(getattr(session, "profiled", None))


def _is_old_cpu(worker: Any) -> bool:
    is_cpu = getattr(getattr(worker, "device_config", None), "device_type", None) == "cpu"
    return is_cpu and not hasattr(worker, "requested_cpu_memory")


def _by_consumption(profiled: Any) -> tuple[Status, str | None]:
    if profiled is None:
        return "native", None
    consumption = profiled[1]
    if consumption.source == "device":
        return "fallback", f"the neighbours could not be told apart: {consumption.reason}"
    return "native", consumption.reason or None
