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

    It is PyTorch's, is taken once for all layers when attention first runs, and stays: within the
    engine's budget where CUDA graphs are captured, else with the first request.

    Args:
        compute_capability: of the GPU.
        batch_tokens_count: max_num_batched_tokens.
        heads_count: query heads on one GPU.
        head_size_count: elements of one.
        graphs: CUDA graphs are captured.

    Returns:
        0 bytes where FlashInfer is not the first choice. Else one workspace: that of TensorRT-LLM's
        kernels, which take the usual shapes; at most also the one of FlashInfer's own.
    """
    if compute_capability[0] != _BLACKWELL:
        why = "FlashInfer is not installed; on this card it would only sample"
        return Amount(bytes=0, low_bytes=0, high_bytes=0, source=why)
    own = batch_tokens_count * heads_count * head_size_count * _BYTES_OF_AN_ELEMENT
    if not graphs:
        why = "FlashInfer is not installed; its workspace would come with the first request"
        return Amount(bytes=0, low_bytes=0, high_bytes=WORKSPACE_BYTES, source=why)
    return Amount(
        bytes=WORKSPACE_BYTES,
        low_bytes=0,
        high_bytes=WORKSPACE_BYTES + max(WORKSPACE_BYTES, own),
        source="FlashInfer is not installed; its workspace by vLLM 0.33's constants",
    )


def without_flashinfer(run: DryRun) -> tuple[str, ...]:
    """What to say of a dry run whose engine is without FlashInfer on a card that would use it."""
    there = "flashinfer-python" in run.versions
    if there or run.request.machine.compute_capability[0] != _BLACKWELL:
        return ()
    workspace = f"a workspace of {format_bytes(WORKSPACE_BYTES)} or more that is not counted"
    told = "FlashInfer is not installed with this vLLM: it would be the attention on this card"
    return (f"{told}, with {workspace}",)
