"""A memory plan for people: one screen of at most 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import format_bytes
from memacct.planning.changes import smallest_changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.planning.estimates import Estimate
    from memacct.planning.plan import LayerSummary, MemoryPlan
    from memacct.planning.weights import Weights

_LABEL, _NUMBER = 26, 12
_WIDTH = 80
_KINDS = {
    "full": "attention to all tokens",
    "latent": "latent attention (MLA)",
    "sliding": "sliding window",
    "chunked": "attention within a chunk",
    "state": "state of a sequence",
    "cross": "attention to the encoder",
}


def plan_text(plan: MemoryPlan) -> str:
    """The plan: the model, what each GPU holds, what its KV cache holds, and the verdict."""
    return "\n".join(line.rstrip() for line in _lines(plan))


def _lines(plan: MemoryPlan) -> Iterator[str]:
    yield from _head(plan)
    yield ""
    yield f"{'on each GPU':{_LABEL}}{'planned':>{_NUMBER}}   range"
    if plan.gpu is not None and plan.requested_bytes is not None:
        asked = f"{plan.settings.utilization:.2f} of {format_bytes(plan.gpu.total_bytes)}"
        yield _row("asked for", plan.requested_bytes, asked)
    yield _row("weights", plan.weights.bytes, _range(plan.weights))
    for name, estimate in (
        ("buffers, libraries", plan.buffers),
        ("activation peak", plan.activation),
        ("CUDA graphs", plan.graphs),
    ):
        yield _row(name, estimate.bytes, _range(estimate))
    room = plan.kv_room
    if room is None:
        yield _row("KV cache", None, "")
    else:
        given = room.low_bytes == room.high_bytes
        span = "as given" if given else _span(room.low_bytes, room.high_bytes)
        yield _row("KV cache", room.bytes, span)
    yield ""
    yield from _cache(plan)
    yield from _verdict(plan)


def _head(plan: MemoryPlan) -> Iterator[str]:
    config, count = plan.config, plan.weights.parameters_count
    size = f", {_amount(count)} parameters" if count else ""
    yield f"{config.architecture}: {config.layers_count} layers{size}, KV cache {plan.kv_dtype}"
    split = []
    if plan.settings.tensor_parallel_size > 1:
        split.append(f"tensor parallel {plan.settings.tensor_parallel_size}")
    if plan.settings.pipeline_parallel_size > 1:
        split.append(f"pipeline parallel {plan.settings.pipeline_parallel_size}")
    if plan.gpu is None:
        yield "; ".join(["no GPU to plan for: name one with --gpu", *split])
    else:
        free = f"{format_bytes(plan.gpu.free_bytes)} free" if plan.gpu.live else "all of it free"
        yield "; ".join([f"{plan.gpu.title}, {free}", *split])
        for each in plan.gpu.holders[:4]:
            held = each.process_used_bytes
            size = "an amount that is hidden" if held is None else format_bytes(held)
            yield f"  pid {each.pid} holds {size}"
    yield (
        f"requests up to {plan.serving.max_model_len_tokens:,} tokens, batches of "
        f"{plan.max_num_batched_tokens:,} tokens and {plan.max_num_seqs:,} sequences"
    )
    yield from _wrapped(f"weights from {plan.weights.source}")
    for note in plan.notes:
        yield from _wrapped(f"note: {note}")


def _cache(plan: MemoryPlan) -> Iterator[str]:
    if plan.kv_token_bytes:
        yield f"KV cache: {plan.kv_token_bytes:,} bytes a token on each GPU"
    for layers in plan.layers:
        yield f"  {layers.layers_count} layers, {_KINDS[layers.kind]}: {_kept(layers)} each"
    yield _row("one longest request", plan.kv_needed_bytes, "")
    if plan.capacity is not None and plan.capacity_low is not None:
        low = "" if plan.capacity_low == plan.capacity else _at_least(plan)
        yield f"{'KV cache size':{_LABEL}}{plan.capacity.tokens_count:>{_NUMBER},} tokens{low}"
        ratio = f"{plan.capacity.requests_ratio:.2f}x"
        length = plan.serving.max_model_len_tokens
        yield f"{'maximum concurrency':{_LABEL}}{ratio:>{_NUMBER}} requests of {length:,} tokens"
    if plan.longest_tokens is not None:
        longest = f"{plan.longest_tokens:,}"
        yield f"{'largest --max-model-len':{_LABEL}}{longest:>{_NUMBER}}{_limit(plan)}"
    if plan.smallest_utilization is not None:
        least = f"{plan.smallest_utilization:.2f}"
        yield f"{'smallest utilization':{_LABEL}}{least:>{_NUMBER}}"


def _at_least(plan: MemoryPlan) -> str:
    low = plan.capacity_low.tokens_count if plan.capacity_low else 0
    return f" (at worst {low:,})"


def _limit(plan: MemoryPlan) -> str:
    return " (the model's own limit)" if plan.longest_tokens == plan.config.positions_count else ""


def _kept(layers: LayerSummary) -> str:
    if layers.state_bytes is not None:
        return format_bytes(layers.state_bytes)
    window = f" of {layers.window_tokens:,} tokens" if layers.window_tokens else ""
    return f"{layers.token_bytes or 0:,} bytes a token{window}"


def _verdict(plan: MemoryPlan) -> Iterator[str]:
    yield ""
    if plan.fits is None:
        missing = "a GPU" if plan.gpu is None else "the weights' size (--weights)"
        yield f"Whether it fits is not known without {missing}."
        return
    if plan.fits:
        yield "It fits."
        if plan.kv_room and not plan.pool.fits(plan.kv_room.low_bytes, plan.serving):
            yield "At the worst of the ranges it would not."
        return
    yield from _wrapped(_reason(plan))
    changes = smallest_changes(plan)
    if changes:
        yield "Any one of these would do:"
    for change in changes:
        yield f"  {change.option}: {change.text}" if change.option else f"  {change.text}"
    if not changes:
        yield "No single change to these settings is enough."


def _reason(plan: MemoryPlan) -> str:
    if plan.is_refused and plan.requested_bytes is not None and plan.gpu is not None:
        return (
            f"It does not fit: the engine asks for {format_bytes(plan.requested_bytes)} and "
            f"{format_bytes(plan.gpu.free_bytes)} is free."
        )
    room = plan.kv_room.bytes if plan.kv_room else 0
    return (
        f"It does not fit: one request of {plan.serving.max_model_len_tokens:,} tokens needs "
        f"{format_bytes(plan.kv_needed_bytes)} of KV cache and {format_bytes(room)} is left."
    )


def _row(name: str, value: int | None, text: str) -> str:
    shown = "not known" if value is None else format_bytes(value)
    return f"{name:{_LABEL}}{shown:>{_NUMBER}}   {text}"


def _range(term: Weights | Estimate) -> str:
    if term.low_bytes is None or term.high_bytes is None or term.low_bytes == term.high_bytes:
        return ""
    return _span(term.low_bytes, term.high_bytes)


def _span(low: int, high: int) -> str:
    return f"{format_bytes(low)} to {format_bytes(high)}"


def _amount(count: int) -> str:
    for factor, name in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if count >= factor:
            return f"{count / factor:.2f} {name}"
    return f"{count:,}"


def _wrapped(text: str) -> Iterator[str]:
    import textwrap

    yield from textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
