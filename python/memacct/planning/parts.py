"""The parameters of a model from its config: how many each part has, on one GPU of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cache_layers import is_latent, kv_heads_per_gpu
from .mixers import mixer_parts
from .part import FIRST, LAST, Part
from .pool import ceil_div
from .states import attention_layers, state_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .model_config import ModelConfig

VOCABULARY_STEP = 64  # vLLM pads the vocabulary to a multiple of this

# Types whose parameters the formulas below give exactly.
_DENSE = frozenset(
    {"llama", "mistral", "ministral", "qwen2", "qwen3", "phi3", "granite", "smollm3"}
)
_DENSE |= {"gemma", "gemma2", "gemma3_text", "olmo2", "seed_oss", "whisper", "gpt_oss"}
_EXPERTS = frozenset({"mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "kimi_k2"})
_STATEFUL = frozenset({"nemotron_h", "falcon_h1", "jamba", "qwen3_next"})
_HEAD_NORMS = frozenset({"qwen3", "qwen3_moe", "gemma3_text", "qwen3_next"})
_FOUR_NORMS = frozenset({"gemma2", "gemma3_text"})
_QKV_BIAS = frozenset({"qwen2", "qwen2_moe", "seed_oss", "gpt_oss"})


def has_formula(config: ModelConfig) -> bool:
    """Whether `parts` gives all parameters of this model."""
    whole = config.text is config.raw
    return whole and config.model_type in _DENSE | _EXPERTS | _STATEFUL


def parts(config: ModelConfig, tp: int = 1, *, padded: bool = True) -> Iterator[Part]:
    """The parameters of a model, as vLLM allocates them.

    Args:
        config: for which `has_formula`.
        tp: GPUs that share each layer.
        padded: with the vocabulary padded as in the engine; else as counted in public.
    """
    if config.model_type == "whisper":
        yield from _whisper(config, tp, padded=padded)
        return
    hidden = config.hidden_size
    table = vocabulary_rows(config, tp, padded=padded) * hidden
    yield Part(kind="embedding", layer=FIRST, elements_count=table)
    for layer in range(config.layers_count):
        yield from _layer(config, layer, tp)
    yield Part(kind="norms", layer=LAST, elements_count=hidden)
    if not config.tied:
        yield Part(kind="head", layer=LAST, elements_count=table)


def vocabulary_rows(config: ModelConfig, tp: int, *, padded: bool = True) -> int:
    """Rows of the embedding on each GPU."""
    rows = config.vocabulary_size
    return ceil_div(rows, VOCABULARY_STEP) * VOCABULARY_STEP // tp if padded else rows


def parameters_count(config: ModelConfig) -> int:
    """The model's parameters, as counted in public: nothing padded, nothing twice."""
    return sum(part.elements_count for part in parts(config, padded=False) if part.kind != "copies")


def _layer(config: ModelConfig, layer: int, tp: int) -> Iterator[Part]:
    hidden = config.hidden_size
    if config.model_type == "nemotron_h":
        yield Part(kind="norms", layer=layer, elements_count=hidden)
    else:
        for _ in range(4 if config.model_type in _FOUR_NORMS else 2):
            yield Part(kind="norms", layer=layer, elements_count=hidden)
    if layer in state_layers(config):
        yield from mixer_parts(config, layer, tp)
    if layer in attention_layers(config):
        yield from (
            _latent(config, layer, tp) if is_latent(config) else _attention(config, layer, tp)
        )
    if config.model_type == "nemotron_h":
        if str(config.get("hybrid_override_pattern"))[layer] == "-":
            count = hidden * config.size("intermediate_size") // tp
            for _ in ("up", "down"):
                yield Part(kind="mlp", layer=layer, elements_count=count, quantised=True)
    elif _is_sparse(config, layer):
        yield from _experts(config, layer, tp)
    else:
        yield from _mlp(config, layer, config.size("intermediate_size"), tp)


def _attention(config: ModelConfig, layer: int, tp: int) -> Iterator[Part]:
    hidden, head = config.hidden_size, config.head_size
    queries = config.heads_count // tp * head
    keys = kv_heads_per_gpu(config, tp) * head
    gated = 2 if config.model_type == "qwen3_next" else 1  # its queries come with gates
    for count in (hidden * (gated * queries + 2 * keys), queries * hidden):
        yield Part(kind="attention", layer=layer, elements_count=count, quantised=True)
    small = 0
    biased = config.get("qkv_bias", "attention_bias", default=config.model_type in _QKV_BIAS)
    if biased or config.model_type in _QKV_BIAS:
        small += queries + 2 * keys
    if (config.get("attention_bias") and config.model_type in {"llama", "granite"}) or (
        config.model_type == "gpt_oss"
    ):
        small += hidden
    if config.model_type == "gpt_oss":
        small += config.heads_count // tp  # sinks
    if config.model_type in _HEAD_NORMS:
        for _ in ("queries", "keys"):
            yield Part(kind="norms", layer=layer, elements_count=head)
    elif config.model_type == "olmo2":
        small += (config.heads_count + config.kv_heads_count) * head
    yield Part(kind="attention", layer=layer, elements_count=small)


