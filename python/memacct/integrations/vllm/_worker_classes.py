"""``--worker-cls memacct.integrations.vllm.GPUWorker``: enabling without the plugin.

The classes are made when vLLM asks for them: their bases must not be imported earlier,
and importing the CPU worker on a GPU machine changes torch's memory functions for all.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from memacct.integrations.vllm import attach
from memacct.integrations.vllm._own_time import own_time

_BASES = {
    "GPUWorker": ("vllm.v1.worker.gpu_worker", "Worker"),
    "CPUWorker": ("vllm.v1.worker.cpu_worker", "CPUWorker"),
}


@functools.cache
def worker_class(name: str) -> type:
    """Returns the worker class ``name``, derived from vLLM's own."""
    module, base_name = _BASES[name]
    base: Any = getattr(importlib.import_module(module), base_name)

    def init_device(self: Any) -> Any:
        with own_time:
            attachment = attach(self, default_profiler="native")
        with attachment:
            return base.init_device(self)

    from memacct.integrations.vllm._rpc import worker_report

    return type(
        name,
        (base,),
        {
            "__doc__": f"vLLM's {base_name} with memacct's native profiling.",
            "__module__": "memacct.integrations.vllm",
            "init_device": init_device,
            # Where the plugin is kept out, nothing gives vLLM's wrapper this method.
            "memacct_report": worker_report,
        },
    )
