"""What FlashInfer would take of a GPU, where the engine of a dry run is without it.

vLLM requires FlashInfer, but an environment without a GPU is often made without its 430 MB. Then
vLLM takes FlashAttention where it would have taken FlashInfer: by default on capability 10.x only
(vllm/platforms/cuda.py, `_get_backend_priorities`). What differs is FlashInfer's workspace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import MIB, format_bytes

if TYPE_CHECKING:
    from .result import DryRun

# Source: vLLM 0.33.0, VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE in vllm/envs.py: TensorRT-LLM's kernels
# take one of that size, once for all layers; FlashInfer's own kernels another one, or more.
WORKSPACE_BYTES = 394 * MIB
_BLACKWELL = 10


def without_flashinfer(run: DryRun) -> tuple[str, ...]:
    """What to say of a dry run whose engine is without FlashInfer on a card that would use it."""
    there = "flashinfer-python" in run.versions
    if there or run.request.machine.compute_capability[0] != _BLACKWELL:
        return ()
    told = "FlashInfer is not installed with this vLLM: it would be the attention on this card"
    size = format_bytes(WORKSPACE_BYTES)
    return (f"{told}, with workspaces that are not counted: {size}, and as much again or more",)
