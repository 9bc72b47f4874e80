"""Host memory of the engine's processes: sampled while they start, less the simulated devices'."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from memacct._core import snapshot_tree
from memacct._units import MIB

from .result import Amount, Host

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .result import Rank

# A real driver keeps memory of its own in each process with a context, which nothing here has.
# Nobody tells how much; assumed.
_DRIVER_BYTES = 512 * MIB
_HELD = (
    "anonymous and shared memory as sampled here, simulated device memory taken out; an API server "
    "is reckoned as large as this start's first process after its imports; the range: without "
    "it, and with 0.5 GiB for the driver in each process on a GPU (assumed)"
)
_READ = "anonymous and shared memory as sampled here, simulated device memory taken out"
_CHECKPOINT = "the weights' files, whose pages stay in the page cache after they were read"
_WEIGHTS = "all GPUs' weights: their files are not here, and have about their size"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """All of the engine's processes at a time, by time.monotonic()."""

    at_s: float
    held_bytes: int


class Sampler:
    """Sums what a process and its descendants hold.

    Args:
        pid: of the first process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.samples: list[HostSample] = []

    def sample(self) -> None:
        """Reads once, no tables of pages; nothing where the first process has ended."""
        try:
            tree = snapshot_tree(self.pid, host="breakdown")
        except ValueError:  # there is no such process any more
            return
        held = [
            host.rss_anon_bytes + host.rss_shmem_bytes
            for host in (member.host for member in tree.processes)
            if host is not None
            and host.rss_anon_bytes is not None
            and host.rss_shmem_bytes is not None
        ]
        self.samples.append(HostSample(at_s=time.monotonic(), held_bytes=sum(held)))


def host_of(
    samples: Iterable[HostSample],
    files: Mapping[str, Mapping[str, Any]],
    ranks: Iterable[Rank],
    checkpoint_bytes: int | None,
) -> Host | None:
    """The host's part of the answer; None where nothing was sampled.

    Args:
        samples: of all processes.
        files: what the processes left, by name.
        ranks: for the size of the weights.
        checkpoint_bytes: of the weights' files, if they are there.
    """
    workers = [file for name, file in files.items() if name.startswith("worker-")]
    sums = [each.held_bytes - _pages_bytes(workers, each.at_s) for each in samples]
    if not sums:
        return None
    main = files.get("main", {})
    # With data parallel the first process is the server already; else it is the engine core.
    server = 0 if main.get("server") else int(main.get("own_bytes", 0))
    peak, pids = max(sums), {file["pid"] for file in files.values() if "pid" in file}
    held = Amount(
        bytes=peak + server,
        low_bytes=peak,
        high_bytes=peak + server + _DRIVER_BYTES * max(len(workers), 1),
        source=_HELD if server else _READ,
    )
    return Host(
        held=held,
        reclaimable=_reclaimable(ranks, checkpoint_bytes),
        processes_count=len(pids) + (1 if server else 0),
    )


def _pages_bytes(workers: Iterable[Mapping[str, Any]], at_s: float) -> int:
    """Host pages behind simulated device memory, between what the workers told before and after.

    They are told at the ends of an engine's steps; within one, such as the loading of weights, they
    are taken to grow evenly.
    """
    return sum(_pages_of(worker, at_s) for worker in workers)


def _pages_of(worker: Mapping[str, Any], at_s: float) -> int:
    moments = list(worker["moments"].values())
    told = sorted(
        (float(moment["at_s"]), int(moment["device_pages_bytes"]))
        for moment in moments
        if moment.get("device_pages_bytes") is not None
    )
    if not told:
        return 0
    # The worker's first moment is before its first byte on the device.
    points = [(min(float(moment["at_s"]) for moment in moments), 0), *told]
    if at_s <= points[0][0]:
        return 0
    for (begin_s, before), (end_s, after) in pairwise(points):
        if at_s < end_s:
            passed = (at_s - begin_s) / (end_s - begin_s)
            return before + round(passed * (after - before))
    return told[-1][1]


def _reclaimable(ranks: Iterable[Rank], checkpoint_bytes: int | None) -> Amount:
    if checkpoint_bytes is not None:
        # What a machine has no memory for is not kept: it is reclaimed while it is read.
        size, low, source = checkpoint_bytes, 0, _CHECKPOINT
    else:
        size = sum(rank.weights.bytes for rank in ranks if rank.weights)
        low, source = 0, _WEIGHTS
    return Amount(bytes=size, low_bytes=low, high_bytes=size, source=source)
