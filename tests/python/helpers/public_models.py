"""Configs of public models, as far as memory depends on them, with what is known of each.

Parameters: as counted in public (model cards, safetensors indices). Bytes of a token: from the
published dimensions, in bfloat16.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Public(NamedTuple):
    """A model: its config, its parameters, what one token takes in its KV cache."""

    config: dict[str, Any]
    parameters_count: int
    token_bytes: int


def _llama_like(kind: str, **sizes: Any) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    named = dict(
        zip((*names, "num_key_value_heads", "vocab_size"), sizes.pop("sizes"), strict=True)
    )
    return {"model_type": kind, "tie_word_embeddings": False} | named | sizes


PUBLIC = {
    "Llama-3.1-8B": Public(
        _llama_like(
            "llama",
            sizes=(4096, 14336, 32, 32, 8, 128256),
            architectures=["LlamaForCausalLM"],
            torch_dtype="bfloat16",
            max_position_embeddings=131072,
            rope_scaling={
                "rope_type": "llama3",
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
            },
        ),
        8_030_261_248,
        131_072,
    ),
    "Qwen2.5-0.5B": Public(
        _llama_like(
            "qwen2",
            sizes=(896, 4864, 24, 14, 2, 151936),
            max_position_embeddings=32768,
            tie_word_embeddings=True,
            use_sliding_window=False,
            sliding_window=32768,
        ),
        494_032_768,
        12_288,
    ),
    "Qwen2.5-7B": Public(
        _llama_like(
            "qwen2",
            sizes=(3584, 18944, 28, 28, 4, 152064),
            max_position_embeddings=32768,
            use_sliding_window=False,
            sliding_window=131072,
        ),
        7_615_616_512,
        57_344,
    ),
    "Mistral-7B-v0.1": Public(
        _llama_like("mistral", sizes=(4096, 14336, 32, 32, 8, 32000), sliding_window=4096),
        7_241_732_096,
        131_072,
    ),
    "Mixtral-8x7B": Public(
        _llama_like("mixtral", sizes=(4096, 14336, 32, 32, 8, 32000), num_local_experts=8),
        46_702_792_704,
        131_072,
    ),
    "Qwen3-8B": Public(
        _llama_like("qwen3", sizes=(4096, 12288, 36, 32, 8, 151936), head_dim=128),
        8_190_735_360,
        147_456,
    ),
    "Qwen3-30B-A3B": Public(
        _llama_like(
            "qwen3_moe",
            sizes=(2048, 6144, 48, 32, 4, 151936),
            head_dim=128,
            moe_intermediate_size=768,
            num_experts=128,
            num_experts_per_tok=8,
            mlp_only_layers=[],
            decoder_sparse_step=1,
        ),
        30_532_122_624,
        98_304,
    ),
    "gemma-2-9b": Public(
        _llama_like(
            "gemma2",
            sizes=(3584, 14336, 42, 16, 8, 256000),
            head_dim=256,
            sliding_window=4096,
            tie_word_embeddings=True,
        ),
        9_241_705_984,
        344_064,
    ),
    "gemma-3-1b": Public(
        _llama_like(
            "gemma3_text",
            sizes=(1152, 6912, 26, 4, 1, 262144),
            head_dim=256,
            sliding_window=512,
            sliding_window_pattern=6,
            tie_word_embeddings=True,
        ),
        999_885_952,
        26_624,
    ),
    "gpt-oss-20b": Public(
        _llama_like(
            "gpt_oss",
            sizes=(2880, 2880, 24, 64, 8, 201088),
            head_dim=64,
            num_local_experts=32,
            num_experts_per_tok=4,
            sliding_window=128,
            attention_bias=True,
            quantization_config={"quant_method": "mxfp4"},
        ),
        20_914_757_184,
        49_152,
    ),
    "DeepSeek-V2-Lite": Public(
        _llama_like(
            "deepseek_v2",
            sizes=(2048, 10944, 27, 16, 16, 102400),
            moe_intermediate_size=1408,
            n_routed_experts=64,
            n_shared_experts=2,
            num_experts_per_tok=6,
            first_k_dense_replace=1,
            moe_layer_freq=1,
            kv_lora_rank=512,
            q_lora_rank=None,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
        ),
        15_706_484_224,
        27 * 576 * 2,
    ),
    "DeepSeek-V3": Public(
        _llama_like(
            "deepseek_v3",
            sizes=(7168, 18432, 61, 128, 128, 129280),
            moe_intermediate_size=2048,
            n_routed_experts=256,
            n_shared_experts=1,
            num_experts_per_tok=8,
            first_k_dense_replace=3,
            moe_layer_freq=1,
            kv_lora_rank=512,
            q_lora_rank=1536,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            topk_method="noaux_tc",
        ),
        671_026_419_200,
        61 * 576 * 2,
    ),
    "whisper-tiny": Public(
        {
            "model_type": "whisper",
            "d_model": 384,
            "encoder_layers": 4,
            "decoder_layers": 4,
            "encoder_attention_heads": 6,
            "decoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "decoder_ffn_dim": 1536,
            "num_mel_bins": 80,
            "max_source_positions": 1500,
            "max_target_positions": 448,
            "vocab_size": 51865,
        },
        37_760_640,
        4 * 2 * 2 * 384 * 2,  # to itself and to the encoder
    ),
}


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    """Writes a config.json; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder
