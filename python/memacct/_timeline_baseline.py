"""What was resident when a timeline started: a counter, and the mappings that explain it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from memacct._core import monotonic_ns, read_mappings, read_residency, snapshot
from memacct._errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct._core import HostMemory, HostTier, Mappings, Snapshot

# What the first reading allocates and keeps is in the counter of the second one.
_ATTEMPTS = 3
# A walk that took longer is not repeated for the counter's sake.
_REPEATED_WALK_NS = 20_000_000
# What nobody asked for must cost little: from here on "small" walks no mappings.
_SMALL_BYTES = 256 << 20
_QUIET_ATTEMPTS = 8
_KINDS_WITHOUT_PATH = {"heap", "stack", "anon", "special"}


# How a baseline is broken down: by its mappings; by them, read one time; by them, or else by the
# counters' kinds where the process is not small; or not at all.
PartsKind = Literal["mappings", "once", "small", "none"]


def read_baseline(
    host: HostTier, devices: Any, parts_kind: PartsKind
) -> tuple[Snapshot, dict[str, Any]]:
    """Returns a timeline's first reading and, as plain data, its parts (empty: not known).

    The counter is read before the mappings, and both again while they disagree and that is
    quick. What they still differ by is told as ``counter_lag_bytes``.

    Source: ``/proc/self/status``; PAGEMAP_SCAN (Linux 6.7 and 6.11) or ``/proc/self/smaps``.
    Cost: a page walk (5 or 10 ms per GiB of 4 KiB pages, several times that on a machine without
    PAGEMAP_SCAN), up to three where one takes less than 20 ms; and some microseconds a mapping.
    None with "small" from 256 MiB on. No numpy, which would double a small process.
    """
    reading = snapshot(host, devices)
    if parts_kind == "none":
        return reading, {}
    if parts_kind == "small" and reading.host.rss_bytes >= _SMALL_BYTES:
        return reading, _kinds_content(reading.host)
    content: dict[str, Any] = {}
    for attempt in range(_ATTEMPTS):
        if attempt > 0:
            reading = snapshot(host, devices)
        begin_ns = monotonic_ns()
        try:
            parts = list(sum_parts(read_residency() or read_mappings()))
        except SourceError:  # a kernel without smaps, or no descriptor left to read it
            return reading, {}
        lag_bytes = reading.host.rss_bytes - sum(part[2] for part in parts)
        content = {"parts": parts, "counter_lag_bytes": lag_bytes}
        if parts_kind == "once" or lag_bytes == 0 or monotonic_ns() - begin_ns >= _REPEATED_WALK_NS:
            break
    return reading, content


def _kinds_content(host: HostMemory) -> dict[str, Any]:
    """The counters' own kinds as parts, which have no lag to tell; none without them."""
    kinds = {
        "anon": host.rss_anon_bytes,
        "file": host.rss_file_bytes,
        "shmem": host.rss_shmem_bytes,
    }
    if None in kinds.values():
        return {}
    return {"parts": [(kind, None, size_bytes, None) for kind, size_bytes in kinds.items()]}


def sum_parts(mappings: Mappings) -> Iterator[tuple[str, str | None, int, int]]:
    """Yields (kind, path, resident bytes, number of mappings) of each part, largest first.

    A part is a file that is mapped, or all memory of a kind that has no file. "interpreter" is
    the kind of the Python executable and its library.
    """
    executable = os.path.realpath(sys.executable or "")
    library = f"/libpython{sys.version_info[0]}.{sys.version_info[1]}"
    sums: dict[tuple[str, str | None], list[int]] = {}
    for index in range(len(mappings)):
        mapping = mappings[index]
        path = None if mapping.kind in _KINDS_WITHOUT_PATH else mapping.path
        is_python = path is not None and (path == executable or library in path)
        part = ("interpreter" if is_python else mapping.kind, path)
        total = sums.setdefault(part, [0, 0])
        total[0] += mapping.rss_bytes or 0
        total[1] += 1
    for (kind, path), (rss_bytes, count) in sorted(sums.items(), key=lambda item: -item[1][0]):
        if rss_bytes:
            yield kind, path, rss_bytes, count


def quiet_reading(host: HostTier, devices: Any = None) -> tuple[Snapshot, int]:
    """Returns a reading, and the resident bytes that ``/proc/self/statm`` says after it.

    Taken again, up to 8 times, if statm said something else before it: then memory was moving.
    """
    before_bytes = snapshot("counters", None).host.rss_bytes
    attempts_count = 0
    while True:
        attempts_count += 1
        reading = snapshot(host, devices)
        after_bytes = snapshot("counters", None).host.rss_bytes
        if after_bytes == before_bytes or attempts_count == _QUIET_ATTEMPTS:
            return reading, after_bytes
        before_bytes = after_bytes
