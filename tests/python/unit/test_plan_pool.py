"""Blocks, groups and concurrency: known answers, and what engines logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from plan_models import write_model
from public_models import PUBLIC, write_config

from memacct import planning
from memacct._errors import ConfigError
from memacct.planning import CacheLayer, CacheSettings, Serving, make_pool

if TYPE_CHECKING:
    from pathlib import Path


def pool_of(folder: Path, stages_count: int = 1) -> planning.Pool:
    config = planning.read_config(folder)
    layers = planning.cache_layers(config, CacheSettings())
    return make_pool(layers, config.layers_count, stages_count)


def serving(length: int, in_flight: int = 16384, encoder: int = 0) -> Serving:
    return Serving(max_model_len_tokens=length, in_flight_tokens=in_flight, encoder_tokens=encoder)


def test_21_gigabytes_at_12288_bytes_a_token(tmp_path: Path) -> None:
    pool = pool_of(write_config(tmp_path, PUBLIC["Qwen2.5-0.5B"].config))
    assert pool.block_bytes == (16 * 12_288,)
    # 107,618 whole blocks: the least budget for them, and the most, are both 21.16 GB (of 10**9
    # bytes, rounded). 21.16 GiB would be 115,564 blocks.
    least = 107_618 * 16 * 12_288
    for budget in (least, least + 16 * 12_288 - 1):
        assert f"{budget / 1e9:.2f}" == "21.16"
        capacity = pool.capacity(budget, serving(32_768))
        assert capacity.tokens_count == 1_721_888
        assert f"{capacity.requests_ratio:.2f}" == "52.55"
    assert pool.capacity(least - 1, serving(32_768)).tokens_count == 1_721_888 - 16


# Bytes, "GPU KV cache size" and "Maximum concurrency" as vLLM 0.33.0 logged them for these
# configs, max_model_len 8192, max_num_batched_tokens 8192; tests/engine/test_plan.py starts it.
LOGGED = {
    "llama": (8_044_626_432, 1_309_344, "159.83"),
    "mistral": (8_101_249_024, 1_973_984, "240.96"),
    "qwen2": (8_024_166_912, 3_134_432, "382.62"),
    "qwen3": (8_153_726_976, 497_664, "60.75"),
    "qwen3-moe": (7_956_545_536, 971_248, "118.56"),
    "gemma3": (7_792_971_776, 542_684, "66.25"),
    "deepseek-v2": (7_372_488_704, 1_279_936, "156.24"),
    "nemotron-h": (4_000_000_000, 891_000, "108.76"),
    "falcon-h1": (4_000_000_000, 833_194, "101.71"),
    "qwen3-next": (4_000_000_000, 714_108, "87.17"),
}


@pytest.mark.parametrize("name", LOGGED)
def test_what_an_engine_logged(tmp_path: Path, name: str) -> None:
    available, tokens, ratio = LOGGED[name]
    capacity = pool_of(write_model(tmp_path, name)).capacity(available, serving(8192))
    assert (capacity.tokens_count, f"{capacity.requests_ratio:.2f}") == (tokens, ratio)


# The same from starts on two GPUs, with the bytes of the GPU that had least.
LOGGED_ON_TWO = [
    ("llama", 1, 2, 8_298_381_824, 2_701_296, "329.75"),
    ("deepseek-v2", 2, 1, 7_964_459_008, 1_382_704, "168.79"),
]


@pytest.mark.parametrize(("name", "tp", "pp", "available", "tokens", "ratio"), LOGGED_ON_TWO)
def test_what_an_engine_on_two_gpus_logged(  # noqa: PLR0917 (a row of the table)
    tmp_path: Path, name: str, tp: int, pp: int, available: int, tokens: int, ratio: str
) -> None:
    settings = planning.PlanSettings(
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        max_model_len_tokens=8192,
        kv_cache_bytes=available,
    )
    plan = planning.make_plan(planning.read_config(write_model(tmp_path, name)), settings)
    assert plan.capacity is not None
    assert plan.capacity.tokens_count == tokens
    assert f"{plan.capacity.requests_ratio:.2f}" == ratio


def test_one_longest_request_needs_a_block_more(tmp_path: Path) -> None:
    pool = pool_of(write_model(tmp_path, "llama"))
    request = serving(8192)
    needed = pool.needed_bytes(request)
    assert needed == (8192 // 16 + 1) * pool.block_bytes[0]
    assert pool.fits(needed, request)
    assert not pool.fits(needed - 1, request)
    assert pool.longest(needed, request, 100_000) == 8192
    assert pool.longest(pool.block_bytes[0], request, 100_000) == 0


def test_a_window_keeps_itself_and_what_is_in_flight(tmp_path: Path) -> None:
    pool = pool_of(write_model(tmp_path, "mistral"))  # a window of 1024
    long = serving(1_000_000, in_flight=2 * 2048)
    assert pool.request_blocks(long) == -(-(1023 + 4096) // 16) + 1
    assert pool.request_blocks(serving(512, in_flight=4096)) == 512 // 16 + 1


def test_an_encoder_is_kept_beside_the_decoder(tmp_path: Path) -> None:
    pool = pool_of(write_config(tmp_path, PUBLIC["whisper-tiny"].config))
    assert len(pool.groups) == 2
    assert pool.request_blocks(serving(448, encoder=1500)) == 28 + 94
    assert pool.block_bytes == (4 * 16 * 2 * 384 * 2,)


def test_stages_share_the_layers_and_the_poorest_decides(tmp_path: Path) -> None:
    folder = write_config(tmp_path, PUBLIC["DeepSeek-V2-Lite"].config)
    pool = pool_of(folder, 4)  # 27 layers: 6, 7, 7, 7
    page = 16 * 576 * 2
    assert pool.block_bytes == (7 * page, 7 * page, 7 * page, 6 * page)
    assert pool.blocks(7 * page * 10) == 10
    # What is left over goes to the later stages, the last excepted: it has the head too.
    assert pool_of(folder, 5).block_bytes == tuple(count * page for count in (5, 5, 6, 6, 5))
    with pytest.raises(ConfigError, match="27 layers cannot be 28 pipeline stages"):
        pool_of(folder, 28)


def attention(layer: int, kind: str, token_bytes: int) -> CacheLayer:
    return CacheLayer(
        layer=layer,
        kind=kind,  # type: ignore[arg-type]
        token_bytes=token_bytes,
        window_tokens=128 if kind == "sliding" else None,
        block_tokens=16,
        page_bytes=16 * token_bytes,
    )


def test_smaller_pages_hold_more_tokens_or_are_padded() -> None:
    both = [attention(0, "full", 1024), attention(1, "sliding", 512)]
    (full,), (sliding,) = (group.layers for group in make_pool(both, 2).groups)
    assert (full.block_tokens, sliding.block_tokens) == (16, 32)
    odd = [attention(0, "full", 1024), attention(1, "sliding", 768)]
    (full,), (sliding,) = (group.layers for group in make_pool(odd, 2).groups)
    assert (sliding.block_tokens, sliding.page_bytes) == (16, 16 * 1024)


@pytest.mark.parametrize(
    ("full", "sliding", "groups", "width"),
    [(2, 12, 7, 2), (12, 13, 2, 13), (2, 3, 3, 2), (1, 5, 6, 1), (4, 4, 2, 4)],
)
def test_groups_are_as_wide_as_the_rarer_kind(
    full: int, sliding: int, groups: int, width: int
) -> None:
    kinds = ["full"] * full + ["sliding"] * sliding
    layers = [attention(i, kind, 64) for i, kind in enumerate(kinds)]
    pool = make_pool(layers, len(layers))
    assert len(pool.groups) == groups
    assert pool.block_bytes == (width * 16 * 64,)


def test_a_model_without_a_cache_has_no_plan() -> None:
    with pytest.raises(ConfigError, match="keeps no KV cache"):
        make_pool([], 3)
