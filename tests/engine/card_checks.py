"""What a real vLLM chooses on each card of a simulated machine, and how kernels are answered there.

    python card_checks.py MODEL CARD...

Runs in the engine's Python: one import, a fork for each card, a line of JSON from each. No engine
is started; its configuration and its choice of attention are made as for `vllm serve`.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import sys
from typing import Any

MIB = 1 << 20


def warm() -> None:
    """Imports what every card needs; no device is used."""
    for name in ("memacct_flashinfer", "memacct_cutlass"):
        importlib.import_module(name).apply()
    for name in ("engine.arg_utils", "v1.attention.selector"):
        importlib.import_module(f"vllm.{name}")
    registry = importlib.import_module("vllm.model_executor.models.registry")
    registry._run_in_subprocess = lambda inspect: inspect()


def forget_the_device() -> None:
    """Empties vLLM's caches: it looked at the machine's first device while it was imported."""
    for one in gc.get_objects():
        if isinstance(one, functools._lru_cache_wrapper):
            module = getattr(one, "__module__", None) or ""
            if module.startswith("vllm"):
                one.cache_clear()


def choices(model: str) -> dict[str, Any]:
    """The defaults and the attention of a server."""
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.attention.backends.fa_utils import get_flash_attn_version
    from vllm.v1.attention.selector import get_attn_backend

    arguments = EngineArgs(model=model, load_format="dummy", skip_tokenizer_init=True)
    config = arguments.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    dtype = config.model_config.dtype
    with set_current_vllm_config(config):
        backend = get_attn_backend(head_size=128, dtype=dtype, kv_cache_dtype=None).get_name()
    flash = get_flash_attn_version(head_size=128) if backend == "FLASH_ATTN" else None
    scheduler = config.scheduler_config
    return {
        "name": current_platform.get_device_name(),
        "batch": [scheduler.max_num_batched_tokens, scheduler.max_num_seqs],
        "dtype": str(dtype).removeprefix("torch."),
        "attention": [backend, flash],
    }


def sums() -> dict[str, Any]:
    """A sum by CUB, which asks for the code that its kernels have for the device."""
    import torch

    return {"sums": torch.ones(1000, device="cuda").cumsum(0).shape[0]}


def flash_attention_4() -> dict[str, Any]:
    """What FlashAttention 4 takes besides its output, in MiB, for 1 and 32 parts of a request."""
    import torch
    from vllm.vllm_flash_attn.flash_attn_interface import flash_attn_varlen_func

    tokens, heads, size = 512, 32, 128
    query = torch.zeros(tokens, heads, size, device="cuda", dtype=torch.bfloat16)
    cache = torch.zeros(100, 16, 8, size, device="cuda", dtype=torch.bfloat16)
    integers = {"dtype": torch.int32, "device": "cuda"}
    taken = []
    for parts in (1, 32):
        out = torch.empty_like(query)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        flash_attn_varlen_func(
            q=query, k=cache, v=cache, out=out, max_seqlen_q=1, max_seqlen_k=128,
            cu_seqlens_q=torch.arange(tokens + 1, **integers),
            seqused_k=torch.ones(tokens, **integers),
            block_table=torch.zeros(tokens, 8, **integers), softmax_scale=0.1, causal=True,
            fa_version=4, num_splits=parts,
        )  # fmt: skip
        taken.append((torch.cuda.max_memory_allocated() - before) // MIB)
    return {"flash_attention_4": taken}


def deep_gemm() -> dict[str, Any]:
    """A block-FP8 product of DeepGEMM's, which it compiles and loads as it is first called."""
    import torch
    from vllm.third_party import deep_gemm as gemm

    rows, columns, inner = 64, 256, 512
    eights = {"device": "cuda", "dtype": torch.float8_e4m3fn}
    left, right = torch.empty(rows, inner, **eights), torch.empty(columns, inner, **eights)
    scales = torch.ones(rows, inner // 128, device="cuda")
    blocks = torch.ones(columns // 128, inner // 128, device="cuda")
    out = torch.empty(rows, columns, device="cuda", dtype=torch.bfloat16)
    gemm.fp8_gemm_nt((left, scales), (right, blocks), out)
    return {"deep_gemm": list(out.shape)}


def convolutions() -> dict[str, Any]:
    """Whether convolutions have their shapes, and take their output and no more."""
    import memacct_convolutions
    import torch
    from torch import nn

    # Whisper's, a patch embedding, depthwise, 3D, transposed.
    layers = (
        (nn.Conv1d(80, 384, 3, padding=1), (2, 80, 3000)),
        (nn.Conv1d(384, 384, 3, stride=2, padding=1), (2, 384, 3000)),
        (nn.Conv2d(3, 64, 14, stride=14, bias=False), (2, 3, 224, 224)),
        (nn.Conv2d(64, 64, 3, padding=1, groups=64), (2, 64, 24, 24)),
        (nn.Conv3d(3, 64, (2, 14, 14), stride=(2, 14, 14)), (2, 3, 4, 56, 56)),
        (nn.ConvTranspose1d(16, 8, 4, stride=2, padding=1, dilation=2), (1, 16, 12)),
    )
    told = [memacct_convolutions.apply()]
    for layer, shape in layers:
        wanted = layer.to("meta")(torch.empty(shape, device="meta")).shape
        there = layer.to_empty(device="cuda").to(torch.bfloat16)
        given = torch.zeros(shape, device="cuda", dtype=torch.bfloat16)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            out = there(given)
        taken = torch.cuda.max_memory_allocated() - before
        told.append(out.shape == wanted and taken == -(-out.nbytes // 512) * 512)
    return {"convolutions": told}


MORE = {"b200": flash_attention_4, "h100": deep_gemm, "l4": convolutions}


def told_by(card: str, device: int, model: str) -> dict[str, Any]:
    """All of one card; the first that fails ends it."""
    os.environ["CUDA_VISIBLE_DEVICES"] = str(device)
    forget_the_device()
    found: dict[str, Any] = {}
    try:
        found |= choices(model)
        found |= sums()
        found |= MORE.get(card, dict)()
    except BaseException as error:  # noqa: BLE001 (whatever it is, it is the answer)
        found["failed"] = f"{type(error).__name__}: {error}"
    return found


def main() -> None:
    """All cards, one after the other."""
    model, *cards = sys.argv[1:]
    warm()
    for device, card in enumerate(cards):
        pid = os.fork()
        if pid == 0:
            print("CARD", json.dumps([card, told_by(card, device, model)]), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
