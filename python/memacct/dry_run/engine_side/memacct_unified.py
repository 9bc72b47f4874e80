"""Where a card shares the host's memory, what is available is the simulated machine's.

vLLM asks the host there and not the device (MemorySnapshot in vllm/utils/mem_utils.py), because
cudaMemGetInfo does not count page cache, which the system would give back. The host of a dry run is
another machine, of another size.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct_dryrun_files import LeftToTheLog
from memacct_dryrun_worker import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

#: Set by the simulated GPU that such a card is.
UNIFIED = "MEMACCT_SIM_INTEGRATED"
NOTE = (
    "the card shares the host's memory: of that, only what this engine holds is counted. "
    "--neighbour tells what the system and other programs hold"
)
_patched: list[Any] = []


def apply() -> list[str]:
    """Answers psutil.virtual_memory(), if the card is of that kind; returns what to tell people."""
    if not os.environ.get(UNIFIED):
        return []
    with LeftToTheLog():
        psutil: Any = importlib.import_module("psutil")
        if not _patched:
            _patched.append(psutil.virtual_memory)
            psutil.virtual_memory = answering(psutil.virtual_memory)
    return [NOTE]


def answering(original: Callable[[], Any]) -> Callable[[], Any]:
    """The same of this host until CUDA is there, and then of the simulated machine."""

    def virtual_memory() -> Any:
        host, device = original(), device_memory()
        if device is None:
            return host
        free_bytes, total_bytes = device
        available = max(free_bytes - own_bytes(), 0)
        return host._replace(
            total=total_bytes,
            available=available,
            free=available,
            used=total_bytes - available,
            percent=round(100 * (1 - available / total_bytes), 1),
        )

    return virtual_memory


def device_memory() -> tuple[int, int] | None:
    """Free and total by CUDA, in bytes; None before this process has initialised it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return free_bytes, total_bytes


def own_bytes() -> int:
    """What this process holds of the host's memory beside simulated device memory."""
    import torch

    lines = Path("/proc/self/status").read_text().splitlines()
    held = sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    segments = [(each["address"], each["total_size"]) for each in torch.cuda.memory_snapshot()]
    return int(max(held * 1024 - resident_bytes(segments), 0))
