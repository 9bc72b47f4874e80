"""Runs checks of PyTorch's allocator, in a Python with the CUDA build of torch.

``python torch_allocator_checks.py NAME...`` runs them one after the other and prints one JSON
object: by name "ok", or the error's text. test_torch_allocator.py runs each list on a machine
of two devices of 140 GiB with contexts of 400 MiB; a cuBLAS handle takes 8 MiB, a graph 16 MiB.
"""

from __future__ import annotations

import gc
import json
import sys
import traceback

import torch_account_checks
import torch_fragmentation_checks

MODULES = (torch_account_checks, torch_fragmentation_checks)


def main() -> None:
    results = {}
    for name in sys.argv[1:]:
        try:
            module = next(module for module in MODULES if hasattr(module, name))
            getattr(module, name)()
            results[name] = "ok"
        except Exception:  # noqa: BLE001 (whatever it is, the test shall see it)
            results[name] = traceback.format_exc()
        if torch := sys.modules.get("torch"):
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
