"""Dry runs on Blackwell cards, and what FlashInfer takes: with it, and stood for without it.

The environment of the other tests is without FlashInfer; `MEMACCT_FLASHINFER_PYTHON` names an
interpreter that has it beside vLLM, for the tests that need it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bench.dryrun.models_cut import write_model

import memacct
from memacct._units import GIB, MIB
from memacct.dry_run.engine_process import ENGINE_SIDE
from memacct.dry_run.flashinfer import WORKSPACE_BYTES

if TYPE_CHECKING:
    from memacct.dry_run.result import DryRun

pytestmark = pytest.mark.engine

LLAMA = "Llama-3.1-8B-Instruct"
SIZES = ("--max-model-len", "4096", "--cudagraph-capture-sizes", "1", "2", "4")
# FlashInfer's own workspace for Llama-3.1-8B: 16384 tokens x 32 heads x 128 elements x 16 bytes.
OWN_WORKSPACE_BYTES = GIB


@pytest.fixture
def flashinfer_python() -> Path:
    named = os.environ.get("MEMACCT_FLASHINFER_PYTHON")
    if not named:
        pytest.skip("MEMACCT_FLASHINFER_PYTHON names no environment with vLLM and FlashInfer")
    return Path(named)


def dry(python: Path, folder: Path, card: str, *options: str, model: str = LLAMA) -> DryRun:
    """A dry run of a model cut to its first layers: four, so that a DeepSeek has experts."""
    command = ["vllm", "serve", str(write_model(folder / model, model, 4)), *options]
    told: dict[str, Any] = {"gpu": card, "python": python, "cache": False}
    run = memacct.dryrun(command, **told)
    assert run.verdict == "starts", run.refusal
    return run


def rows(run: DryRun) -> tuple[dict[str, int], dict[str, int]]:
    """Both equations of the first rank, after a look at whether they are whole."""
    (rank,) = run.ranks
    found = []
    for each in (rank.peak, rank.started):
        amounts = {row.name: row.amount.bytes for row in each}
        assert sum(amounts.values()) == run.request.machine.total_bytes
        assert min(amounts.values()) >= 0
        found.append(amounts)
    return found[0], found[1]


@pytest.mark.parametrize(("card", "model"), [("b200", LLAMA), ("rtx5090", "Qwen2.5-7B-Instruct")])
def test_a_blackwell_compiles_and_captures(
    gpu_python: Path, tmp_path: Path, card: str, model: str
) -> None:
    run = dry(gpu_python, tmp_path, card, *SIZES, model=model)
    _, started = rows(run)
    assert started["CUDA graphs"] > 0
    if "flashinfer-python" not in run.versions:
        assert run.settings["attention_backend"] == "FLASH_ATTN"
        # Only there it would be the attention.
        assert any("394.00 MiB" in note for note in run.notes) == (card == "b200")


SAMPLED = ("--enforce-eager", "--max-model-len", "4096")
# 1024 sequences of 128,256 logits: bfloat16; processed, masked and softmax in 32 bits.
SAMPLED_BYTES = 1024 * 128256 * (2 + 3 * 4)


def test_what_its_sampler_takes_is_in_the_peak_without_it(gpu_python: Path, tmp_path: Path) -> None:
    run = dry(gpu_python, tmp_path, "h100", *SAMPLED)
    assert 0 < rows(run)[0]["activation peak"] - SAMPLED_BYTES < 128 * MIB
    # Unless it is not to be used.
    line = f"VLLM_USE_FLASHINFER_SAMPLER=0 vllm serve {tmp_path / LLAMA} {' '.join(SAMPLED)}"
    other = memacct.dryrun(line, gpu="h100", python=gpu_python, cache=False)
    assert 0 < rows(other)[0]["activation peak"] < SAMPLED_BYTES


def test_the_sampler_that_is_stood_for_takes_as_much_as_flashinfers(
    gpu_python: Path, flashinfer_python: Path, tmp_path: Path
) -> None:
    stood_for = dry(gpu_python, tmp_path, "h100", *SAMPLED)
    real = dry(flashinfer_python, tmp_path, "h100", *SAMPLED)
    assert "flashinfer-python" in real.versions
    found = [rows(run)[0]["activation peak"] for run in (stood_for, real)]
    assert found[0] == found[1]
    assert stood_for.kv_tokens == real.kv_tokens


def test_flashinfers_workspaces_are_in_the_equation(
    flashinfer_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = dry(flashinfer_python, tmp_path, "b200", *SIZES)
    assert run.settings["attention_backend"] == "FLASHINFER"
    peak, started = rows(run)
    # One is TensorRT-LLM's kernels', one for prefills by FlashInfer's own: neither in the profiling
    # pass; there are small buffers of the runner beside them.
    more = started["other tensors"] - peak["other tensors"]
    assert 0 <= more - WORKSPACE_BYTES - OWN_WORKSPACE_BYTES < 256 * MIB
    # What FlashInfer times are kernels that do nothing: a server must never read that.
    assert not (tmp_path / "home" / ".cache" / "flashinfer").exists()


def test_flashinfers_attention_on_a_hopper_with_an_fp8_cache(
    flashinfer_python: Path, tmp_path: Path
) -> None:
    asked = ("--attention-backend", "FLASHINFER", "--kv-cache-dtype", "fp8")
    run = dry(flashinfer_python, tmp_path, "h100", *SIZES, *asked)
    assert run.settings["attention_backend"] == "FLASHINFER"
    rows(run)


def test_the_buffers_of_flashinfers_experts_are_in_the_peak(
    flashinfer_python: Path, tmp_path: Path
) -> None:
    # Few sequences: else what samples takes more than the experts do.
    options = ("--enforce-eager", "--max-model-len", "4096", "--max-num-seqs", "16")
    batch = ("--max-num-batched-tokens", "16384")
    run = dry(flashinfer_python, tmp_path, "b200", *options, *batch, model="Qwen3-30B-A3B-FP8")
    peak, _ = rows(run)
    told = [note for note in run.notes if "trtllm_fp8_block_scale_moe" in note]
    assert len(told) == 1
    assert "by the sizes in its source" in told[0]
    # 8 of 128 experts, as below; 768 elements between the products, 2048 after. Without them the
    # peak is 689 MiB.
    expert_rows = (128 + (16384 * 8 - 128) // 64) * 64
    buffers = expert_rows * (2 * 768 + 768 + 2 * 2048)
    assert buffers > 840 * MIB
    assert peak["activation peak"] > buffers


# 16384 tokens of 8 experts of 256 are 512 each; no tile is as large, so the launcher takes the
# second largest: 64. Each expert's first row begins a tile; the others fill 2044.
DEEPSEEK_ROWS = (256 + (16384 * 8 - 256) // 64) * 64
# gpt-oss-20b: 4 of 32; bfloat16 tiles of 64 at most.
GPT_OSS_ROWS = (32 + (16384 * 4 - 32) // 32) * 32
TABLES = 512 * 4  # the least histogram
PROGRAM = """
import json, sys
import torch
import memacct_flashinfer_experts as experts

