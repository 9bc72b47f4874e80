"""The parameters of layers that keep a state: Mamba, Mamba-2 and gated delta nets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .part import Part
from .pool import ceil_div
from .states import mamba2_inner_size, mamba2_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .model_config import ModelConfig


def mixer_parts(config: ModelConfig, layer: int, tp: int) -> Iterator[Part]:
    """The parameters of one such layer on one GPU."""
    if config.model_type == "qwen3_next":
        yield from _delta_net(config, layer, tp)
    elif config.model_type == "jamba":
        yield from _mamba1(config, layer, tp)
    else:
        yield from _mamba2(config, layer, tp)


def _mamba2(config: ModelConfig, layer: int, tp: int) -> Iterator[Part]:
    hidden, inner = config.hidden_size, mamba2_inner_size(config)
    heads, _, groups, state, kernel = mamba2_sizes(config)
    convolved = inner + 2 * groups * state
    for count in (hidden * (inner + convolved + heads), inner * hidden):
        yield Part(kind="mixer", layer=layer, elements_count=count // tp, quantised=True)
    small = convolved * kernel + heads  # with the bias of the time step
    small += convolved if config.get("use_conv_bias", "mamba_conv_bias", default=True) else 0
    if config.get("use_bias", "mamba_proj_bias", default=False):
        small += inner + convolved + heads
    if config.get("mamba_rms_norm", default=config.model_type != "falcon_h1"):
        small += inner
    yield Part(kind="mixer", layer=layer, elements_count=small // tp)
    # The decay is float32; the skip has the type of the model.
    yield Part(kind="mixer", layer=layer, elements_count=heads // tp, wide=True)
    yield Part(kind="mixer", layer=layer, elements_count=heads // tp)


def _mamba1(config: ModelConfig, layer: int, tp: int) -> Iterator[Part]:
    hidden = config.hidden_size
    inner = int(config.get("mamba_expand", default=2)) * hidden
    state, kernel = config.size("mamba_d_state"), config.size("mamba_d_conv")
    rank = config.get("mamba_dt_rank", default="auto")
    rank = ceil_div(hidden, 16) if rank == "auto" else int(rank)
    matrices = (hidden * 2 * inner, inner * (rank + 2 * state), rank * inner, inner * hidden)
    for count in matrices:
        yield Part(kind="mixer", layer=layer, elements_count=count // tp, quantised=True)
    small = inner * (kernel + 2)  # the convolution, its bias, that of the time step
    yield Part(kind="mixer", layer=layer, elements_count=small // tp)
    yield Part(kind="norms", layer=layer, elements_count=rank + 2 * state)
    yield Part(kind="mixer", layer=layer, elements_count=inner * (state + 1) // tp, wide=True)


def _delta_net(config: ModelConfig, layer: int, tp: int) -> Iterator[Part]:
    hidden = config.hidden_size
    value_heads = config.size("linear_num_value_heads")
    keys = config.size("linear_num_key_heads") * config.size("linear_key_head_dim")
    values = value_heads * config.size("linear_value_head_dim")
    kernel = config.size("linear_conv_kernel_dim")
    matrices = (hidden * (2 * keys + 2 * values), hidden * 2 * value_heads, values * hidden)
    for count in matrices:
        yield Part(kind="mixer", layer=layer, elements_count=count // tp, quantised=True)
    small = (2 * keys + values) * kernel + value_heads
    yield Part(kind="mixer", layer=layer, elements_count=small // tp)
    yield Part(kind="mixer", layer=layer, elements_count=value_heads // tp, wide=True)
    yield Part(kind="norms", layer=layer, elements_count=config.size("linear_value_head_dim"))
