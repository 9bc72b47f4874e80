"""Takes what FlashInfer's sampler takes of a GPU, where vLLM is without FlashInfer.

vLLM requires FlashInfer, and since 0.33 its V2 runner profiles a pass with top-k and top-p: with
FlashInfer that makes two tensors of the logits' size more than vLLM's own sampler, 0.9 GiB for the
batch of an H100 and 128,256 tokens. They are allocated here as FlashInfer 0.7.2 does in Python
(flashinfer/sampling.py); what is sampled is a token that no kernel has chosen there either.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from memacct_after_import import after_import

if TYPE_CHECKING:
    from types import ModuleType

SAMPLER = "vllm.v1.worker.gpu.sample.sampler"
#: Set where the sampler is to be stood for; the engine's other processes inherit it.
WANTED = "MEMACCT_DRYRUN_SAMPLER"
_STATES_BYTES = 1 << 20
_LEAST_CAPABILITY, _LARGEST_CAPABILITY = (8, 0), (12, 1)  # FlashInferBackend's
_FEW_MULTIPROCESSORS = 16

_buffers: dict[Any, Any] = {}


def apply() -> None:
    """Stands for the sampler, if it is wanted, as soon as the V2 runner imports it."""
    if os.environ.get(WANTED):
        after_import(SAMPLER, stand_in)


def stand_in(module: ModuleType) -> None:
    """Gives the runner's module the two functions that it asks for, if it knows them."""
    if hasattr(module, "flashinfer_sample") and hasattr(module, "flashinfer_sampler_supported"):
        module.flashinfer_sample = sample  # type: ignore[attr-defined]
        module.flashinfer_sampler_supported = supported  # type: ignore[attr-defined]


def supported() -> bool:
    """Whether vLLM would sample with FlashInfer on this device."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    capability = (properties.major, properties.minor)
    known = _LEAST_CAPABILITY <= capability <= _LARGEST_CAPABILITY
    return known and bool(properties.multi_processor_count > _FEW_MULTIPROCESSORS)


def sample(logits: Any, k: Any, p: Any, _generators: Any = None) -> Any:
    """A token of each row, and on the way the tensors that FlashInfer makes."""
    import torch

    if k is not None and p is not None:
        if logits.device not in _buffers:
            _buffers[logits.device] = torch.zeros(
                _STATES_BYTES, dtype=torch.uint8, device=logits.device
            )
        masked = torch.empty_like(logits)
        kept = torch.softmax(masked, dim=-1)
    else:
        kept = masked = logits.softmax(dim=-1, dtype=torch.float32)
    rows = kept.float().shape[0]
    tokens = torch.zeros(rows, dtype=torch.int32, device=logits.device)
    valid = torch.empty(rows, dtype=torch.bool, device=logits.device)
    del masked, kept, valid
    return tokens