def empty(*shape, dtype):
    return torch.empty(*shape, dtype=dtype, device="meta")

routed = {"num_fused_shared_experts": 0, "config_index": [-1, -1], "valid_hidden_size": None}
deepseek = {
    **routed, "hidden_states": empty(16384, 7168, dtype=torch.float8_e4m3fn), "top_k": 8,
    "num_experts": 256, "local_num_experts": 256, "intermediate_size": 2048,
    "quantization_type": 1, "act_type": 3,
}
gpt_oss = {
    **routed, "hidden_states": empty(16384, 2944, dtype=torch.bfloat16), "top_k": 4,
    "num_experts": 32, "local_num_experts": 32, "intermediate_size": 3072, "act_type": 3,
    "hidden_states_scale": None, "per_token_scales": None,
    "gemm1_weights_scale": empty(32, 6144, 92, dtype=torch.float8_e4m3fn),
}
tuned = {**deepseek, "config_index": [8, 3]}
print(json.dumps({
    "deepseek": experts.sizes_bytes("trtllm_fp8_block_scale_moe", deepseek),
    "tuned": experts.sizes_bytes("trtllm_fp8_block_scale_moe", tuned),
    "gpt_oss": experts.sizes_bytes("trtllm_fp4_block_scale_moe", gpt_oss),
    "unknown": experts.sizes_bytes("trtllm_mxint4_block_scale_moe", gpt_oss),
}))
"""


def test_sizes_of_the_experts_buffers(gpu_python: Path) -> None:
    done = subprocess.run(
        [gpu_python, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ENGINE_SIDE)},
        text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    rows_count, blocks = DEEPSEEK_ROWS, DEEPSEEK_ROWS // 64
    each = 16384 * 8 * 4
    assert told["deepseek"] == [
        # Routing: counts, rows in all, places, rows back, experts, histogram, tiles twice, tiles.
        256 * 4, 4, each, (rows_count + 1) * 4, each, TABLES, blocks * 4, blocks * 4, 4,
        # Gate and up in FP8 with scales of 128, their product with its scales, bfloat16.
        rows_count * 4096, 32 * rows_count * 4, rows_count * 2048, 16 * rows_count * 4,
        rows_count * 7168 * 2,
    ]  # fmt: skip
    tuned_rows = (256 + (16384 * 8 - 256) // 8) * 8
    assert told["tuned"][-1] == tuned_rows * 7168 * 2
    assert told["gpt_oss"][-2:] == [GPT_OSS_ROWS * 3072 * 2, GPT_OSS_ROWS * 2944 * 2]
    assert told["unknown"] is None