def _latent(config: ModelConfig, layer: int, tp: int) -> Iterator[Part]:
    hidden, heads = config.hidden_size, config.heads_count // tp
    plain, rotated = config.size("qk_nope_head_dim"), config.size("qk_rope_head_dim")
    value, latent = config.size("v_head_dim"), config.size("kv_lora_rank")
    rank = config.get("q_lora_rank")
    matrices = [hidden * (latent + rotated), latent * heads * (plain + value)]
    if rank:
        # What makes the latents is on every GPU, in one matrix; what reads them is split by heads.
        matrices = [hidden * (rank + latent + rotated), rank * heads * (plain + rotated)]
        matrices += [latent * heads * (plain + value)]
    else:
        matrices += [hidden * heads * (plain + rotated)]
    for count in (*matrices, heads * value * hidden):
        yield Part(kind="attention", layer=layer, elements_count=count, quantised=True)
    yield Part(kind="norms", layer=layer, elements_count=latent + (rank or 0))
    if config.quantization:
        # For decoding vLLM keeps the latents' reader once more, unquantised.
        copies = heads * latent * (plain + value)
        yield Part(kind="copies", layer=layer, elements_count=copies)


def _mlp(config: ModelConfig, layer: int, width: int, tp: int) -> Iterator[Part]:
    count = config.hidden_size * width // tp
    for each in (2 * count, count):  # gate and up in one, down
        yield Part(kind="mlp", layer=layer, elements_count=each, quantised=True)


def _is_sparse(config: ModelConfig, layer: int) -> bool:
    """Whether a layer has experts."""
    if not experts_count(config):
        return False
    if config.model_type in {"deepseek_v2", "deepseek_v3", "kimi_k2"}:
        first = int(config.get("first_k_dense_replace", default=0))
        return layer >= first and layer % int(config.get("moe_layer_freq", default=1)) == 0
    if config.model_type == "jamba":
        period = int(config.get("expert_layer_period", default=2))
        return layer % period == int(config.get("expert_layer_offset", default=1))
    if layer in (config.get("mlp_only_layers") or []):
        return False
    return (layer + 1) % int(config.get("decoder_sparse_step", default=1)) == 0


def experts_count(config: ModelConfig) -> int:
    """Routed experts of a layer; 0 for a dense model."""
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    return int(config.get(*names, default=0))


def _experts(config: ModelConfig, layer: int, tp: int) -> Iterator[Part]:
    hidden, count = config.hidden_size, experts_count(config)
    width = int(config.get("moe_intermediate_size", "intermediate_size"))
    yield Part(kind="norms", layer=layer, elements_count=hidden * count)  # the router
    size = count * hidden * width // tp
    for each in (2 * size, size):
        yield Part(kind="experts", layer=layer, elements_count=each, quantised=True)
    if config.model_type == "gpt_oss":
        biases = count * (2 * width // tp + hidden + 1)
        yield Part(kind="experts", layer=layer, elements_count=biases)
    if config.get("topk_method") == "noaux_tc":
        yield Part(kind="norms", layer=layer, elements_count=count, wide=True)
    if shared := config.get("n_shared_experts"):
        yield from _mlp(config, layer, shared * width, tp)
    if shared := config.get("shared_expert_intermediate_size"):
        yield from _mlp(config, layer, shared, tp)
        yield Part(kind="norms", layer=layer, elements_count=hidden)  # its gate


def _whisper(config: ModelConfig, tp: int, *, padded: bool) -> Iterator[Part]:
    width, mels = config.hidden_size, config.size("num_mel_bins")
    sources, targets = config.size("max_source_positions"), config.size("max_target_positions")
    table = vocabulary_rows(config, tp, padded=padded) * width
    front = 3 * mels * width + 3 * width * width + 2 * width + (sources + targets) * width
    yield Part(kind="embedding", layer=FIRST, elements_count=table + front)
    biases = 3 if not padded else 4  # keys have none; fused with the others they get one
    block = 4 * width * width // tp + biases * width
    for size, count, blocks in (
        (config.size("encoder_ffn_dim"), config.size("encoder_layers"), 1),
        (config.size("decoder_ffn_dim"), config.size("decoder_layers"), 2),
    ):
        mlp = 2 * width * size // tp + size // tp + width
        norms = 2 * width * (blocks + 1)
        for layer in range(count):
            yield Part(kind="attention", layer=layer, elements_count=blocks * block)
            yield Part(kind="mlp", layer=layer, elements_count=mlp)
            yield Part(kind="norms", layer=layer, elements_count=norms)
    yield Part(kind="norms", layer=LAST, elements_count=4 * width)
