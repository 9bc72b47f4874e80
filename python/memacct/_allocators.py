"""The caching allocators of libraries that this process uses already, found by name.

Nothing is imported on behalf of a process that has not imported it itself, and nothing is
initialised: a library that does not use the device yet has no account.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import TYPE_CHECKING, Any

from memacct._errors import SourceUnavailableError

if TYPE_CHECKING:
    from memacct import _core
    from memacct.accounting.fragmentation_types import Fragmentation

_TORCH = "memacct.integrations.torch"

# Reasons for which an account was not read, in the order in which they came up.
notes: list[str] = []


def read_allocators() -> tuple[_core.AllocatorMemory, ...] | None:
    """Returns PyTorch's account of each device that it uses; None where there is none to read.

    The native snapshot calls this before it reads devices, in a process that has imported
    torch. Whatever goes wrong inside torch, the snapshot goes on without: the account is
    unknown, and the reason is logged the first time that it comes up.

    Cost: 0.4 us until torch has initialised CUDA; then about 40 us a device, with the GIL.
    """
    try:
        if not _torch_uses_cuda():
            return None
        module: Any = sys.modules.get(_TORCH) or importlib.import_module(_TORCH)
        accounts: tuple[_core.AllocatorMemory, ...] = module.read_allocators()
    except Exception as error:  # noqa: BLE001 (another library's, of any kind)
        note(f"PyTorch's own account could not be read: {type(error).__name__}: {error}")
        return None
    return accounts


def note(reason: str) -> None:
    """Keeps and logs a reason, once."""
    if reason not in notes:
        notes.append(reason)
        logging.getLogger("memacct").warning("%s", reason)


def _torch_uses_cuda() -> bool:
    # While another thread imports torch it is in sys.modules, and has not all of its names.
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_initialized = getattr(cuda, "is_initialized", None)
    return is_initialized is not None and bool(is_initialized())


def fragmentation(device: _core.DeviceKey | None = None) -> Fragmentation:
    """Returns what PyTorch's allocator holds of a device, and what it could not give back.

    reserved = live + returnable + pinned + private, to the byte; ``str()`` is a table. Nothing is
    emptied, and no memory moves.

    Args:
        device: CUDA ordinal of this process, or UUID; None: PyTorch's current device.

    Raises:
        SourceUnavailableError: this process has not imported torch, or does not use CUDA with it.
        ValueError: it has no such device.

    Source: ``torch.cuda.memory_snapshot()``, and of private pools the graphs and MemPools that are
        alive in this process.
    Cost: a walk over all blocks under the allocator's lock, about 3 us a block; with private
        pools also one over all of Python's objects. With the GIL.
    """
    if "torch" not in sys.modules:
        raise SourceUnavailableError("torch", "this process has not imported it")
    if not _torch_uses_cuda():
        raise SourceUnavailableError("torch", "this process does not use CUDA with it")
    found: Fragmentation = importlib.import_module(_TORCH).fragmentation(device)
    return found
