"""A quick dry run answers to the byte what one answers that leaves nothing out.

One small model for both: a dense layer, a layer of experts, compiled, with CUDA graphs. Only the
look at the model's class is in process in both: it is over before the device is touched.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import memacct
from memacct.sim._build import build_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from memacct.dry_run.result import DryRun

pytestmark = pytest.mark.engine

MODEL = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "torch_dtype": "bfloat16",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "moe_intermediate_size": 512,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "mlp_only_layers": [0],
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
OPTIONS = "--max-model-len 2048 --max-num-batched-tokens 2048 --max-num-seqs 32"
WHOLE = "MEMACCT_DRYRUN_QUICK=inspect"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, gpu_python: Path) -> Iterator[Path]:
    """A user's home, where nothing is cached."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "config.json").write_text(json.dumps(MODEL))
    kept = folder / ".cache" / "memacct"
    kept.mkdir(parents=True)
    # The simulator's own libraries are not the engine's business.
    (kept / "sim-runtime").symlink_to(build_runtime(python=gpu_python).parent)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(folder))
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("MEMACCT_ENGINE_PYTHON", str(gpu_python))
        yield folder


@pytest.fixture(scope="module")
def quick(home: Path) -> DryRun:
    return memacct.dryrun(f"vllm serve {home} {OPTIONS}")


def test_nothing_that_is_accounted_differs(home: Path, quick: DryRun) -> None:
    whole = memacct.dryrun(f"{WHOLE} vllm serve {home} {OPTIONS}")
    assert quick.ranks[0].graphs is not None
    assert quick.ranks == whole.ranks
    assert (quick.kv_tokens, quick.concurrency) == (whole.kv_tokens, whole.concurrency)
    assert quick.settings == whole.settings


def test_kernels_without_machine_code_stay_out_of_real_starts_caches(
    home: Path, quick: DryRun
) -> None:
    assert quick.verdict == "starts"
    ours = home / ".cache" / "memacct" / "dryrun-kernels-1"
    kernels = list(home.rglob("*.cubin"))
    assert kernels
    assert all(ours in kernel.parents for kernel in kernels)
    assert {kernel.read_bytes()[:11] for kernel in kernels} == {b"// left out"}
