"""A real vLLM chooses by the card: batches, attention, types; its kernels are answered there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from memacct._units import MIB
from memacct.dry_run.engine_process import ENGINE_SIDE
from memacct.dry_run.toolkit import make_toolkit
from memacct.sim import SimulatedGpu
from memacct.sim._card import card_settings

pytestmark = pytest.mark.engine

PYTHON = os.environ.get("MEMACCT_ENGINE_PYTHON", "")
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024,
    "intermediate_size": 2048, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 32000, "hidden_act": "silu",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
}  # fmt: skip
# What vLLM 0.33.0 takes by default: tokens of a batch and sequences, type, attention with
# FlashAttention's version. Without FlashInfer, with which a B200 would take FLASHINFER.
CHOICES = {
    "h100": ([8192, 1024], "bfloat16", ["FLASH_ATTN", 3]),
    "a100-80": ([2048, 256], "bfloat16", ["FLASH_ATTN", 2]),
    "l4": ([2048, 256], "bfloat16", ["FLASH_ATTN", 2]),
    "t4": ([2048, 256], "float16", ["TRITON_ATTN", None]),
    "rtx5090": ([2048, 256], "bfloat16", ["FLASH_ATTN", 2]),
    "b200": ([16384, 1024], "bfloat16", ["FLASH_ATTN", 4]),
}
CARDS = [*CHOICES, "v100-32"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What card_checks.py tells of a machine with one device of each card."""
    folder = tmp_path_factory.mktemp("cards")
    (folder / "llama").mkdir()
    (folder / "llama" / "config.json").write_text(json.dumps(LLAMA))
    settings = [card_settings(card) for card in CARDS]
    each = {key: [values[key] for values in settings] for key in settings[0]}
    del each["integrated"], each["peers"]
    each["sm_count"] = [count or 132 for count in each["sm_count"]]
    each["l2_bytes"] = [size or 50 * MIB for size in each["l2_bytes"]]
    with SimulatedGpu(count=len(CARDS), **each) as gpu:
        environ = gpu.environ(runtime=True, python=PYTHON)
        environ |= make_toolkit(folder) | {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "PYTHONPATH": str(ENGINE_SIDE),
            "VLLM_CACHE_ROOT": str(folder / "cache"),
            "VLLM_USE_FLASHINFER_SAMPLER": "0",
            "HF_HUB_OFFLINE": "1",
        }
        program = Path(__file__).with_name("card_checks.py")
        done = subprocess.run(
            [PYTHON, str(program), str(folder / "llama"), *CARDS],
            env=environ, text=True, capture_output=True, check=False, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("CARD ")]
    return dict(json.loads(line.removeprefix("CARD ")) for line in lines)


@pytest.mark.parametrize("card", CHOICES)
def test_choices_follow_from_the_card(card: str, told: dict[str, dict[str, Any]]) -> None:
    found = told[card]
    assert "failed" not in found, found["failed"]
    assert found["name"] == card_settings(card)["name"]
    assert (found["batch"], found["dtype"], found["attention"]) == CHOICES[card]
    # CUB knows the capabilities that it was compiled for, and no others.
    assert found["sums"] == 1000


def test_a_card_that_pytorch_has_no_code_for_runs_nothing(
    told: dict[str, dict[str, Any]],
) -> None:
    assert "no kernel image is available" in told["v100-32"]["failed"]


def test_flash_attention_4_takes_its_buffers(told: dict[str, dict[str, Any]]) -> None:
    # 32 parts x 512 tokens x 32 heads x (128 + 1) floats, besides tables.
    assert told["b200"]["flash_attention_4"] == [0, 32 * 512 * 32 * 129 * 4 // MIB]


def test_deep_gemm_is_answered(told: dict[str, dict[str, Any]]) -> None:
    assert told["h100"]["deep_gemm"] == [64, 256]


def test_convolutions_take_their_output_and_no_more(told: dict[str, dict[str, Any]]) -> None:
    assert told["l4"]["convolutions"] == [True] * 7
