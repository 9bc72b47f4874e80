"""What a dry run answers: each rank's device equation, the KV cache, the host, the time line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .request import Request

Verdict = Literal["starts", "does not fit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Bytes with their range.

    Attributes:
        bytes: what the dry run found, with the costs that it was told.
        low_bytes: hardly less; equal to `bytes` where nothing is uncertain.
        high_bytes: hardly more.
        source: how it is known, in words.
    """

    bytes: int
    low_bytes: int
    high_bytes: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Tokens, requests or blocks with their range."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One term of a device equation; all rows of a moment add up to the device's total."""

    name: str
    amount: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One worker on its GPU. Bytes of that GPU; None where the engine did not get so far.

    Attributes:
        rank: global; 0 is the one whose KV cache the engine logs.
        device: ordinal on the machine.
        total_bytes: by CUDA.
        requested_bytes: utilization x total.
        free_at_start_bytes: when the engine first looked.
        weights: as "Model loading took".
        activation_peak: of the profiled batch, above weights.
        non_torch: what is taken outside PyTorch's allocator within the engine's budget.
        graphs_estimated: what the engine takes off its KV cache for CUDA graphs; None: nothing.
        graphs: what they took after all.
        graphs_driver_bytes: of `graphs`, what the driver took for instantiated graphs, outside
            PyTorch's pools; None where that was not read.
        kv_cache: what the engine allocates for it.
        kv_room_bytes: what the engine found left for its KV cache, to the byte and before whole
            blocks are made of it; negative where it already had too little. Answers for other
            settings are reckoned from it.
        kv_block_bytes: one block of the KV cache on this GPU.
        context: the process's CUDA context; outside the engine's budget.
        peak: the equation at the highest moment of the profiling pass.
        started: the equation when the engine serves.
    """

    rank: int
    device: int
    total_bytes: int
    requested_bytes: int | None = None
    free_at_start_bytes: int | None = None
    weights: Amount | None = None
    activation_peak: Amount | None = None
    non_torch: Amount | None = None
    graphs_estimated: Amount | None = None
    graphs: Amount | None = None
    graphs_driver_bytes: int | None = None
    kv_cache: Amount | None = None
    kv_room_bytes: int | None = None
    kv_block_bytes: int | None = None
    context: Amount | None = None
    peak: tuple[Row, ...] = ()
    started: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A step of the start, in the order of their beginnings.

    Attributes:
        name: "import", "config", "load", "profile", "compile", "capture" and so on.
        seconds: here, with kernels that do nothing and no weights read; not what a GPU takes.
    """

    name: str
    rank: int | None
    begin_s: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Host memory of the whole engine at start.

    Attributes:
        held: the highest sum over its processes of what only they can give back.
        reclaimable: page cache of the weights' files that the kernel may take back; counted in
            RSS by `top` while they are mapped.
        processes_count: of the engine.
    """

    held: Amount
    reclaimable: Amount
    processes_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the engine does not start, with numbers.

    Attributes:
        kind: "free below requested", "weights", "activation", "no room for KV cache",
            "KV cache below one request", "graphs".
        message: the engine's own words.
        missing: how much more of one GPU it would take; None if that cannot be told.
        suggestions: single changes, each with what it was computed from; only what the engine's
            own plan said is sure to do.
    """

    kind: str
    message: str
    missing: Amount | None = None
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """The answer.

    Attributes:
        versions: of vllm, torch, cuda, python, memacct.
        settings: what the engine made of its arguments: max_model_len, max_num_seqs,
            max_num_batched_tokens, gpu_memory_utilization, tensor_parallel_size, block_size,
            kv_cache_dtype, attention_backend, model_runner and so on.
        kv_tokens: as "GPU KV cache size"; None if it does not start.
        concurrency: as "Maximum concurrency".
        kv_blocks_count: blocks of the KV cache, the one that the engine keeps back included.
        kv_request_blocks_count: blocks that one longest request takes; told of a refused start too.
        notes: what is assumed, or was left out, for people.
        origin: "run" (an engine was started for it), "cache" or "interpolated".
        took_s: what the answer took, seconds.
    """

    request: Request
    verdict: Verdict
    versions: Mapping[str, str]
    settings: Mapping[str, object]
    ranks: tuple[Rank, ...]
    kv_tokens: Count | None = None
    concurrency: Count | None = None
    kv_blocks_count: int | None = None
    kv_request_blocks_count: int | None = None
    host: Host | None = None
    timeline: tuple[Phase, ...] = ()
    refusal: Refusal | None = None
    notes: tuple[str, ...] = field(default=())
    origin: Literal["run", "cache", "interpolated"] = "run"
    took_s: float = 0.0
