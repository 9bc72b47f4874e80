"""Whose memory is it? Memory accounting of this process, its machine and its GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._core import Snapshot, TreeSnapshot, __version__, snapshot, snapshot_tree
from memacct._errors import (
    BudgetError,
    ConfigError,
    DriverError,
    MemacctError,
    SamplerError,
    SourceError,
    SourceFormatError,
    SourceReadError,
    SourceUnavailableError,
)

if TYPE_CHECKING:
    from memacct._types import SnapshotDelta

__all__ = [
    "BudgetError",
    "ConfigError",
    "DriverError",
    "MemacctError",
    "SamplerError",
    "Snapshot",
    "SnapshotDelta",
    "SourceError",
    "SourceFormatError",
    "SourceReadError",
    "SourceUnavailableError",
    "TreeSnapshot",
    "__version__",
    "snapshot",
    "snapshot_tree",
]


def __getattr__(name: str) -> object:
    # Every process of an engine imports memacct; few of them subtract snapshots. The
    # deltas' classes take three quarters of the time that this import would take.
    if name == "SnapshotDelta":
        from memacct._types import SnapshotDelta

        return SnapshotDelta
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
