"""What would make a start fit: the smallest single changes, each with its number.

The arithmetic is the engine's own: it asks for ceil(total x utilization), which must be free at
its start, and gives its KV cache what is left of that after its own consumption. A suggestion
changes one term of it and leaves the others; where it says nothing, no value of that term fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from memacct._units import format_bytes
from memacct.accounting.budget import requested_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Change = Literal[
    "gpu_memory_utilization", "max_model_len", "max_num_batched_tokens", "wait", "device"
]

# Utilizations are advised in whole steps of this: fine enough (8 MiB of 80 GiB), and short
# enough to be typed.
UTILIZATION_STEPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Another process on the device; ``name`` is None where its pid is of another namespace."""

    pid: int
    held_bytes: int | None
    grown_bytes: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        return f"pid {self.pid}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherDevice:
    """A GPU of this machine that the engine does not use."""

    index: int | None
    uuid: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is around an engine whose start does not fit.

    Attributes:
        total_bytes: the device's, in the engine's own terms.
        free_bytes: what would be free at the start of an engine that starts now.
        utilization: the share of the device that was asked for, 0 to 1.
        context_bytes: what the engine's process holds before its first reading; None: unknown.
        neighbours: the other processes on the device.
        others: the machine's other devices, where the engine could start as it is.
    """

    total_bytes: int
    free_bytes: int
    utilization: float
    context_bytes: int | None = None
    neighbours: tuple[Neighbour, ...] = ()
    others: tuple[OtherDevice, ...] = ()

    @property
    def requested_bytes(self) -> int:
        """What the engine asks for."""
        return requested_bytes(self.total_bytes, self.utilization)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheTerms:
    """What decides whether a KV cache fits, once the engine has measured itself.

    Attributes:
        consumed_bytes: all that the engine takes of what it asked for before its KV cache.
        needed_bytes: the smallest KV cache with which this model length starts.
        available_bytes: what there is for the KV cache; less than what is left of the request
            where it had to be capped by what is free.
        activations_peak_bytes: the transient peak, a part of ``consumed_bytes``; None: unknown.
        batched_tokens_count: the tokens of the step that was measured; None: unknown.
        fewest_tokens_count: the engine takes no fewer.
        model_len: the longest request that is to fit.
        fitting_model_len: the longest that fits; None: unknown, 0: none does.
    """

    consumed_bytes: int
    needed_bytes: int
    available_bytes: int
    activations_peak_bytes: int | None = None
    batched_tokens_count: int | None = None
    fewest_tokens_count: int = 1
    model_len: int | None = None
    fitting_model_len: int | None = None

    @property
    def short_bytes(self) -> int:
        """How much is missing."""
        return self.needed_bytes - self.available_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One change that makes the start fit, all else being as it is.

    ``value`` is the setting's new value, the bytes that are to be released (``wait``), or the
    UUID of a device. ``is_estimate``: the value follows from a measurement by proportion only.
    """

    change: Change
    value: float | int | str
    text: str
    is_estimate: bool = False


