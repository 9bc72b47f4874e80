"""Puts a plan together: what is asked for, what it leaves for the KV cache, what that holds."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memacct.accounting.budget import requested_bytes

from .cache_layers import cache_layers, is_familiar
from .estimates import Estimate, activation, buffers, graphs
from .model_config import DTYPE_BYTES
from .pool import CacheLayer, Capacity, Pool, Serving, make_pool
from .settings import PlanSettings, batch, model_length, serving
from .weights import Weights, model_weights

if TYPE_CHECKING:
    from .gpus import Gpu
    from .model_config import ModelConfig

_PERCENT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSummary:
    """Layers that keep the same: how many, and what of a token or a sequence, on one GPU."""

    kind: str
    layers_count: int
    token_bytes: int | None
    state_bytes: int | None
    window_tokens: int | None
    block_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KvRoom:
    """Bytes for the KV cache on each GPU; low and high from the estimates' ranges."""

    bytes: int
    low_bytes: int
    high_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """A plan for one engine. Bytes are those of one GPU, the fullest; None is not known.

    Attributes:
        fits: whether the engine starts; None without a GPU or without the weights' size.
        requested_bytes: utilization times the total.
        kv_room: what is left for the KV cache.
        capacity: what that holds.
        capacity_low: what the low end of the room holds.
        kv_needed_bytes: of the KV cache for one longest request.
        longest_tokens: the largest max_model_len with which it starts; 0 if none.
        smallest_utilization: with which it starts, in steps of 0.01; None if none up to 1.
        kv_token_bytes: over all layers; what a window or a state keeps is in `layers` only.
    """

    config: ModelConfig
    settings: PlanSettings
    gpu: Gpu | None
    serving: Serving
    max_num_batched_tokens: int
    max_num_seqs: int
    kv_dtype: str
    weights: Weights
    buffers: Estimate
    activation: Estimate
    graphs: Estimate
    layers: tuple[LayerSummary, ...]
    pool: Pool
    kv_token_bytes: int
    kv_needed_bytes: int
    requested_bytes: int | None = None
    kv_room: KvRoom | None = None
    capacity: Capacity | None = None
    capacity_low: Capacity | None = None
    longest_tokens: int | None = None
    smallest_utilization: float | None = None
    fits: bool | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is doubtful about the whole plan."""
        if is_familiar(self.config):
            return ()
        kind = self.config.model_type
        kept = "its layers are taken to keep keys and values as its config hints"
        return (f"{kind} is not a type that was checked: {kept}, and nothing else",)

    @property
    def is_refused(self) -> bool:
        """Less is free than the engine asks for: it ends before it loads anything."""
        return (
            self.gpu is not None
            and self.requested_bytes is not None
            and self.requested_bytes > self.gpu.free_bytes
        )


def make_plan(config: ModelConfig, settings: PlanSettings, gpu: Gpu | None = None) -> MemoryPlan:
    """Plans an engine's memory.

    Args:
        config: of the model.
        settings: of the engine.
        gpu: each of its GPUs is like this one; None plans without one.

    Raises:
        ConfigError: the model's cache is not known here, or cannot be split so.
    """
    length = model_length(config, settings)
    tokens, sequences = batch(settings, gpu, length)
    found = cache_layers(config, settings.cache)
    pool = make_pool(found, config.layers_count, settings.pipeline_parallel_size)
    request = serving(config, settings, gpu)
    plan = MemoryPlan(
        config=config,
        settings=settings,
        gpu=gpu,
        serving=request,
        max_num_batched_tokens=tokens,
        max_num_seqs=sequences,
        kv_dtype=config.kv_dtype(settings.kv_dtype, settings.dtype),
        weights=_weights(config, settings),
        buffers=buffers(config, sequences),
        activation=activation(
            config,
            tokens=tokens,
            sequences=sequences,
            tp=settings.tensor_parallel_size,
            element_bytes=DTYPE_BYTES[config.dtype(settings.dtype)],
            enforce_eager=settings.enforce_eager,
        ),
        graphs=graphs(enforce_eager=settings.enforce_eager),
        layers=_summaries(found),
        pool=pool,
        kv_token_bytes=sum(layer.token_bytes or 0 for layer in found),
        kv_needed_bytes=pool.needed_bytes(request),
    )
    return _in_gpu(plan, gpu) if gpu is not None else _given_room(plan)


def _weights(config: ModelConfig, settings: PlanSettings) -> Weights:
    given = settings.weights_bytes
    found = model_weights(
        config,
        dtype=settings.dtype,
        tp=settings.tensor_parallel_size,
        pp=settings.pipeline_parallel_size,
    )
    if given is None:
        return found
    return replace(found, bytes=given, low_bytes=given, high_bytes=given, source="as given")


def _summaries(layers: tuple[CacheLayer, ...]) -> tuple[LayerSummary, ...]:
    counts = Counter(
        (each.kind, each.token_bytes, each.state_bytes, each.window_tokens, each.block_tokens)
        for each in layers
    )
    return tuple(
        LayerSummary(
            kind=kind,
            layers_count=count,
            token_bytes=token,
            state_bytes=state,
            window_tokens=window,
            block_tokens=block,
        )
        for (kind, token, state, window, block), count in counts.items()
    )


def _given_room(plan: MemoryPlan) -> MemoryPlan:
    given = plan.settings.kv_cache_bytes
    if given is None:
        return plan
    return _with_room(plan, KvRoom(bytes=given, low_bytes=given, high_bytes=given))


def _in_gpu(plan: MemoryPlan, gpu: Gpu) -> MemoryPlan:
    plan = replace(
        plan, requested_bytes=requested_bytes(gpu.total_bytes, plan.settings.utilization)
    )
    if plan.settings.kv_cache_bytes is not None:
        return _given_room(plan)
    besides = _besides(plan)
    if besides is None or plan.requested_bytes is None:
        return plan
    value, low, high = (plan.requested_bytes - each for each in besides)
    return _with_room(plan, KvRoom(bytes=value, low_bytes=high, high_bytes=low))


def _besides(plan: MemoryPlan) -> tuple[int, int, int] | None:
    """What the engine takes besides its KV cache: reckoned with, low and high."""
    terms = (plan.weights, plan.buffers, plan.activation, plan.graphs)
    totals = []
    for values in zip(
        *((each.bytes, each.low_bytes, each.high_bytes) for each in terms), strict=True
    ):
        known = [value for value in values if value is not None]
        if len(known) < len(terms):
            return None
        totals.append(sum(known))
    return totals[0], totals[1], totals[2]


def _with_room(plan: MemoryPlan, room: KvRoom) -> MemoryPlan:
    limit = plan.config.positions_count or plan.serving.max_model_len_tokens
    longest = plan.pool.longest(
        room.bytes, plan.serving, max(limit, plan.serving.max_model_len_tokens)
    )
    plan = replace(
        plan,
        kv_room=room,
        capacity=plan.pool.capacity(room.bytes, plan.serving),
        capacity_low=plan.pool.capacity(room.low_bytes, plan.serving),
        longest_tokens=longest,
        smallest_utilization=_smallest_utilization(plan),
        fits=plan.pool.fits(room.bytes, plan.serving),
    )
    return replace(plan, fits=bool(plan.fits) and not plan.is_refused)


def _smallest_utilization(plan: MemoryPlan) -> float | None:
    besides = _besides(plan)
    if plan.gpu is None or besides is None or plan.settings.kv_cache_bytes is not None:
        return None
    wanted = (besides[0] + plan.kv_needed_bytes) / plan.gpu.total_bytes
    rounded = math.ceil(wanted * _PERCENT) / _PERCENT
    return rounded if rounded <= 1 else None
