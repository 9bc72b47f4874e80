"""What has to be said of made-up weights, and of libraries that a simulated GPU has not.

Nothing here changes what an engine allocates by its own arithmetic; where a version lacks what is
looked for, the start only ends as it would without this.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import memacct_convolutions
from memacct_dryrun_worker import wrap

LOADER = "vllm.model_executor.model_loader.dummy_loader"
# Engines look whether a scale of the KV cache was in the checkpoint: it is positive then. Made-up
# weights are not written on a simulated GPU, and zero is neither positive nor "none was loaded".
CACHE_SCALES = ("q_scale", "k_scale", "v_scale", "prob_scale")


def hook_worker_process() -> None:
    """For a process that has a worker, before its device is initialised."""
    without_cudnn()
    with contextlib.suppress(ImportError):
        loader = getattr(importlib.import_module(LOADER), "DummyModelLoader", None)
        if hasattr(loader, "load_weights"):
            wrap(loader, "load_weights", _around_load_weights)


def without_cudnn() -> None:
    """Has convolutions done without cuDNN, which is not simulated: answered, or PyTorch's own.

    Those allocate one image laid out in columns, which cuDNN's do not; the workspace of
    cuDNN's is not known in either case.
    """
    import torch

    if not memacct_convolutions.apply():
        torch.backends.cudnn.enabled = False


def _around_load_weights(original: Any, loader: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    result = original(loader, model, *args, **kwargs)
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] in CACHE_SCALES and parameter.is_floating_point():
            parameter.data.fill_(1.0)
    return result
