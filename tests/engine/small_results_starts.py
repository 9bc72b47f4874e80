"""Starts real vLLM engines on the simulated GPU with and without small results.

    python small_results_starts.py FOLDER WORK

FOLDER holds the engine-side programs, WORK gets the model and what came of it (starts.json). vLLM
is imported once; each engine is started in a forked child, before CUDA is initialised.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ARCHITECTURE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "num_hidden_layers": 2,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
}
LORA = {"enable_lora": True, "max_loras": 2, "max_lora_rank": 16}
RANK = 8


def make_adapter(folder: Path) -> None:
    """An adapter of the attention's projections, of random numbers."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "model",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": ["q_proj", "o_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    width = ARCHITECTURE["hidden_size"]
    shapes = {"A": (RANK, width), "B": (width, RANK)}
    weights = {
        f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_{part}.weight": torch.randn(
            *shape
        )
        for layer in range(2)
        for name in ("q_proj", "o_proj")
        for part, shape in shapes.items()
    }
    save_file(weights, str(folder / "adapter_model.safetensors"))


def start(work: Path, *, with_results: bool = True, lora: bool = False) -> dict[str, Any]:
    """The allocator's account after a start and a few tokens, and how many there were."""
    import memacct_small_results as small
    import torch
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    if with_results:
        small.apply()
    options = {"skip_tokenizer_init": True, "enforce_eager": True, "load_format": "dummy"}
    limits = {"max_model_len": 512, "max_num_seqs": 16, "gpu_memory_utilization": 0.5}
    llm = LLM(model=str(work / "model"), **options, **limits, **(LORA if lora else {}))
    account = {
        key: count
        for key, count in torch.cuda.memory_stats().items()
        if key.startswith(("allocated_bytes.all", "reserved_bytes.all", "allocation.all"))
    }
    prompts = [{"prompt_token_ids": [1, 2, 3]}, {"prompt_token_ids": [4, 5, 6, 7]}]
    parameters = SamplingParams(max_tokens=3, ignore_eos=True, detokenize=False)
    request = LoRARequest("adapter", 1, str(work / "adapter")) if lora else None
    outputs = llm.generate(prompts, parameters, use_tqdm=False, lora_request=request)
    return {
        "account": account,
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
        "done": small.done_count,
    }


def forked(work: Path, name: str, **options: Any) -> None:
    """Starts one engine in a child, and leaves WORK/NAME.json."""
    pid = os.fork()
    if pid == 0:
        try:
            (work / f"{name}.json").write_text(json.dumps(start(work, **options)))
        finally:
            sys.stderr.flush()
            os._exit(int(not (work / f"{name}.json").exists()))
    assert os.waitpid(pid, 0)[1] == 0, name


def main() -> None:
    folder, work = sys.argv[1], Path(sys.argv[2])
    sys.path.insert(0, folder)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    (work / "model").mkdir()
    (work / "model" / "config.json").write_text(json.dumps(ARCHITECTURE))
    make_adapter(work / "adapter")
    import vllm.entrypoints.llm
    import vllm.v1.worker.gpu_worker  # noqa: F401

    forked(work, "without", with_results=False)
    forked(work, "with")
    forked(work, "lora", lora=True)


if __name__ == "__main__":
    main()
