"""What a reading of a process tree says in a table, and the difference of two of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from memacct._core import TreeSnapshot
from memacct._units import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct._core import ProcessMemory

_HEADER = ("pid", "process", "state", "rss", "pss", "anon", "file", "shmem", "uss", "swap")
# The same in a process and in a tree; anon, file and shmem are the parts of pss.
_TERMS = (
    "rss_bytes",
    "pss_bytes",
    "pss_anon_bytes",
    "pss_file_bytes",
    "pss_shmem_bytes",
    "uss_bytes",
    "swap_bytes",
)
_TITLE_WIDTH = 40


def table(tree: TreeSnapshot) -> str:
    """Returns a row a process, in MiB, and their sums; ``?`` is unknown, empty is nothing."""
    rows = [_row(process) for process in tree.processes]
    rows.append(("", "sum", "", *(_mib(getattr(tree, name)) for name in _TERMS)))
    return "\n".join([_aligned([_HEADER, *rows]), *_notes(tree)])


def _row(process: ProcessMemory) -> tuple[str, ...]:
    values = ["?" if process.state in {"gone", "denied"} else ""] * len(_TERMS)
    if process.host is not None:
        values = [_mib(getattr(process.host, name)) for name in _TERMS]
    return (str(process.pid), "  " * process.depth + _called(process), process.state, *values)


def _called(process: ProcessMemory) -> str:
    """Returns a role with its rank, or else as much of the title as a table has room for."""
    if process.role in {None, "python", "shell"}:
        text = process.title or f"[{process.name}]"
        return text if len(text) <= _TITLE_WIDTH else text[: _TITLE_WIDTH - 1] + "…"
    return f"{process.role} {process.rank or ''}".rstrip()


def _mib(value: int | None) -> str:
    return "?" if value is None else f"{value / MIB:.1f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in {1, 2} else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _notes(tree: TreeSnapshot) -> list[str]:
    notes = ["MiB. rss counts a page in each process that maps it, pss once; uss: it alone."]
    if tree.freed_bounds_bytes is not None:
        low, high = map(_mib, tree.freed_bounds_bytes)
        notes.append(f"The end of all of them would free {low} to {high} at once.")
    if tree.unread_count:
        notes.append(f"{tree.unread_count} not read in full: the sums are lower bounds.")
    elif not tree.complete:
        notes.append("Some may be missing (new, or hidden by /proc): the sums are lower bounds.")
    return notes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessChange:
    """Signed change of one process that is in both of two tree snapshots."""

    pid: int
    name: str
    role: str | None
    rank: str | None
    rss_bytes: int | None
    pss_bytes: int | None
    uss_bytes: int | None
    swap_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeDelta:
    """What changed in a process tree: ``after - before``.

    Attributes:
        appeared: the processes, as ``after`` has them, that ``before`` lacks.
        disappeared: those, as ``before`` has them, that ``after`` lacks or has as gone.
        changed: the processes of both, those whose pss (or rss) grew most first.
    """

    elapsed_ns: int
    rss_bytes: int | None
    pss_bytes: int | None
    pss_anon_bytes: int | None
    pss_file_bytes: int | None
    pss_shmem_bytes: int | None
    uss_bytes: int | None
    swap_bytes: int | None
    swap_pss_bytes: int | None
    private_hugetlb_bytes: int | None
    appeared: tuple[ProcessMemory, ...]
    disappeared: tuple[ProcessMemory, ...]
    changed: tuple[ProcessChange, ...]


def difference(after: TreeSnapshot, before: TreeSnapshot) -> TreeDelta:
    """Returns what changed between two snapshots; a process is known by pid and start time.

    A term that either snapshot does not know, or knows only a lower bound of, is None.

    Raises:
        ValueError: the snapshots are of other roots; the message names both.
    """
    if not isinstance(before, TreeSnapshot):
        return NotImplemented
    if _roots(after) != _roots(before):
        raise ValueError(f"these are of two trees, of {_named(after)} and of {_named(before)}")
    olds, news = _by_identity(before), _by_identity(after)
    changed = [_change(new, olds[key]) for key, new in news.items() if key in olds]
    whole = after.complete and before.complete
    return TreeDelta(
        elapsed_ns=after.taken_ns - before.taken_ns,
        appeared=tuple(new for key, new in news.items() if key not in olds),
        disappeared=tuple(old for key, old in olds.items() if key not in news),
        changed=tuple(sorted(changed, key=_growth, reverse=True)),
        **{
            field.name: _subtract(after, before, field.name) if whole else None
            for field in fields(TreeDelta)
            if field.name.endswith("_bytes")
        },
    )


def _roots(tree: TreeSnapshot) -> set[tuple[int, int]]:
    # With the start times: the number of a root that ended may be another process's by now.
    return {(root.pid, root.start_ticks) for root in tree.processes if root.depth == 0}


def _named(tree: TreeSnapshot) -> str:
    return ", ".join(f"pid {pid} (started at tick {start})" for pid, start in sorted(_roots(tree)))


def _by_identity(tree: TreeSnapshot) -> dict[tuple[int, int], ProcessMemory]:
    return {
        (process.pid, process.start_ticks): process
        for process in tree.processes
        if process.state != "gone"
    }


def _subtract(after: Any, before: Any, name: str) -> int | None:
    new, old = getattr(after, name, None), getattr(before, name, None)
    return None if new is None or old is None else new - old


def _change(new: ProcessMemory, old: ProcessMemory) -> ProcessChange:
    terms = ("rss_bytes", "pss_bytes", "uss_bytes", "swap_bytes")
    changes = {name: _subtract(new.host, old.host, name) for name in terms}
    return ProcessChange(pid=new.pid, name=new.name, role=new.role, rank=new.rank, **changes)


def _growth(change: ProcessChange) -> int:
    return change.rss_bytes or 0 if change.pss_bytes is None else change.pss_bytes
