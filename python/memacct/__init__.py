"""Whose memory is it? Memory accounting of this process, its machine and its GPUs.

PYTEST_DONT_REWRITE (it has a pytest plugin, and may be imported before pytest starts)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    from memacct._allocators import fragmentation
    from memacct._blackbox import Blackbox, read_blackbox
    from memacct._measure import Measurement, measure
    from memacct._sampler import Sampler
    from memacct._timeline import Timeline, checkpoint, current_timeline, span
    from memacct._timeline_read import read_timeline
    from memacct._timeline_records import MergedTimeline, TimelineRecord
    from memacct._timeline_types import Baseline, IdentityCheck, TimelineEntry
    from memacct._trace import Peak, Trace, TracedDevice
    from memacct._trace_events import ForeignEvent, ResidueTrend
    from memacct._tree import TreeDelta
    from memacct._types import SnapshotDelta
    from memacct.accounting.fragmentation_types import Fragmentation
    from memacct.dry_run.dryrun import dryrun
    from memacct.dry_run.result import DryRun

__all__ = [
    "Baseline",
    "Blackbox",
    "BudgetError",
    "ConfigError",
    "DriverError",
    "DryRun",
    "ForeignEvent",
    "Fragmentation",
    "IdentityCheck",
    "Mappings",
    "Measurement",
    "MemacctError",
    "MergedTimeline",
    "Peak",
    "ResidueTrend",
    "Sampler",
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
    "Trace",
    "TracedDevice",
    "TreeDelta",
    "TreeSnapshot",
    "__version__",
    "checkpoint",
    "current_timeline",
    "dryrun",
    "fragmentation",
    "measure",
    "read_blackbox",
    "read_timeline",
    "snapshot",
    "snapshot_tree",
    "span",
]


# Every process of an engine imports memacct; few of them subtract snapshots or keep a
# timeline. The deltas' classes alone take three quarters of the time of the rest of this import.
_LATER = {
    "Baseline": "_timeline_types",
    "Blackbox": "_blackbox",
    "DryRun": "dry_run.result",
    "ForeignEvent": "_trace_events",
    "Fragmentation": "accounting.fragmentation_types",
    "IdentityCheck": "_timeline_types",
    "Measurement": "_measure",
    "MergedTimeline": "_timeline_records",
    "Peak": "_trace",
    "ResidueTrend": "_trace_events",
    "Sampler": "_sampler",
    "SnapshotDelta": "_types",
    "Timeline": "_timeline",
    "TimelineEntry": "_timeline_types",
    "TimelineRecord": "_timeline_records",
    "Trace": "_trace",
    "TracedDevice": "_trace",
    "TreeDelta": "_tree",
    "checkpoint": "_timeline",
    "dryrun": "dry_run.dryrun",
    "current_timeline": "_timeline",
    "measure": "_measure",
    "fragmentation": "_allocators",
    "read_blackbox": "_blackbox",
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


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext memacct``: the magics of docs/ipython.md."""
    from memacct.integrations.ipython import MemacctMagics

    shell.register_magics(MemacctMagics)


def __dir__() -> list[str]:
    return sorted(__all__)