def utilization_at_most(total_bytes: int, limit_bytes: int) -> float | None:
    """Returns the largest utilization that asks for no more than the limit; None: none does."""
    steps = min(UTILIZATION_STEPS, limit_bytes * UTILIZATION_STEPS // total_bytes + 1)
    while steps > 0 and requested_bytes(total_bytes, steps / UTILIZATION_STEPS) > limit_bytes:
        steps -= 1
    return steps / UTILIZATION_STEPS if steps > 0 else None


def utilization_at_least(total_bytes: int, wanted_bytes: int) -> float | None:
    """Returns the smallest utilization that asks for at least so much; None: none up to 1."""
    steps = max(1, wanted_bytes * UTILIZATION_STEPS // total_bytes - 1)
    while requested_bytes(total_bytes, steps / UTILIZATION_STEPS) < wanted_bytes:
        steps += 1
        if steps > UTILIZATION_STEPS:
            return None
    return steps / UTILIZATION_STEPS


def advise_start(around: Surroundings) -> tuple[Suggestion, ...]:
    """Returns what lets an engine start that asks for more than is free.

    Whether its KV cache then fits shows only once it has loaded its model.
    """
    short_bytes = around.requested_bytes - around.free_bytes
    if short_bytes <= 0:
        return ()
    return (
        *_utilization_down(around),
        *advise_wait(around.neighbours, short_bytes),
        *_device(around, consumed_bytes=0, needed_bytes=1),
    )


def advise_cache(around: Surroundings, terms: CacheTerms) -> tuple[Suggestion, ...]:
    """Returns what lets a KV cache fit that does not."""
    if terms.short_bytes <= 0:
        return ()
    return (
        *_utilization_for(around, terms),
        *_model_len(terms),
        *_batched_tokens(terms),
        *_wait_for_cache(around, terms),
        *_device(around, consumed_bytes=terms.consumed_bytes, needed_bytes=terms.needed_bytes),
    )


def advise_budget(around: Surroundings, short_bytes: int) -> tuple[Suggestion, ...]:
    """Returns what lets a start go through whose budget exceeds what is free by so much."""
    if short_bytes <= 0:
        return ()
    grown = tuple(n for n in around.neighbours if (n.grown_bytes or 0) > 0)
    return (
        *_utilization_down(around, around.requested_bytes - short_bytes),
        *advise_wait(grown or around.neighbours, short_bytes),
    )


def _utilization_down(around: Surroundings, limit_bytes: int | None = None) -> Iterator[Suggestion]:
    limit_bytes = around.free_bytes if limit_bytes is None else min(limit_bytes, around.free_bytes)
    fitting = utilization_at_most(around.total_bytes, limit_bytes)
    if fitting is not None:
        yield Suggestion(
            change="gpu_memory_utilization",
            value=fitting,
            text=f"gpu_memory_utilization={fitting:.4f} instead of {around.utilization:g}: "
            f"the largest share that is free ({format_bytes(limit_bytes)})",
        )


def _utilization_for(around: Surroundings, terms: CacheTerms) -> Iterator[Suggestion]:
    wanted_bytes = terms.consumed_bytes + terms.needed_bytes
    low = utilization_at_least(around.total_bytes, wanted_bytes)
    if low is None or requested_bytes(around.total_bytes, low) > around.free_bytes:
        return  # it would be refused: so much is not free
    value, why = low, f"the least share that holds {format_bytes(wanted_bytes)}"
    if around.requested_bytes > around.free_bytes:
        high = utilization_at_most(around.total_bytes, around.free_bytes)
        if high is None or high < low:
            return
        value, why = high, f"the largest share that is free ({format_bytes(around.free_bytes)})"
    elif value <= around.utilization:
        return  # what was asked for is enough: it is capped by something else
    yield Suggestion(
        change="gpu_memory_utilization",
        value=value,
        text=f"gpu_memory_utilization={value:.4f} instead of {around.utilization:g}: {why}",
    )


def _model_len(terms: CacheTerms) -> Iterator[Suggestion]:
    if terms.fitting_model_len and terms.model_len is not None:
        yield Suggestion(
            change="max_model_len",
            value=terms.fitting_model_len,
            text=f"max_model_len={terms.fitting_model_len} instead of {terms.model_len}: "
            f"the longest whose KV cache fits into {format_bytes(terms.available_bytes)}",
        )


def _batched_tokens(terms: CacheTerms) -> Iterator[Suggestion]:
    peak_bytes, tokens = terms.activations_peak_bytes, terms.batched_tokens_count
    if not peak_bytes or tokens is None:
        return
    # What does not depend on the tokens (the sampler's logits, workspaces) is not told apart in
    # the peak. Half of it is more than was seen (a third, of a small model).
    scaling_bytes = peak_bytes // 2
    fewer = tokens * (scaling_bytes - terms.short_bytes) // max(1, scaling_bytes)
    if fewer >= terms.fewest_tokens_count:
        yield Suggestion(
            change="max_num_batched_tokens",
            value=fewer,
            text=f"max_num_batched_tokens={fewer} instead of {tokens}: an estimate, taking half "
            f"of the measured peak of {format_bytes(peak_bytes)} to be in proportion to the tokens",
            is_estimate=True,
        )


def _wait_for_cache(around: Surroundings, terms: CacheTerms) -> Iterator[Suggestion]:
    left_bytes = around.requested_bytes - terms.consumed_bytes
    if left_bytes < terms.needed_bytes:
        return  # what was asked for is not enough, whoever releases what
    grown = tuple(n for n in around.neighbours if (n.grown_bytes or 0) > 0)
    yield from advise_wait(grown or around.neighbours, terms.short_bytes)


def advise_wait(neighbours: Sequence[Neighbour], short_bytes: int) -> Iterator[Suggestion]:
    """Yields whose memory to wait for: the smallest holder of enough, or the fewest together."""
    holding = sorted(
        ((n.held_bytes, n) for n in neighbours if n.held_bytes), key=lambda pair: pair[0]
    )
    enough = [pair for pair in holding if pair[0] >= short_bytes][:1]
    if not enough:
        enough = _fewest(holding, short_bytes)
    if not enough:
        return
    held_bytes = sum(size for size, _ in enough)
    verb = "releases" if len(enough) == 1 else "release"
    yield Suggestion(
        change="wait",
        value=short_bytes,
        text=f"wait until {' and '.join(str(n) for _, n in enough)} {verb} "
        f"{format_bytes(short_bytes)} of {format_bytes(held_bytes)}",
    )


def _fewest(
    holding: Sequence[tuple[int, Neighbour]], short_bytes: int
) -> list[tuple[int, Neighbour]]:
    """Returns the fewest that hold enough together; empty if all do not."""
    taken: list[tuple[int, Neighbour]] = []
    for pair in reversed(holding):
        if sum(size for size, _ in taken) >= short_bytes:
            break
        taken.append(pair)
    return taken if sum(size for size, _ in taken) >= short_bytes else []


def _device(
    around: Surroundings, *, consumed_bytes: int, needed_bytes: int
) -> Iterator[Suggestion]:
    if around.context_bytes is None:
        return
    fitting = [
        other
        for other in around.others
        if consumed_bytes + needed_bytes
        <= requested_bytes(other.total_bytes, around.utilization)
        <= other.free_bytes - around.context_bytes
    ]
    if fitting:
        best = max(fitting, key=lambda other: other.free_bytes)
        number = "" if best.index is None else f" {best.index}"
        yield Suggestion(
            change="device",
            value=best.uuid,
            text=f"GPU{number} ({best.uuid}), which has {format_bytes(best.free_bytes)} of "
            f"{format_bytes(best.total_bytes)} free",
        )
