"""Whose memory is it? Memory accounting of this process, its machine and its GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._core import Mappings, Snapshot, TreeSnapshot, __version__, snapshot, snapshot_tree
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
    from memacct._timeline import Timeline, checkpoint, current_timeline, span
    from memacct._timeline_read import read_timeline
    from memacct._timeline_records import MergedTimeline, TimelineRecord
    from memacct._timeline_types import Baseline, IdentityCheck, TimelineEntry
    from memacct._tree import TreeDelta
    from memacct._types import SnapshotDelta

__all__ = [
    "Baseline",
    "BudgetError",
    "ConfigError",
    "DriverError",
    "IdentityCheck",
    "Mappings",
    "MemacctError",
    "MergedTimeline",
    "SamplerError",
    "Snapshot",
    "SnapshotDelta",
    "SourceError",
    "SourceFormatError",
    "SourceReadError",
    "SourceUnavailableError",
    "Timeline",
    "TimelineEntry",
    "TimelineRecord",
    "TreeDelta",
    "TreeSnapshot",
    "__version__",
    "checkpoint",
    "current_timeline",
    "read_timeline",
    "snapshot",
    "snapshot_tree",
    "span",
]


# Every process of an engine imports memacct; few of them subtract snapshots or keep a
# timeline. The deltas' classes alone take three quarters of the time of the rest of this import.
_LATER = {
    "Baseline": "_timeline_types",
    "IdentityCheck": "_timeline_types",
    "MergedTimeline": "_timeline_records",
    "SnapshotDelta": "_types",
    "Timeline": "_timeline",
    "TimelineEntry": "_timeline_types",
    "TimelineRecord": "_timeline_records",
    "TreeDelta": "_tree",
    "checkpoint": "_timeline",
    "current_timeline": "_timeline",
    "read_timeline": "_timeline_read",
    "span": "_timeline",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"memacct.{_LATER[name]}"), name)
    # Asked for once: `memacct.checkpoint` is to cost as little as its call.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
