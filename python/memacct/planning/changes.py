"""What to change when an engine would not start: each change alone, as small as it can be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memacct._errors import MemacctError
from memacct._units import format_bytes

from .plan import MemoryPlan, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

_PERCENT = 100
_MOST_GPUS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change with which the engine starts.

    Attributes:
        option: of ``vllm serve``, with its value; None for what happens outside the engine.
        text: for people.
    """

    option: str | None
    text: str


def smallest_changes(plan: MemoryPlan) -> tuple[Change, ...]:
    """The changes that make a plan fit, each alone; empty if it fits or nothing alone helps."""
    if plan.fits is not False or plan.gpu is None:
        return ()
    return tuple(_changes(plan))


def _changes(plan: MemoryPlan) -> Iterator[Change]:
    settings, gpu = plan.settings, plan.gpu
    if gpu is None:
        return
    if plan.is_refused and plan.requested_bytes is not None:
        short = plan.requested_bytes - gpu.free_bytes
        held = ", ".join(f"pid {each.pid}" for each in gpu.holders[:3])
        by = f" (held by {held})" if held else ""
        if plan.kv_room is not None and plan.pool.fits(plan.kv_room.bytes, plan.serving):
            yield Change(option=None, text=f"free {format_bytes(short)} more on the GPU{by}")
    least = plan.smallest_utilization
    most = math.floor(gpu.free_bytes / gpu.total_bytes * _PERCENT) / _PERCENT
    if least is not None and least <= most and settings.kv_cache_bytes is None:
        value = min(most, settings.utilization) if plan.is_refused else least
        text = f"a utilization of {value:.2f} ({least:.2f} is the least with which it starts)"
        yield Change(option=f"--gpu-memory-utilization {value:.2f}", text=text)
    if not plan.is_refused and plan.longest_tokens:
        text = f"requests of at most {plan.longest_tokens:,} tokens"
        yield Change(option=f"--max-model-len {plan.longest_tokens}", text=text)
    if not settings.kv_dtype.startswith("fp8") and _fits(plan, kv_dtype="fp8"):
        yield Change(option="--kv-cache-dtype fp8", text="a KV cache of half the size")
    if not settings.enforce_eager and _fits(plan, enforce_eager=True):
        yield Change(option="--enforce-eager", text="no CUDA graphs (slower decoding)")
    size = settings.tensor_parallel_size * 2
    while size <= _MOST_GPUS:
        if _fits(plan, tensor_parallel_size=size):
            yield Change(option=f"--tensor-parallel-size {size}", text=f"{size} such GPUs")
            return
        size *= 2


def _fits(plan: MemoryPlan, **changed: object) -> bool:
    try:
        settings = replace(plan.settings, **changed)  # type: ignore[arg-type]
        return make_plan(plan.config, settings, plan.gpu).fits is True
    except MemacctError:
        return False  # heads that cannot be split so
