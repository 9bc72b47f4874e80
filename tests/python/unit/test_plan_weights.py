"""Weights from the headers of safetensors files, and how an allocator rounds them."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from public_models import PUBLIC, write_config

from memacct import planning
from memacct._errors import ConfigError
from memacct._units import MIB
from memacct.planning.allocator_rounding import allocated_bytes
from memacct.planning.checkpoint import loaded_sizes, read_header, stored_tensors

if TYPE_CHECKING:
    from pathlib import Path

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 1024,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


def write_file(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """Writes a header only: what a file says, without the gigabytes that it says it of."""
    entries = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
        for name, (dtype, shape) in tensors.items()
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def sizes(folder: Path, dtype: str = "bfloat16") -> list[int]:
    tensors = stored_tensors(folder)
    assert tensors is not None
    return list(loaded_sizes(tensors, planning.read_config(folder), dtype))


def test_what_is_loaded_is_in_the_engines_type_with_the_vocabulary_padded(tmp_path: Path) -> None:
    folder = write_config(tmp_path, SMALL)
    stored = {
        "model.embed_tokens.weight": ("F32", [100, 64]),
        "model.layers.0.self_attn.q_proj.weight": ("F32", [64, 64]),
        "model.layers.0.self_attn.k_proj.weight": ("F32", [32, 64]),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [8]),
        "model.layers.1.mlp.down_proj.weight": ("BF16", [64, 128]),  # for speculation
        "model.layers.0.mlp.down_proj.weight": ("F8_E4M3", [64, 128]),
        "model.layers.0.mlp.down_proj.weight_scale_inv": ("F32", [1, 1]),
    }
    write_file(folder / "model.safetensors", stored)
    assert sizes(folder) == [128 * 64 * 2, (64 + 32) * 64 * 2, 64 * 128, 4]
    assert sizes(folder, "float32")[0] == 128 * 64 * 4


def test_a_head_that_is_tied_is_loaded_once(tmp_path: Path) -> None:
    folder = write_config(tmp_path, {**SMALL, "tie_word_embeddings": True})
    table = ("BF16", [128, 64])
    write_file(
        folder / "model.safetensors", {"embed_tokens.weight": table, "lm_head.weight": table}
    )
    assert sizes(folder) == [128 * 64 * 2]


def test_an_index_names_the_files(tmp_path: Path) -> None:
    folder = write_config(tmp_path, SMALL)
    for name in ("a", "b", "stray"):
        write_file(folder / f"{name}.safetensors", {f"{name}.weight": ("BF16", [8, 8])})
    index = {"weight_map": {"a.weight": "a.safetensors", "b.weight": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    tensors = stored_tensors(folder)
    assert tensors is not None
    assert [tensor.name for tensor in tensors] == ["a.weight", "b.weight"]
    (folder / "b.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"b\.safetensors is named in the index"):
        stored_tensors(folder)
    (folder / "a.safetensors").unlink()
    assert stored_tensors(folder) is None  # an index alone: nothing was downloaded


@pytest.mark.parametrize("content", [b"", b"\x01", struct.pack("<Q", 5) + b"nope!", b"\xff" * 64])
def test_what_is_no_safetensors_file_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a safetensors file"):
        list(read_header(path))


def test_files_and_architecture_agree(tmp_path: Path) -> None:
    folder = write_config(tmp_path, SMALL)
    config = planning.read_config(folder)
    guessed = planning.model_weights(config)
    shapes = {
        "embed_tokens": [100, 64],
        "layers.0.self_attn.q_proj": [64, 64],
        "layers.0.self_attn.k_proj": [32, 64],
        "layers.0.self_attn.v_proj": [32, 64],
        "layers.0.self_attn.o_proj": [64, 64],
        "layers.0.mlp.gate_proj": [128, 64],
        "layers.0.mlp.up_proj": [128, 64],
        "layers.0.mlp.down_proj": [64, 128],
        "layers.0.input_layernorm": [64],
        "layers.0.post_attention_layernorm": [64],
        "norm": [64],
    }
    stored = {f"model.{name}.weight": ("BF16", shape) for name, shape in shapes.items()}
    write_file(folder / "model.safetensors", {**stored, "lm_head.weight": ("BF16", [100, 64])})
    read = planning.model_weights(config)
    assert (read.bytes, read.parameters_count) == (guessed.bytes, guessed.parameters_count)
    assert read.source != guessed.source
    halves = [planning.model_weights(config, tp=2).bytes, guessed.bytes]
    assert None not in halves
    assert halves[0] < halves[1]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("settings", "ratio"),
    [
        ({"quant_method": "fp8"}, 1 / 2),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, (4 + 20 / 128) / 16),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8 / 16),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {"weights": {"num_bits": 4, "strategy": "group", "group_size": 64}}
                },
            },
            (4 + 16 / 64) / 16,
        ),
    ],
)
def test_a_quantised_model_is_smaller_where_it_is_quantised(
    tmp_path: Path, settings: dict[str, Any], ratio: float
) -> None:
    plain = PUBLIC["Llama-3.1-8B"].config
    full = planning.model_weights(planning.read_config(write_config(tmp_path / "full", plain)))
    config = plain | {"quantization_config": settings}
    small = planning.model_weights(planning.read_config(write_config(tmp_path / "q", config)))
    assert full.bytes is not None
    assert small.bytes is not None
    tables = 2 * 128_256 * 4096 * 2  # embedding and head are not
    assert (small.bytes - tables) / (full.bytes - tables) == pytest.approx(ratio, rel=0.04)
    assert small.low_bytes is not None
    assert small.low_bytes < small.bytes


def test_a_quantisation_that_is_not_known_leaves_the_weights_open(tmp_path: Path) -> None:
    config = PUBLIC["Llama-3.1-8B"].config | {"quantization_config": {"quant_method": "new"}}
    found = planning.model_weights(planning.read_config(write_config(tmp_path, config)))
    assert found.bytes is None


def test_an_allocator_keeps_what_it_does_not_split_off() -> None:
    assert allocated_bytes([1, 0]) == 512
    assert allocated_bytes([27 * MIB + MIB // 2]) == 28 * MIB  # large: not split while loading
    assert allocated_bytes([13 * MIB + MIB // 2]) == 14 * MIB  # a rest of 0.5 MiB stays with it
    assert allocated_bytes([12 * MIB + MIB // 2]) == 12 * MIB + MIB // 2  # one of 1.5 MiB does not
    assert allocated_bytes([9 * MIB, 9 * MIB, 2 * MIB]) == 20 * MIB
    assert allocated_bytes([9 * MIB, 10 * MIB]) == 9 * MIB + 11 * MIB
