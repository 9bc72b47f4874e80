"""What the plugin changes in vLLM's modules where nobody enabled it; run by the engine's Python.

Prints JSON: each attribute of a vLLM module or class that is another object than before.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import threading
from types import ModuleType
from typing import Any

import torch
from vllm.plugins import load_general_plugins

# All that the plugin hooks, and where GPU workers live.
MODULES = (
    "vllm.engine.arg_utils",
    "vllm.v1.engine.core",
    "vllm.v1.executor.abstract",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.worker_base",
)


def owners() -> dict[str, Any]:
    """Every imported module of vLLM, and every class that is defined in one."""
    found: dict[str, Any] = {}
    for name, module in tuple(sys.modules.items()):
        if not isinstance(module, ModuleType) or name.partition(".")[0] != "vllm":
            continue
        found[name] = module
        for key, value in tuple(vars(module).items()):
            if inspect.isclass(value) and value.__module__ == name:
                found[f"{name}.{key}"] = value
    return found


def attributes() -> dict[str, Any]:
    return {
        f"{name}.{key}": value
        for name, owner in owners().items()
        for key, value in tuple(vars(owner).items())
        if callable(value) and not key.startswith("__")
    }


def described(name: str, before: Any, after: Any) -> dict[str, Any]:
    kept = ("__name__", "__qualname__", "__doc__", "__module__")
    return {
        "name": name,
        "is_new": before is None,
        "same_signature": before is not None
        and str(inspect.signature(before)) == str(inspect.signature(after)),
        "same_names": before is not None
        and all(getattr(before, key) == getattr(after, key) for key in kept),
        "wraps": before is not None and inspect.unwrap(after) is inspect.unwrap(before),
    }


def main() -> None:
    for name in MODULES:
        importlib.import_module(name)
    before = attributes()
    modules = set(sys.modules)
    threads = threading.active_count()
    finders = len(sys.meta_path)
    load_general_plugins()
    after = attributes()
    changed = [
        described(name, before.get(name), value)
        for name, value in after.items()
        if before.get(name) is not value and not name.startswith("vllm.plugins.")
    ]
    report = {
        "changed": changed,
        "gone": sorted(set(before) - set(after)),
        "modules": sorted(set(sys.modules) - modules),
        "threads_count": threading.active_count() - threads,
        "finders_count": len(sys.meta_path) - finders,
        "cuda_initialised": torch.cuda.is_initialized(),
    }
    print("REPORT " + json.dumps(report))


if __name__ == "__main__":
    main()
