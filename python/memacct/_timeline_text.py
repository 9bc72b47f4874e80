"""Timelines as plain text: tables in KiB, as ``top`` shows resident memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memacct._timeline_types import Baseline, IdentityCheck, TimelineEntry
    from memacct._types import HostDelta

_HEADER = (
    "KiB",
    "at",
    "rss",
    "change",
    "from start",
    "held",
    "reclaimable",
    "anon",
    "file",
    "shmem",
)
_PACKAGES_SHOWN = 8


def render_entries(
    entries: Sequence[TimelineEntry],
    baseline: Baseline | None,
    check: IdentityCheck | None,
    started_ns: int,
) -> str:
    """Returns one process's timeline as a table, with the check in its last line."""
    rows: list[Sequence[str]] = [_HEADER]
    for entry in entries:
        rows.append(_entry_row(entry, entry.taken_ns - started_ns))
        if entry.kind == "baseline" and baseline is not None:
            rows += _baseline_rows(baseline)
    if check is not None and check.since_last_bytes:
        rows.append(("since the last entry", "", "", _signed(check.since_last_bytes)))
    return f"{_table(rows)}\n{verdict(check)}"


def render_merged(entries: Sequence[tuple[int, TimelineEntry]], started_wall_ns: int) -> str:
    """Returns entries of several processes, each with its process's id, as one table."""
    rows: list[Sequence[str]] = [("", *_HEADER)]
    rows += [
        (str(pid), *_entry_row(entry, entry.wall_ns - started_wall_ns)) for pid, entry in entries
    ]
    return _table(rows)


def verdict(check: IdentityCheck | None) -> str:
    """Returns what came of the identity check, if it was made."""
    return "not checked: the timeline was not stopped" if check is None else str(check)


def _entry_row(entry: TimelineEntry, since_ns: int) -> tuple[str, ...]:
    name = "  " * entry.depth + printable(entry.name)
    if entry.kind == "span_begin":
        name += " {"
    elif entry.kind == "span_end":
        name = "  " * entry.depth + "} " + printable(entry.name) + _span_text(entry)
    is_first = entry.kind == "baseline"
    return (
        name,
        f"{since_ns / 1e9:.3f} s",
        _plain(entry.host.rss_bytes),
        "" if is_first else _signed(entry.delta.rss_bytes),
        "" if is_first else _signed(entry.since_baseline.rss_bytes),
        *(_kinds(entry.delta) if not is_first else ()),
    )


def _span_text(entry: TimelineEntry) -> str:
    if entry.span_delta is None or entry.span_ns is None:
        return ""
    failure = f", {printable(entry.error)}" if entry.error else ""
    return f" ({_signed(entry.span_delta.rss_bytes)} in {entry.span_ns / 1e9:.3f} s{failure})"


def _kinds(delta: HostDelta) -> Iterator[str]:
    yield _signed(delta.held_bytes)
    yield _signed(delta.reclaimable_bytes)
    yield _signed(delta.rss_anon_bytes)
    yield _signed(delta.rss_file_bytes)
    yield _signed(delta.rss_shmem_bytes)


def _baseline_rows(baseline: Baseline) -> Iterator[tuple[str, ...]]:
    for kind, rss_bytes in baseline.by_kind().items():
        yield f"  = {printable(kind)}", "", _plain(rss_bytes)
        if kind == "library":
            packages = list(baseline.by_package().items())
            for package, part_bytes in packages[:_PACKAGES_SHOWN]:
                yield f"      {printable(package.rpartition('/')[2])}", "", _plain(part_bytes)
            if rest := packages[_PACKAGES_SHOWN:]:
                yield f"      {len(rest)} more", "", _plain(sum(size for _, size in rest))
    if baseline.counter_lag_bytes:
        yield "  = the counter's lag", "", _plain(baseline.counter_lag_bytes)


def _plain(size_bytes: int) -> str:
    return f"{size_bytes / 1024:,.0f}"


def _signed(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "?"
    return f"{size_bytes / 1024:+,.0f}" if size_bytes else "0"


def _table(rows: Sequence[Sequence[str]]) -> str:
    count = max(len(row) for row in rows)
    padded = [[*row, *[""] * (count - len(row))] for row in rows]
    widths = [max(len(row[column]) for row in padded) for column in range(count)]
    # What is in words is on the left: the first column, and where there is a process before it.
    words = 2 if rows[0][0] == "" else 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in padded
    )
