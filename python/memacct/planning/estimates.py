"""What an engine takes besides weights and KV cache: estimates, each with its range and source.

They are not laws. Each formula was fitted to starts of vLLM 0.33.0 with the shapes of public
models (see docs/plan.md); drivers, attention libraries and the version of the engine move them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._units import GIB, MIB

from .cache_layers import is_latent
from .parts import experts_count, vocabulary_rows

if TYPE_CHECKING:
    from .model_config import ModelConfig

_FLOAT_BYTES = 4
_UNFOLDED_TOKENS = 65_536  # the most that vLLM unfolds at once

# Of one logit: as the model gives it, and as a float.
_LOGITS_BYTES = 2 + _FLOAT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure that nobody can know before the start.

    Attributes:
        bytes: what is reckoned with.
        low_bytes: hardly less.
        high_bytes: hardly more.
        source: how it was come by, in words.
    """

    bytes: int
    low_bytes: int
    high_bytes: int
    source: str


def buffers(config: ModelConfig, sequences: int) -> Estimate:
    """What the engine keeps from its start on: the runner's buffers, libraries' workspaces."""
    counts = sequences * config.vocabulary_size * _FLOAT_BYTES  # how often each token was said
    return Estimate(
        bytes=counts + 128 * MIB,
        low_bytes=64 * MIB,
        high_bytes=counts + 512 * MIB,
        source=f"a count of each token for {sequences} sequences, and 64 to 512 MiB of libraries",
    )


def activation(
    config: ModelConfig,
    *,
    tokens: int,
    sequences: int,
    tp: int,
    element_bytes: int,
    enforce_eager: bool,
) -> Estimate:
    """The transient peak of the first full batch: its widest layer, its sampling, or its compiling.

    Args:
        config: of the model.
        tokens: of a batch.
        sequences: at the same time.
        tp: GPUs that share each layer.
        element_bytes: of weights and activations.
        enforce_eager: nothing is compiled.

    Returns:
        What a start without a compiled model in vLLM's cache takes. A later start, which loads
        one, compiles nothing: its peak is nearer to the low end of the range.
    """
    inner = config.get("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", default=0)
    if experts_count(config) and config.get("moe_intermediate_size"):
        chosen = int(config.get("num_experts_per_tok", "num_experts_per_token", default=1))
        inner = max(int(inner or 0), chosen * int(config.get("moe_intermediate_size")))
    width = 3 * (int(inner or 4 * config.hidden_size) // tp) + 4 * config.hidden_size
    layer = tokens * width * 2 + (_latent_keys(config, tokens, tp) if is_latent(config) else 0)
    sampling = _sampling(config, tokens, sequences)
    value = max(layer, sampling)
    source = f"{tokens:,} tokens through the widest layer, or sampling {sequences} sequences"
    compiling = 0 if enforce_eager else _tuned_elements(config, tokens, tp) * element_bytes
    if compiling > value:
        source = "a second embedding, with which torch.compile tunes the kernel that reads it"
    return Estimate(
        bytes=max(value, compiling),
        low_bytes=max(layer * 6 // 10, sequences * config.vocabulary_size * _LOGITS_BYTES),
        high_bytes=max(value * 17 // 10, compiling) + 64 * MIB,
        source=source,
    )


def _sampling(config: ModelConfig, tokens: int, sequences: int) -> int:
    """Logits as they come and as floats, masked by top-k, and as probabilities.

    vLLM 0.33 profiles such a pass, with FlashInfer's sampler; before it, and without FlashInfer,
    hardly more than the first two. The batch's hidden states are still there, and those that are
    sampled of them.
    """
    logits = sequences * config.vocabulary_size * (_LOGITS_BYTES + 2 * _FLOAT_BYTES)
    return logits + (tokens + sequences) * config.hidden_size * 2


def _tuned_elements(config: ModelConfig, tokens: int, tp: int) -> int:
    """Elements that inductor makes up to tune the kernel that looks tokens up.

    It times each Triton kernel of a graph when it first compiles it, within the profiled batch, on
    tensors of the real sizes (torch/_inductor/codegen/wrapper.py, generate_and_run_autotune_block).
    The largest that any kernel reads is the embedding, beside it are two of the batch.
    """
    return (vocabulary_rows(config, tp) + 2 * tokens) * config.hidden_size


def _latent_keys(config: ModelConfig, tokens: int, tp: int) -> int:
    """Keys and values that a prefill unfolds from the latents of what came before it."""
    width = config.size("qk_nope_head_dim") + config.size("v_head_dim")
    return max(tokens, _UNFOLDED_TOKENS) * (config.heads_count // tp) * width * 2


def graphs(*, enforce_eager: bool) -> Estimate:
    """CUDA graphs, which newer engines take off the KV cache."""
    if enforce_eager:
        return Estimate(bytes=0, low_bytes=0, high_bytes=0, source="none: eager")
    return Estimate(
        bytes=GIB // 2,
        low_bytes=64 * MIB,
        high_bytes=9 * GIB // 5,
        source="0.06 to 1.8 GiB in starts of 17 models; more sequences, more graphs",
    )
