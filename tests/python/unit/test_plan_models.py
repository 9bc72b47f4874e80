"""Public models: their parameters and the bytes of a token are known to the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bench.dryrun.models_cut import MODELS
from public_models import PUBLIC, write_config

from memacct import planning
from memacct._errors import ConfigError
from memacct._units import GIB, MIB

if TYPE_CHECKING:
    from pathlib import Path


def layers_of(
    folder: Path, config: dict[str, Any], **settings: Any
) -> tuple[planning.CacheLayer, ...]:
    read = planning.read_config(write_config(folder, config))
    return planning.cache_layers(read, planning.CacheSettings(**settings))


def token_bytes(layers: tuple[planning.CacheLayer, ...]) -> int:
    return sum(layer.token_bytes or 0 for layer in layers)


@pytest.mark.parametrize("name", PUBLIC)
def test_parameters_are_those_counted_in_public(tmp_path: Path, name: str) -> None:
    config = planning.read_config(write_config(tmp_path, PUBLIC[name].config))
    assert planning.parameters_count(config) == PUBLIC[name].parameters_count


@pytest.mark.parametrize("name", PUBLIC)
def test_a_token_takes_what_the_dimensions_say(tmp_path: Path, name: str) -> None:
    assert token_bytes(layers_of(tmp_path, PUBLIC[name].config)) == PUBLIC[name].token_bytes


def test_an_fp8_cache_is_half_of_a_bfloat16_one(tmp_path: Path) -> None:
    config = PUBLIC["Llama-3.1-8B"].config
    assert token_bytes(layers_of(tmp_path, config, kv_dtype="fp8")) == 65_536


def test_heads_are_split_and_then_copied(tmp_path: Path) -> None:
    config = PUBLIC["Qwen2.5-7B"].config  # 4 key and value heads, 28 of queries
    per_gpu = {
        tp: token_bytes(layers_of(tmp_path, config, tensor_parallel_size=tp)) for tp in (1, 2, 4)
    }
    assert per_gpu == {1: 57_344, 2: 28_672, 4: 14_336}
    llama = PUBLIC["Llama-3.1-8B"].config  # 8 and 32: with 16 GPUs each head is on two of them
    assert token_bytes(layers_of(tmp_path, llama, tensor_parallel_size=16)) == 131_072 // 8


def test_latents_are_on_every_gpu(tmp_path: Path) -> None:
    config = PUBLIC["DeepSeek-V3"].config
    split = layers_of(tmp_path, config, tensor_parallel_size=8)
    assert token_bytes(split) == 61 * 576 * 2


def test_heads_that_cannot_be_split_are_named(tmp_path: Path) -> None:
    config = PUBLIC["Qwen2.5-7B"].config
    with pytest.raises(ConfigError, match="28 attention heads cannot be split over 8 GPUs"):
        layers_of(tmp_path, config, tensor_parallel_size=8)


@pytest.mark.parametrize(
    ("name", "sliding", "full", "window"),
    [("gemma-3-1b", 22, 4, 512), ("gemma-2-9b", 21, 21, 4096), ("gpt-oss-20b", 12, 12, 128)],
)
def test_which_layers_slide(
    tmp_path: Path, name: str, sliding: int, full: int, window: int
) -> None:
    layers = layers_of(tmp_path, PUBLIC[name].config)
    kinds = [layer.kind for layer in layers]
    assert (kinds.count("sliding"), kinds.count("full")) == (sliding, full)
    assert {layer.window_tokens for layer in layers if layer.kind == "sliding"} == {window}


def test_a_window_that_is_switched_off_is_none(tmp_path: Path) -> None:
    layers = layers_of(tmp_path, PUBLIC["Qwen2.5-7B"].config)
    assert {layer.kind for layer in layers} == {"full"}


def test_layers_that_share_the_cache_of_others_keep_none(tmp_path: Path) -> None:
    config = PUBLIC["gemma-3-1b"].config | {"num_kv_shared_layers": 10}
    assert [layer.layer for layer in layers_of(tmp_path, config)] == list(range(16))


def test_chunks_of_llama_4(tmp_path: Path) -> None:
    text = PUBLIC["Llama-3.1-8B"].config | {"model_type": "llama4_text"}
    config = {
        "model_type": "llama4",
        "architectures": ["Llama4ForConditionalGeneration"],
        "text_config": text | {"attention_chunk_size": 8192},
    }
    kinds = [layer.kind for layer in layers_of(tmp_path, config)]
    assert kinds[:4] == ["chunked", "chunked", "chunked", "full"]
    assert kinds.count("full") == 8


def test_a_cache_that_is_not_known_is_refused(tmp_path: Path) -> None:
    config = PUBLIC["DeepSeek-V3"].config | {"model_type": "deepseek_v32"}
    with pytest.raises(ConfigError, match="keeps a cache that plan does not know"):
        layers_of(tmp_path, config)


# GiB of weights in starts of vLLM that were published, each on one GPU ("Model loading took").
@pytest.mark.parametrize(
    ("name", "logged_gib"),
    [("Llama-3.1-8B", 14.99), ("Qwen2.5-0.5B", 0.93), ("Qwen2.5-7B", 14.29)],
)
def test_weights_are_those_that_engines_logged(
    tmp_path: Path, name: str, logged_gib: float
) -> None:
    config = planning.read_config(write_config(tmp_path, PUBLIC[name].config))
    found = planning.model_weights(config).bytes
    assert found is not None
    assert found / GIB == pytest.approx(logged_gib, abs=0.0051)  # as printed, to 0.01


# MiB of the activation peak in dry runs of two layers of each, with `vllm serve`'s own batch on
# that card (vLLM 0.33.0, torch 2.14.0): the largest tensors are those that inductor tunes with.
@pytest.mark.parametrize(
    ("name", "card", "peak_mib"),
    [
        ("Llama-3.1-8B-Instruct", "a100-80", 1034.02),
        ("Qwen2.5-7B-Instruct", "a100-80", 1068.02),
        ("Qwen3-8B-FP8", "a100-80", 1220.02),
        ("Qwen3-30B-A3B", "a100-80", 610.02),
        ("gemma-2-9b-it", "a100-80", 1778.02),
        ("phi-4", "a100-80", 1020.02),
    ],
)
def test_compiling_takes_a_second_embedding(name: str, card: str, peak_mib: float) -> None:
    config = planning.read_config(MODELS / name)
    gpu = planning.named_gpu(card)
    plan = planning.make_plan(config, planning.PlanSettings(), gpu)
    assert plan.activation.bytes == pytest.approx(peak_mib * MIB, abs=2 * MIB)
    eager = planning.make_plan(config, planning.PlanSettings(enforce_eager=True), gpu)
    assert eager.activation.bytes < plan.activation.bytes
    assert eager.activation.low_bytes == plan.activation.low_bytes, "a later start need not compile"


# Likewise of eager starts: the largest tensors are the logits of as many requests as may run.
@pytest.mark.parametrize(
    ("name", "card", "peak_mib"),
    [
        ("Llama-3.1-8B-Instruct", "a100-80", 461.01),
        ("Qwen2.5-7B-Instruct", "a100-80", 542.76),
        ("Llama-3.1-8B-Instruct", "h100", 1831.04),
        ("Llama-3.2-1B-Instruct", "h100", 1799.04),
        ("Qwen2.5-7B-Instruct", "h100", 2144.04),
        ("Qwen3-8B", "h100", 2153.04),
        ("gemma-2-9b-it", "h100", 3564.04),
        ("phi-4", "h100", 1463.04),
    ],
)
def test_sampling_takes_four_tensors_of_logits(name: str, card: str, peak_mib: float) -> None:
    config = planning.read_config(MODELS / name)
    settings = planning.PlanSettings(enforce_eager=True)
    plan = planning.make_plan(config, settings, planning.named_gpu(card))
    assert plan.activation.bytes == pytest.approx(peak_mib * MIB, abs=12 * MIB)
