"""Laws of plans: more bytes hold no less, GPUs share, and nothing holds more than there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from memacct import planning
from memacct.planning import CacheLayer, CacheSettings, ModelConfig, Serving, make_pool
from memacct.planning.allocator_rounding import allocated_bytes

BLOCK_TOKENS = 16
SERVINGS = st.builds(
    Serving,
    max_model_len_tokens=st.integers(1, 200_000),
    in_flight_tokens=st.integers(1, 40_000),
    encoder_tokens=st.integers(1, 2_000),
)


def layer(kind: str, size: int, window: int) -> CacheLayer:
    if kind == "state":
        return CacheLayer(
            layer=0, kind="state", state_bytes=size, block_tokens=BLOCK_TOKENS, page_bytes=size
        )
    return CacheLayer(
        layer=0,
        kind=kind,  # type: ignore[arg-type]
        token_bytes=size,
        window_tokens=window if kind in {"sliding", "chunked"} else None,
        block_tokens=BLOCK_TOKENS,
        page_bytes=size * BLOCK_TOKENS,
    )


LAYERS = st.lists(
    st.builds(
        layer,
        st.sampled_from(["full", "sliding", "chunked", "state", "cross"]),
        st.sampled_from([128, 256, 384, 1024]),
        st.sampled_from([128, 1024]),
    ),
    min_size=1,
    max_size=20,
)
BYTES = st.integers(0, 2**36)


def pool_of(layers: list[CacheLayer]) -> planning.Pool:
    return make_pool(layers, 1)


@given(LAYERS, SERVINGS, BYTES, BYTES)
def test_more_bytes_hold_no_less(
    layers: list[CacheLayer], serving: Serving, some: int, more: int
) -> None:
    pool = pool_of(layers)
    less, same = (pool.capacity(each, serving) for each in (some, some + more))
    assert less.blocks_count <= same.blocks_count
    assert less.tokens_count <= same.tokens_count
    assert not (pool.fits(some, serving) and not pool.fits(some + more, serving))


@given(LAYERS, SERVINGS, BYTES)
def test_blocks_are_within_the_bytes_and_none_is_left_out(
    layers: list[CacheLayer], serving: Serving, available: int
) -> None:
    pool = pool_of(layers)
    blocks = pool.capacity(available, serving).blocks_count
    (block_bytes,) = pool.block_bytes
    assert blocks * block_bytes <= available < (blocks + 1) * block_bytes


@given(LAYERS)
def test_every_layer_is_in_one_group_and_a_block_has_its_page(layers: list[CacheLayer]) -> None:
    pool = pool_of(layers)
    assert sum(len(group.layers) for group in pool.groups) == len(layers)
    assert all(
        grouped.page_bytes >= (grouped.token_bytes or 0) * grouped.block_tokens
        and grouped.page_bytes >= (grouped.state_bytes or 0)
        for group in pool.groups
        for grouped in group.layers
    )
    assert (
        max(sum(each.page_bytes for each in group.layers) for group in pool.groups)
        == (pool.block_bytes[0])
    )


@given(LAYERS, SERVINGS, BYTES, st.integers(1, 300_000))
def test_the_longest_request_is_a_border(
    layers: list[CacheLayer], serving: Serving, available: int, limit: int
) -> None:
    pool = pool_of(layers)

    def fits(length: int) -> bool:
        changed = Serving(
            max_model_len_tokens=length,
            in_flight_tokens=serving.in_flight_tokens,
            encoder_tokens=serving.encoder_tokens,
        )
        return pool.fits(available, changed)

    longest = pool.longest(available, serving, limit)
    assert 0 <= longest <= limit
    assert longest == 0 or fits(longest)
    assert longest == limit or not fits(longest + 1)


@given(st.integers(1, 64), st.integers(1, 16), st.sampled_from([64, 128]), st.integers(0, 5))
def test_gpus_share_the_heads_until_each_has_one(
    kv_heads: int, group: int, head: int, doublings: int
) -> None:
    tp = 2**doublings
    sizes: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": kv_heads * group * tp,
        "num_key_value_heads": kv_heads * tp,
        "head_dim": head,
    }
    config = ModelConfig(path=Path("config.json"), raw=sizes, text=sizes)
    alone, each = (
        planning.cache_layers(config, CacheSettings(tensor_parallel_size=size)) for size in (1, tp)
    )
    assert alone[0].token_bytes == (each[0].token_bytes or 0) * tp
    fewer = sizes | {"num_key_value_heads": 1}
    config = ModelConfig(path=Path("config.json"), raw=fewer, text=fewer)
    (copied, *_) = planning.cache_layers(config, CacheSettings(tensor_parallel_size=tp))
    assert copied.token_bytes == 2 * head * 2


@given(st.lists(st.integers(1, 2**26), max_size=60))
def test_an_allocator_counts_no_less_than_it_was_asked_for(sizes: list[int]) -> None:
    asked = sum(sizes)
    counted = allocated_bytes(sizes)
    assert asked <= counted <= asked + len(sizes) * 2 * 2**20
    assert counted % 512 == 0
