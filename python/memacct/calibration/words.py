"""A measurement in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import KIB, format_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from memacct.dry_run.calibration_file import Calibration
    from memacct.dry_run.result import Amount

_NAMES = {
    "context": "CUDA context",
    "cublas": "cuBLAS handle",
    "kernels": "kernels of an engine",
    "nccl": "communicator of NCCL",
    "nccl_first": "its first collectives",
    "graph": "CUDA graph",
    "graph_node": "each of its kernels",
}


def words(found: Calibration, path: Path) -> str:
    """What was measured, and where it is kept."""
    of = f"{found.card}, driver {found.driver}, torch {found.torch}"
    width = max(map(len, _NAMES.values()))
    lines = [
        f"  {_NAMES.get(name, name):{width}}  {_amount(amount)}"
        for name, amount in found.figures.items()
    ]
    notes = [f"note: {note}" for note in found.notes]
    return "\n".join([of, *lines, *notes, f"kept in {path}"])


def _amount(amount: Amount) -> str:
    if amount.low_bytes == amount.high_bytes:
        return _size(amount.bytes)
    return f"{_size(amount.bytes)} ({_size(amount.low_bytes)} to {_size(amount.high_bytes)})"


def _size(size_bytes: int) -> str:
    """Small sizes in KiB: a graph's kernel is 10 of them."""
    return format_bytes(size_bytes) if size_bytes >= KIB * KIB else f"{size_bytes / KIB:.1f} KiB"
