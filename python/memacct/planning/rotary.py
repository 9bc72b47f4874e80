"""The tables of rotary positions that an engine keeps beside the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cache_layers import is_latent
from .model_config import DTYPE_BYTES
from .states import attention_layers

if TYPE_CHECKING:
    from .model_config import ModelConfig

_WITHOUT = frozenset({"gpt2", "opt", "whisper", "nemotron_h", "jamba", "mamba", "mamba2"})
# These have one table for the layers that slide and one for the others.
_TWO = frozenset({"gemma3_text", "gemma3n_text"})


def rotary_tables(config: ModelConfig, dtype: str) -> list[int]:
    """What each table takes: a sine and a cosine for each position and pair of a head's numbers.

    Layers share one table, and every GPU has it.
    """
    positions = config.positions_count
    if config.model_type in _WITHOUT or positions is None or not attention_layers(config):
        return []
    width = config.size("qk_rope_head_dim") if is_latent(config) else config.head_size
    scaling = config.rope_scaling
    factor = config.get("partial_rotary_factor", default=scaling.get("partial_rotary_factor", 1.0))
    tables = 2 if config.model_type in _TWO else 1
    return [positions * int(width * factor) * DTYPE_BYTES[dtype]] * tables
