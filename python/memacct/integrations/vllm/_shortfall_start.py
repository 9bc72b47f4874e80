"""A start that finds less free than it asks for: wait for it, take less, or say why not.

vLLM compares what is free with what ``gpu_memory_utilization`` asks for right after its first
reading, and refuses. The policy is applied inside that reading, before the comparison (which
is inline in init_device before 0.14.1), so that vLLM's own check sees what came of it.
"""

from __future__ import annotations

import importlib
import logging
import math
from typing import TYPE_CHECKING, Any

import torch

from memacct._errors import BudgetError
from memacct._units import format_bytes
from memacct.accounting.budget import requested_bytes
from memacct.integrations.vllm._own_time import own_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from memacct.integrations.vllm._gpu_session import GPUSession

logger = logging.getLogger("vllm.memacct")


def settle_start(session: GPUSession, snapshot: Any, measure: Callable[[], Any]) -> None:
    """Applies ``on_shortfall`` if ``snapshot``, the start's first, finds too little free.

    Args:
        session: the worker's.
        snapshot: vLLM's ``MemorySnapshot``, measured.
        measure: measures it again.

    Raises:
        BudgetError: too little is free and ``on_shortfall`` is ``error``.
    """
    wanted = _wanted_bytes(session.worker, int(snapshot.total_memory))
    if wanted <= snapshot.free_memory:
        return
    wanted -= _external_bytes(session.worker)
    if wanted <= snapshot.free_memory:
        return
    policy = session.config.on_shortfall
    if policy == "wait" and _could_ever_fit(session, snapshot, wanted):
        _wait(session, snapshot, wanted)
        measure()
        if wanted <= snapshot.free_memory:
            return
    free = int(snapshot.free_memory)
    if policy == "error":
        session.shortfall.explain_start(free, wanted, level=logging.ERROR)
        raise BudgetError(f"{_story(free, wanted)}; on_shortfall is 'error'")
    _clamp(session, free, wanted, int(snapshot.total_memory))


def _wanted_bytes(worker: Any, total_bytes: int) -> int:
    return requested_bytes(total_bytes, float(worker.cache_config.gpu_memory_utilization))


def _external_bytes(worker: Any) -> int:
    """Weights that another process holds for this one; vLLM takes them off what it asks for.

    Source: ``BaseModelLoader.get_external_weight_memory`` (0.32.0).
    """
    module = importlib.import_module("vllm.model_executor.model_loader")
    loader = module.get_model_loader(worker.vllm_config.load_config)
    ask = getattr(loader, "get_external_weight_memory", None)
    return 0 if ask is None else int(ask(worker.vllm_config))


def _could_ever_fit(session: GPUSession, snapshot: Any, wanted: int) -> bool:
    """Whether it would fit once all others are gone: what does not, is not waited for."""
    device = session.read(int(snapshot.free_memory)).device
    if device is None or device.own_bytes is None:
        return True
    kept = device.own_bytes + (device.tree_bytes or 0) + (device.reserved_bytes or 0)
    return wanted <= int(snapshot.total_memory) - kept


def _wait(session: GPUSession, snapshot: Any, wanted: int) -> None:
    from memacct.accounting.waiting import wait_until_free

    free = int(snapshot.free_memory)
    holders = session.shortfall.view().holders_text()
    logger.warning(
        "memacct: %s; waiting for up to %g s. %s", _story(free, wanted), session.config.wait_s,
        holders,
    )  # fmt: skip
    waited = wait_until_free(
        session.raw_free, wanted, wait_s=session.config.wait_s, pause=own_time.pause
    )
    logger.warning(
        "memacct: waited %.1f s, and %s are free%s.",
        waited.waited_s,
        format_bytes(waited.free_bytes),
        "" if waited.free_bytes >= wanted else ", which is still too little",
    )


def _clamp(session: GPUSession, free: int, wanted: int, total: int) -> None:
    """Has the engine ask for what is free, less the margin, as a clamp after profiling does.

    The utilization is lowered in the worker's configuration, which all that follows reckons
    with. Where nothing is left, vLLM's own refusal stands.
    """
    takes = free - session.config.margin_bytes
    if takes <= 0:
        return
    cache = session.worker.cache_config
    asked = float(cache.gpu_memory_utilization)
    # What others hold of the weights is taken off again by vLLM.
    taken_off = requested_bytes(total, asked) - wanted
    lowered = (takes + taken_off) / total
    while requested_bytes(total, lowered) - taken_off > takes:
        lowered = math.nextafter(lowered, 0.0)
    session.shortfall.explain_start(free, wanted, level=logging.WARNING)
    session.shortfall.asked_utilization = asked
    cache.gpu_memory_utilization = lowered
    logger.warning(
        "memacct: the start goes on with %s instead, gpu_memory_utilization=%.4f: what is free "
        "less a margin of %s. With on_shortfall 'error' it would end here, with 'wait' it would "
        "wait for its neighbours.",
        format_bytes(takes),
        lowered,
        format_bytes(session.config.margin_bytes),
    )


def explain_refused_start(session: GPUSession) -> None:
    """Logs who holds what if vLLM refused to start because too little was free."""
    follower = session.follower
    if follower is None:
        return
    total = torch.cuda.mem_get_info(session.device_ordinal)[1]
    wanted = _wanted_bytes(session.worker, int(total))
    free = int(follower.baseline.free_bytes)
    if free < wanted:
        session.shortfall.explain_start(free, wanted, level=logging.ERROR)


def _story(free: int, wanted: int) -> str:
    return (
        f"vLLM asks for {format_bytes(wanted)} of this GPU and {format_bytes(free)} are free: "
        f"{format_bytes(wanted - free)} are missing"
    )
