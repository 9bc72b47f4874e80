"""A suggestion, applied to the engine's own arithmetic, fits; one step less does not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import assume, given
from hypothesis import strategies as st

from memacct._units import GIB, MIB
from memacct.accounting.advice import (
    UTILIZATION_STEPS,
    CacheTerms,
    Neighbour,
    OtherDevice,
    Surroundings,
    advise_budget,
    advise_cache,
    advise_start,
    requested_bytes,
    utilization_at_least,
    utilization_at_most,
)

if TYPE_CHECKING:
    from memacct.accounting.advice import Suggestion

STEP = 1 / UTILIZATION_STEPS
TOTALS = st.integers(min_value=1 * GIB, max_value=300 * GIB)
SHARES = st.integers(min_value=0, max_value=1_000_000).map(lambda n: n / 1_000_000)


def vllm_requests(total: int, utilization: float) -> int:
    """vLLM's own line, vllm/v1/worker/utils.py (0.33.0)."""
    return math.ceil(total * utilization)


@st.composite
def surroundings(draw: st.DrawFn) -> Surroundings:
    total = draw(TOTALS)
    held = [draw(st.integers(0, total // 4)) for _ in range(draw(st.integers(0, 4)))]
    free = draw(st.integers(0, total - min(total, sum(held))))
    neighbours = tuple(
        Neighbour(pid=n, held_bytes=size, grown_bytes=draw(st.integers(0, size)))
        for n, size in enumerate(held)
    )
    others = tuple(
        OtherDevice(index=n, uuid=f"GPU-{n}", total_bytes=size, free_bytes=size - size // 3)
        for n, size in enumerate(draw(st.lists(TOTALS, max_size=2)))
    )
    return Surroundings(
        total_bytes=total,
        free_bytes=free,
        utilization=draw(SHARES.filter(bool)),
        context_bytes=draw(st.sampled_from([None, 0, 400 * MIB])),
        neighbours=neighbours,
        others=others,
    )


@st.composite
def cache_terms(draw: st.DrawFn, around: Surroundings) -> CacheTerms:
    consumed = draw(st.integers(0, around.total_bytes))
    left = around.requested_bytes - consumed
    capped = draw(st.integers(0, 8 * GIB))
    return CacheTerms(
        consumed_bytes=consumed,
        needed_bytes=draw(st.integers(1, 16 * GIB)),
        available_bytes=left - capped,
        activations_peak_bytes=draw(st.integers(0, consumed)),
        batched_tokens_count=draw(st.integers(1, 16384)),
        fewest_tokens_count=draw(st.integers(1, 256)),
    )


def by_change(suggestions: tuple[Suggestion, ...]) -> dict[str, Suggestion]:
    found = {suggestion.change: suggestion for suggestion in suggestions}
    assert len(found) == len(suggestions)
    for suggestion in suggestions:
        assert (
            str(suggestion.value) in suggestion.text
            or suggestion.change == "wait"
            or (f"{suggestion.value:.4f}" in suggestion.text)
        )
    return found


@given(total=TOTALS, share=SHARES)
def test_the_largest_utilization_within_a_limit(total: int, share: float) -> None:
    limit = int(total * share)
    found = utilization_at_most(total, limit)
    if found is None:
        assert vllm_requests(total, STEP) > limit
        return
    assert vllm_requests(total, found) <= limit
    assert found == 1 or vllm_requests(total, found + STEP) > limit


@given(total=TOTALS, share=SHARES)
def test_the_smallest_utilization_for_a_size(total: int, share: float) -> None:
    wanted = max(1, int(total * share))
    found = utilization_at_least(total, wanted)
    assert found is not None
    assert vllm_requests(total, found) >= wanted
    assert vllm_requests(total, found - STEP) < wanted
    assert utilization_at_least(total, total + 1) is None


@given(around=surroundings())
def test_a_start_that_is_refused(around: Surroundings) -> None:
    short = vllm_requests(around.total_bytes, around.utilization) - around.free_bytes
    found = by_change(advise_start(around))
    if short <= 0:
        assert not found
        return
    if "gpu_memory_utilization" in found:
        value = float(found["gpu_memory_utilization"].value)
        assert value < around.utilization
        assert vllm_requests(around.total_bytes, value) <= around.free_bytes
        assert vllm_requests(around.total_bytes, value + STEP) > around.free_bytes
    else:
        assert vllm_requests(around.total_bytes, STEP) > around.free_bytes
    if "wait" in found:
        freed = int(found["wait"].value)
        assert around.free_bytes + freed == around.requested_bytes
    assert ("wait" in found) == (sum(n.held_bytes or 0 for n in around.neighbours) >= short)


@given(around=surroundings())
def test_another_device_has_room_for_the_context_too(around: Surroundings) -> None:
    assume(around.requested_bytes > around.free_bytes)
    found = by_change(advise_start(around)).get("device")
    fitting = [
        other.uuid
        for other in around.others
        if around.context_bytes is not None
        and vllm_requests(other.total_bytes, around.utilization) + around.context_bytes
        <= other.free_bytes
    ]
    assert (found is not None) == bool(fitting)
    assert found is None or found.value in fitting


def kv_cache_bytes(around: Surroundings, terms: CacheTerms) -> int | None:
    """What an engine started so gives its KV cache; None: it is refused."""
    if around.requested_bytes > around.free_bytes:
        return None
    return around.requested_bytes - terms.consumed_bytes


@given(data=st.data(), around=surroundings())
def test_a_kv_cache_that_does_not_fit(data: st.DataObject, around: Surroundings) -> None:
    terms = data.draw(cache_terms(around))
    found = by_change(advise_cache(around, terms))
    if terms.short_bytes <= 0:
        assert not found
        return
    if "gpu_memory_utilization" in found:
        value = float(found["gpu_memory_utilization"].value)
        with_it = kv_cache_bytes(replace(around, utilization=value), terms)
        assert with_it is not None
        assert with_it >= terms.needed_bytes
        if value > around.utilization:
            less = replace(around, utilization=value - STEP)
            assert kv_cache_bytes(less, terms) is None or (
                less.requested_bytes - terms.consumed_bytes < terms.needed_bytes
            )
        else:
            more = replace(around, utilization=value + STEP)
            assert kv_cache_bytes(more, terms) is None
    if "wait" in found:
        # The cap is what binds: released, the request is enough.
        assert around.requested_bytes - terms.consumed_bytes >= terms.needed_bytes
        assert terms.available_bytes + int(found["wait"].value) == terms.needed_bytes
    if "max_num_batched_tokens" in found:
        tokens = int(found["max_num_batched_tokens"].value)
        assert found["max_num_batched_tokens"].is_estimate
        assert terms.fewest_tokens_count <= tokens
        assert terms.batched_tokens_count is not None
        assert terms.activations_peak_bytes is not None
        half = terms.activations_peak_bytes // 2
        saved = half - half * tokens / terms.batched_tokens_count
        assert saved >= terms.short_bytes - 1  # of a fraction


@given(data=st.data(), around=surroundings())
def test_no_utilization_is_kept_back_that_would_fit(
    data: st.DataObject, around: Surroundings
) -> None:
    terms = data.draw(cache_terms(around))
    assume(terms.short_bytes > 0)
    found = by_change(advise_cache(around, terms))
    if "gpu_memory_utilization" in found:
        return
    steps = data.draw(st.integers(1, UTILIZATION_STEPS))
    tried = replace(around, utilization=steps / UTILIZATION_STEPS)
    budget = kv_cache_bytes(tried, terms)
    fits = budget is not None and budget >= terms.needed_bytes
    # Unless what was asked for is enough already, and the cap takes it.
    enough = kv_cache_bytes(around, terms)
    assert not fits or (enough is not None and enough >= terms.needed_bytes)


def test_the_smallest_holder_of_enough_is_waited_for() -> None:
    total = 80 * GIB
    around = Surroundings(
        total_bytes=total,
        free_bytes=int(0.5 * total),
        utilization=0.6,
        neighbours=(
            Neighbour(pid=1, held_bytes=30 * GIB, name="a"),
            Neighbour(pid=2, held_bytes=9 * GIB, name="b"),
            Neighbour(pid=3, held_bytes=1 * GIB, name="c"),
            Neighbour(pid=4, held_bytes=None),
        ),
    )
    assert requested_bytes(total, 0.6) - around.free_bytes == 8 * GIB
    found = by_change(advise_start(around))
    assert found["wait"].text == "wait until pid 2 (b) releases 8.00 GiB of 9.00 GiB"
    together = replace(around, utilization=0.95)
    assert "pid 1 (a) and pid 2 (b) release 36.00 GiB of 39.00 GiB" in (
        by_change(advise_start(together))["wait"].text
    )


def test_a_longest_request_is_told_only_if_there_is_one() -> None:
    around = Surroundings(total_bytes=80 * GIB, free_bytes=80 * GIB, utilization=0.5)
    terms = CacheTerms(
        consumed_bytes=39 * GIB,
        needed_bytes=2 * GIB,
        available_bytes=1 * GIB,
        model_len=4096,
        fitting_model_len=2048,
    )
    assert by_change(advise_cache(around, terms))["max_model_len"].value == 2048
    none_fits = replace(terms, fitting_model_len=0)
    assert "max_model_len" not in by_change(advise_cache(around, none_fits))


@given(around=surroundings(), short=st.integers(1, 8 * GIB))
def test_a_budget_that_no_longer_fits(around: Surroundings, short: int) -> None:
    found = by_change(advise_budget(around, short))
    assert not advise_budget(around, 0)
    limit = min(around.requested_bytes - short, around.free_bytes)
    if "gpu_memory_utilization" in found:
        value = float(found["gpu_memory_utilization"].value)
        assert vllm_requests(around.total_bytes, value) <= limit
        assert vllm_requests(around.total_bytes, value + STEP) > limit
    else:
        assert vllm_requests(around.total_bytes, STEP) > limit
    if "wait" in found:
        assert found["wait"].value == short


def test_another_device_needs_room_for_the_context() -> None:
    around = Surroundings(
        total_bytes=80 * GIB,
        free_bytes=10 * GIB,
        utilization=0.5,
        context_bytes=400 * MIB,
        others=(OtherDevice(index=1, uuid="GPU-1", total_bytes=80 * GIB, free_bytes=40 * GIB),),
    )
    assert "device" not in by_change(advise_start(around))
    other = replace(around.others[0], free_bytes=40 * GIB + 400 * MIB)
    assert by_change(advise_start(replace(around, others=(other,))))["device"].value == "GPU-1"
    assert "device" not in by_change(
        advise_start(replace(around, others=(other,), context_bytes=None))
    )


def test_nobody_is_waited_for_where_too_little_was_asked_for() -> None:
    neighbour = Neighbour(pid=1, held_bytes=20 * GIB, grown_bytes=2 * GIB)
    around = Surroundings(
        total_bytes=80 * GIB, free_bytes=50 * GIB, utilization=0.25, neighbours=(neighbour,)
    )
    capped = CacheTerms(consumed_bytes=15 * GIB, needed_bytes=4 * GIB, available_bytes=3 * GIB)
    assert by_change(advise_cache(around, capped))["wait"].value == 1 * GIB
    too_little = replace(capped, consumed_bytes=17 * GIB)
    assert "wait" not in by_change(advise_cache(around, too_little))
