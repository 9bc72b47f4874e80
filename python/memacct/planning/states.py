"""Layers that keep a state of fixed size for a sequence: Mamba, linear attention, convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._errors import ConfigError

from .model_config import DTYPE_BYTES

if TYPE_CHECKING:
    from .model_config import ModelConfig

#: A shape and the bytes of one element.
StateShape = tuple[tuple[int, ...], int]

_PURE = frozenset({"mamba", "mamba2", "falcon_mamba"})
_DELTA_NET = frozenset({"qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"})
_HYBRID = frozenset(
    {"nemotron_h", "falcon_h1", "jamba", "bamba", "zamba2", "granitemoehybrid", "lfm2", "lfm2_moe"}
)
_STATE_NAMES = frozenset({"linear_attention", "mamba", "mamba2", "conv", "hybrid"})
_ATTENTION_NAMES = frozenset({"full_attention", "attention", "sliding_attention", "hybrid"})


def is_stateful(config: ModelConfig) -> bool:
    """Whether any of its layers keeps a state."""
    return config.model_type in _PURE | _DELTA_NET | _HYBRID


def state_layers(config: ModelConfig) -> list[int]:
    """The layers that keep a state."""
    if not is_stateful(config):
        return []
    if config.model_type in _PURE | {"falcon_h1"}:
        return list(range(config.layers_count))
    return [i for i, name in enumerate(_layer_names(config)) if name in _STATE_NAMES]


def attention_layers(config: ModelConfig) -> list[int]:
    """The layers with attention."""
    if config.model_type in _PURE:
        return []
    if not is_stateful(config) or config.model_type == "falcon_h1":
        return list(range(config.layers_count))
    return [i for i, name in enumerate(_layer_names(config)) if name in _ATTENTION_NAMES]


def _layer_names(config: ModelConfig) -> list[str]:
    count = config.layers_count
    named = config.get("layers_block_type", "layer_types", "block_types")
    if isinstance(named, list) and len(named) == count:
        return [str(name) for name in named]
    if pattern := config.get("hybrid_override_pattern"):
        letters = {"M": "mamba", "*": "attention"}
        return [letters.get(letter, "mlp") for letter in str(pattern)]
    if config.model_type in _DELTA_NET:
        every = int(config.get("full_attention_interval", default=4))
        names = ("full_attention", "linear_attention")
        return [names[bool((layer + 1) % every)] for layer in range(count)]
    if config.model_type == "jamba":
        period = int(config.get("attn_layer_period", default=8))
        offset = int(config.get("attn_layer_offset", default=4))
        return ["attention" if i % period == offset else "mamba" for i in range(count)]
    listed = config.get("attn_layer_indices", "full_attn_idxs", "hybrid_layer_ids")
    if isinstance(listed, list):
        other = "conv" if config.model_type.startswith("lfm2") else "mamba"
        own = "hybrid" if config.model_type == "zamba2" else "attention"
        return [own if layer in listed else other for layer in range(count)]
    raise ConfigError(
        f"{config.path}: it does not say which layers of {config.architecture} have attention"
    )


def state_pages(config: ModelConfig) -> int:
    """Pages that a request takes of each state with prefix caching.

    Two, the running state and its last checkpoint, and one more where the kernels write
    checkpoints inside a prefill: Mamba-2's, and gated delta nets' on Hopper and newer. Models
    of states only run without prefix caching.
    """
    if config.model_type in _PURE:
        return 1
    return 2 if config.model_type == "jamba" or config.model_type.startswith("lfm2") else 3


def checkpoint_tokens(config: ModelConfig) -> int:
    """Tokens between two places at which a prefill may write a checkpoint of a state."""
    return 64 if config.model_type in _DELTA_NET else 1


def state_shapes(config: ModelConfig, tensor_parallel_size: int, dtype: str) -> list[StateShape]:
    """What a layer keeps for a sequence on one GPU.

    Source: the published layouts of these networks; which type each part has is vLLM's choice
    (0.33.0), in which Nemotron-H's recurrent state is float32 unless its config says else.
    """
    size = DTYPE_BYTES[dtype]
    kind = config.model_type
    if kind in _DELTA_NET:
        return _delta_net(config, tensor_parallel_size, size)
    if kind in {"jamba", "mamba", "falcon_mamba"}:
        return _mamba1(config, tensor_parallel_size, size)
    if kind.startswith("lfm2"):
        width = int(config.get("conv_dim", default=config.hidden_size))
        kept = config.size("conv_L_cache", "L_cache") - 1
        return [((kept, _divide(width, tensor_parallel_size)), size)]
    return _mamba2(config, tensor_parallel_size, size)


def _delta_net(config: ModelConfig, tp: int, size: int) -> list[StateShape]:
    key_heads, value_heads = (
        config.size("linear_num_key_heads"),
        config.size("linear_num_value_heads"),
    )
    key, value = config.size("linear_key_head_dim"), config.size("linear_value_head_dim")
    width = 2 * key * key_heads + value * value_heads
    kept = config.size("linear_conv_kernel_dim") - 1
    state = DTYPE_BYTES.get(str(config.get("mamba_ssm_dtype")), size)
    return [
        ((kept, _divide(width, tp)), size),
        ((_divide(value_heads, tp), value, key), state),
    ]


def _mamba1(config: ModelConfig, tp: int, size: int) -> list[StateShape]:
    inner = config.get("intermediate_size") if config.model_type in _PURE else None
    expand = config.get("mamba_expand", "expand", default=2)
    inner = int(inner or expand * config.hidden_size)
    width = _divide(inner, tp)
    kept = config.size("mamba_d_conv", "conv_kernel") - 1
    return [((kept, width), size), ((width, config.size("mamba_d_state", "state_size")), size)]


def mamba2_inner_size(config: ModelConfig) -> int:
    """Width of a Mamba-2 layer."""
    if config.model_type == "nemotron_h":
        return config.size("mamba_num_heads") * config.size("mamba_head_dim")
    if named := config.get("mamba_d_ssm"):
        return int(named)
    return int(config.get("mamba_expand", "expand", default=2) * config.hidden_size)


def mamba2_sizes(config: ModelConfig) -> tuple[int, int, int, int, int]:
    """Heads, width of a head, groups, size of a state, width of the convolution's window."""
    return (
        config.size("mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads"),
        config.size("mamba_head_dim", "mamba_d_head", "mamba_headdim", "head_dim"),
        config.size("n_groups", "mamba_n_groups", "mamba_ngroups"),
        config.size("ssm_state_size", "mamba_d_state", "state_size"),
        config.size("conv_kernel", "mamba_d_conv"),
    )


def _mamba2(config: ModelConfig, tp: int, size: int) -> list[StateShape]:
    heads, head, groups, state, kernel = mamba2_sizes(config)
    # Groups that do not divide are repeated, so that each GPU has those of its heads.
    groups += 0 if groups % tp == 0 else tp - groups
    width = mamba2_inner_size(config) + 2 * groups * state
    default = "float32" if config.model_type == "nemotron_h" else None
    named = str(config.get("mamba_ssm_cache_dtype", default=default))
    if config.model_type != "nemotron_h":
        named = "auto"
    return [
        ((kernel - 1, _divide(width, tp)), size),
        ((_divide(heads, tp), head, state), DTYPE_BYTES.get(named, size)),
    ]


def _divide(value: int, parts: int) -> int:
    if value % parts:
        raise ConfigError(f"a state {value} wide cannot be split over {parts} GPUs")
    return value // parts
