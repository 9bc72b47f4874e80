"""Tells the parent where a program is, and waits until it has read the accounts.

The parent gives two pipes by their numbers in MEMACCT_MARK_FDS.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def mark(name: str, **more: Any) -> None:
    """Stands still at a named place, with PyTorch's and the whole device's own account."""
    import torch

    torch.cuda.synchronize()
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    line = {
        "mark": name,
        "pid": os.getpid(),
        "device": str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid),
        "reserved_bytes": torch.cuda.memory_reserved(),
        "free_bytes": free_bytes,
        "total_bytes": total_bytes,
        **more,
    }
    told, go = map(int, os.environ["MEMACCT_MARK_FDS"].split(","))
    os.write(told, (json.dumps(line) + "\n").encode())
    if not os.read(go, 1):
        sys.exit("the parent has ended")


def versions() -> dict[str, Any]:
    """What the figures hold for."""
    import torch

    return {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": torch.cuda.device_count(),
    }
