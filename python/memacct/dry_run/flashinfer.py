"""What FlashInfer would take of a GPU, where the engine of a dry run is without it.

vLLM requires FlashInfer, but an environment without a GPU is often made without its 430 MB. Then
vLLM takes FlashAttention where it would have taken FlashInfer: by default on capability 10.x only
(vllm/platforms/cuda.py, `_get_backend_priorities`). What differs is FlashInfer's workspace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import MIB, format_bytes

from .result import Amount

if TYPE_CHECKING:
    from .result import DryRun

# Source: vLLM 0.33.0. VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE in vllm/envs.py; the rest in
# vllm/v1/attention/backends/flashinfer.py: `_get_trtllm_workspace_buffer`, `_get_workspace_buffer`
# and FLASHINFER_PREFILL_WORKSPACE_BYTES_PER_ELEM.
WORKSPACE_BYTES = 394 * MIB
_BYTES_OF_AN_ELEMENT = 16
_BLACKWELL = 10


def missing_workspace(
    compute_capability: tuple[int, int],
    *,
    batch_tokens_count: int,
    heads_count: int,
    head_size_count: int,
    graphs: bool = True,
) -> Amount:
    """The workspace that a start without FlashInfer does not show.

    There are two, of PyTorch's memory, once for all layers: one of TensorRT-LLM's kernels, taken as
    graphs are sampled and hence within the engine's budget, and one of FlashInfer's own prefill,
    taken when attention is warmed up, after the KV cache. Without graphs both come with requests.

    Args:
        compute_capability: of the GPU.
        batch_tokens_count: max_num_batched_tokens.
        heads_count: query heads on one GPU.
        head_size_count: elements of one.
        graphs: CUDA graphs are captured.

    Returns:
        0 bytes where FlashInfer is not the first choice. Else both workspaces, as in the starts of
        vLLM 0.33.0 that were tried with FlashInfer (Llama-3.1-8B, its NVFP4, gpt-oss-20b).
    """
    if compute_capability[0] != _BLACKWELL:
        why = "FlashInfer is not installed; on this card it would only sample"
        return Amount(bytes=0, low_bytes=0, high_bytes=0, source=why)
    own = batch_tokens_count * heads_count * head_size_count * _BYTES_OF_AN_ELEMENT
    both = WORKSPACE_BYTES + max(WORKSPACE_BYTES, own)
    if not graphs:
        why = "FlashInfer is not installed; its workspaces would come with the first requests"
        return Amount(bytes=0, low_bytes=0, high_bytes=both, source=why)
    why = "FlashInfer is not installed; its workspaces by vLLM 0.33's constants"
    return Amount(bytes=both, low_bytes=0, high_bytes=both, source=why)


def without_flashinfer(run: DryRun) -> tuple[str, ...]:
    """What to say of a dry run whose engine is without FlashInfer on a card that would use it."""
    there = "flashinfer-python" in run.versions
    if there or run.request.machine.compute_capability[0] != _BLACKWELL:
        return ()
    told = "FlashInfer is not installed with this vLLM: it would be the attention on this card"
    size = format_bytes(WORKSPACE_BYTES)
    return (f"{told}, with workspaces that are not counted: {size}, and as much again or more",)
