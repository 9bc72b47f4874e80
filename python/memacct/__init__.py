"""Whose memory is it? Memory accounting of this process, its machine and its GPUs."""

from __future__ import annotations

from memacct._core import Snapshot, __version__, snapshot
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
    "__version__",
    "snapshot",
]
