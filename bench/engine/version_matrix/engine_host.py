"""Imports vLLM once and forks a process for each engine: a start in a third of the time.

Run by the engine's own interpreter on one simulated machine. Reads one JSON object a line and
answers each with the child's pid:

    {"request": PATH, "log": PATH, "environ": {...}}

Nothing here touches CUDA or NVML: the child initialises them itself, as any process would that
has imported vLLM and then starts an engine.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
from typing import Any

import memacct_engine_main

# What a start would import next; by presence, as modules move between versions.
MODULES = (
    "vllm.entrypoints.llm",
    "vllm.v1.engine.core",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.executor.abstract",
    "vllm.model_executor.models.qwen2",
    "transformers.models.qwen2",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.worker.gpu.model_runner",
)


def importable(name: str) -> bool:
    """Imports it if it is there."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def harmless(names: tuple[str, ...]) -> list[str]:
    """Those of the modules that leave CUDA alone, tried one after the other in a child.

    A process that has initialised CUDA cannot fork an engine, and in some versions the worker's
    module does so when it is imported.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        import torch

        for name in names:
            if importable(name) and not torch.cuda.is_initialized():
                os.write(write, f"{name}\n".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        found = told.read().split()
    os.waitpid(pid, 0)
    return found


def become_engine(order: dict[str, Any]) -> None:
    """The child: its own session, log and environment, then as if started by itself."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(order["environ"])
    sys.argv = [memacct_engine_main.__file__, order["request"]]
    os._exit(memacct_engine_main.main())


def main() -> None:
    """Until the end of the input."""
    importable(MODULES[0])
    ready = harmless(MODULES)
    for name in ready:
        importable(name)
    # Children are reaped by the kernel; whoever ordered them asks by pid.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    print(json.dumps({"imported": ready}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become_engine(order)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
