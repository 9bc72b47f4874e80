"""What each layer of a model keeps for a token or a sequence, on one GPU: from its config."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memacct._errors import ConfigError

from .model_config import DTYPE_BYTES
from .pool import CacheLayer, ceil_div
from .states import (
    attention_layers,
    checkpoint_tokens,
    is_stateful,
    state_layers,
    state_pages,
    state_shapes,
)

if TYPE_CHECKING:
    from .model_config import ModelConfig
    from .pool import LayerKind

DEFAULT_BLOCK_TOKENS = 16
# Hybrids of latent attention and states: the decode kernels want this many tokens.
_LATENT_STATE_TOKENS = 128
_LATENT_TYPES = frozenset(
    {"deepseek_v2", "deepseek_v3", "kimi_k2", "kimi_vl", "glm4_moe_lite", "longcat_flash"}
    | {"deepseek_mtp", "pangu_ultra_moe", "bailing_hybrid"}
)
# Their caches hold more than attention's keys and values, or differ from layer to layer.
_UNKNOWN_TYPES = frozenset(
    {"deepseek_v32", "deepseek_v4", "deepseek_v41", "glm_moe_dsa", "gemma4", "gemma4_text"}
    | {"kimi_linear", "kimi_k3", "minimax_text_01", "minimax", "minimax_m3", "qwen4_exp"}
    | {"step5", "inkling", "olmo_hybrid", "plamo2", "plamo3", "bailing_moe_linear", "mimo_v2"}
)
# Every n-th layer is full attention, the others slide; where the config may leave it out.
_FULL_EVERY = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gemma3n_text": 5, "cohere2": 4}
_FULL_EVERY |= {"gpt_oss": 2, "olmo3": 4}
_QWEN_WINDOWS = frozenset({"qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen2_vl", "qwen2_5_vl"})
# With nothing but attention to all tokens, or to a window that the config names.
_PLAIN_TYPES = frozenset(
    {"llama", "llama4_text", "mistral", "mixtral", "ministral", "phi3", "granite", "smollm3"}
    | {"gemma", "olmo2", "seed_oss", "whisper", "gpt2", "opt", "glm4", "glm4_moe", "cohere"}
    | {"qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "starcoder2", "exaone4"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """How the engine is told to keep its cache.

    Attributes:
        tensor_parallel_size: GPUs that share each layer.
        kv_dtype: as ``--kv-cache-dtype``; ``auto`` is the model's.
        dtype: as ``--dtype``.
        block_tokens: as ``--block-size``; None is vLLM's own choice.
        prefix_caching: as ``--enable-prefix-caching``, which is its default; for states only.
    """

    tensor_parallel_size: int = 1
    kv_dtype: str = "auto"
    dtype: str = "auto"
    block_tokens: int | None = None
    prefix_caching: bool = True


def cache_layers(config: ModelConfig, settings: CacheSettings) -> tuple[CacheLayer, ...]:
    """What every layer keeps, in the order of the model.

    Raises:
        ConfigError: the model's cache is of a sort that is not known here, or its heads
            cannot be split so.
    """
    if config.model_type in _UNKNOWN_TYPES:
        raise ConfigError(
            f"{config.architecture} ({config.model_type}) keeps a cache that plan does not know"
        )
    block_tokens, padded_page = _block(config, settings)
    found: list[CacheLayer] = []
    states = set(state_layers(config))
    kinds = _window_kinds(config)
    attention = set(attention_layers(config))
    for layer in range(config.layers_count):
        if layer in states:
            found.append(_state_layer(config, settings, layer, block_tokens, padded_page))
        if layer in attention and layer < _first_shared(config):
            found.append(_attention_layer(config, settings, layer, kinds[layer], block_tokens))
    if config.model_type == "whisper":
        found += [replace(layer, kind="cross") for layer in found]
    return tuple(found)


def token_bytes(config: ModelConfig, settings: CacheSettings) -> int:
    """What one attention layer keeps of one token on one GPU."""
    size = DTYPE_BYTES[config.kv_dtype(settings.kv_dtype, settings.dtype)]
    if is_latent(config):
        # One latent vector and one rotated key, whatever the heads: each GPU has all of it.
        return (config.size("kv_lora_rank") + config.size("qk_rope_head_dim")) * size
    heads = kv_heads_per_gpu(config, settings.tensor_parallel_size)
    value_size = config.get("v_head_dim") if config.model_type == "mimo_v2_flash" else None
    return heads * (config.head_size + int(value_size or config.head_size)) * size


def is_latent(config: ModelConfig) -> bool:
    """Whether it is multi-head latent attention (MLA)."""
    return config.model_type in _LATENT_TYPES and config.get("kv_lora_rank") is not None


def is_familiar(config: ModelConfig) -> bool:
    """Whether what its layers keep is known; of others it is taken to be what the config hints."""
    plain = _PLAIN_TYPES | _QWEN_WINDOWS | _LATENT_TYPES | _FULL_EVERY.keys()
    return config.model_type in plain or is_stateful(config)


def kv_heads_per_gpu(config: ModelConfig, tensor_parallel_size: int) -> int:
    """Key and value heads on each GPU; with more GPUs than heads each has a copy of one.

    Raises:
        ConfigError: heads and GPUs do not divide each other.
    """
    size = tensor_parallel_size
    if config.heads_count % size:
        raise ConfigError(f"{config.heads_count} attention heads cannot be split over {size} GPUs")
    heads = config.kv_heads_count
    if heads % size and size % heads:
        raise ConfigError(f"{heads} key and value heads cannot be split over {size} GPUs")
    return max(1, heads // size)


def _block(config: ModelConfig, settings: CacheSettings) -> tuple[int, int | None]:
    """Tokens of a block, and what a state's page is padded to.

    Source: vLLM's ``_align_hybrid_block_size``: the smallest block, in whole steps of its
    default, whose attention page is not smaller than the state.
    """
    block = settings.block_tokens or DEFAULT_BLOCK_TOKENS
    if not is_stateful(config):
        return block, None
    state_bytes = _state_bytes(config, settings)
    if not attention_layers(config):
        return block, state_bytes
    token = token_bytes(config, settings)
    step = max(block, _LATENT_STATE_TOKENS) if is_latent(config) else block
    if settings.prefix_caching:
        step = math.lcm(step, checkpoint_tokens(config))
    block = max(block, step * ceil_div(state_bytes, step * token))
    return block, block * token


def _state_bytes(config: ModelConfig, settings: CacheSettings) -> int:
    shapes = state_shapes(config, settings.tensor_parallel_size, config.dtype(settings.dtype))
    return sum(math.prod(shape) * size for shape, size in shapes)


def _state_layer(
    config: ModelConfig,
    settings: CacheSettings,
    layer: int,
    block_tokens: int,
    padded_page: int | None,
) -> CacheLayer:
    state_bytes = _state_bytes(config, settings)
    return CacheLayer(
        layer=layer,
        kind="state",
        state_bytes=state_bytes,
        state_pages_count=state_pages(config) if settings.prefix_caching else 1,
        block_tokens=block_tokens,
        page_bytes=padded_page or state_bytes,
    )


def _attention_layer(
    config: ModelConfig, settings: CacheSettings, layer: int, kind: LayerKind, block_tokens: int
) -> CacheLayer:
    size = token_bytes(config, settings)
    window = None
    if kind == "sliding":
        # Cohere's window does not count the token itself.
        window = config.size("sliding_window") + (config.model_type == "cohere2")
    elif kind == "chunked":
        window = config.size("attention_chunk_size")
    return CacheLayer(
        layer=layer,
        kind="latent" if is_latent(config) else kind,
        token_bytes=size,
        window_tokens=window,
        block_tokens=block_tokens,
        page_bytes=size * block_tokens,
    )


def _first_shared(config: ModelConfig) -> int:
    """From this layer on, layers use the cache of an earlier one."""
    return config.layers_count - int(config.get("num_kv_shared_layers", default=0))


def _window_kinds(config: ModelConfig) -> list[LayerKind]:
    count = config.layers_count
    named = config.get("layer_types")
    if isinstance(named, list) and len(named) >= count:
        return [_named_kind(config, str(name)) for name in named[:count]]
    if config.model_type.startswith("llama4"):
        return [_llama4_kind(config, layer) for layer in range(count)]
    return ["sliding" if slides else "full" for slides in _slides(config)]


def _slides(config: ModelConfig) -> list[bool]:
    """For each layer whether it slides, where the config does not name the layers."""
    count = config.layers_count
    default = config.model_type not in _QWEN_WINDOWS
    if not config.get("sliding_window") or not config.get("use_sliding_window", default=default):
        return [False] * count
    if config.model_type in _QWEN_WINDOWS:
        first = int(config.get("max_window_layers", default=28))
        return [layer >= first for layer in range(count)]
    every = config.get("sliding_window_pattern", default=_FULL_EVERY.get(config.model_type))
    if isinstance(every, str):  # such as "LLLG": L local, G global
        return [every[layer % len(every)] == "L" for layer in range(count)]
    if isinstance(every, int) and every > 1:
        return [bool((layer + 1) % every) for layer in range(count)]
    return [True] * count


def _named_kind(config: ModelConfig, name: str) -> LayerKind:
    if name == "sliding_attention" and config.get("sliding_window"):
        if config.model_type in _QWEN_WINDOWS and not config.get("use_sliding_window"):
            return "full"
        return "sliding"
    if name == "chunked_attention" and config.get("attention_chunk_size"):
        return "chunked"
    return "full"


def _llama4_kind(config: ModelConfig, layer: int) -> LayerKind:
    rotated = config.get("no_rope_layers") or []
    every = int(config.get("no_rope_layer_interval", default=4))
    is_rotated = bool(rotated[layer]) if layer < len(rotated) else bool((layer + 1) % every)
    return "chunked" if is_rotated and config.get("attention_chunk_size") else "full"
