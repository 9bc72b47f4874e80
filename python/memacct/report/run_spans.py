"""The spans that a recorded command's processes wrote to their timelines, on the run's clock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memacct._errors import MemacctError
from memacct._printable import printable
from memacct._timeline_read import FILE_PATTERN, is_alive, read_timeline
from memacct.report.startup_tree import start_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.recording import Run
    from memacct.report.startup_types import StartTree, TreeNode


class Span(NamedTuple):
    """A span of one process; ``end_ns`` is None where it has none. Times: CLOCK_MONOTONIC."""

    pid: int
    name: str
    depth: int
    begin_ns: int
    end_ns: int | None
    held_change_bytes: int | None
    device_change_bytes: int | None


class Spans(NamedTuple):
    """What was found: the start as one tree, its spans, and why there is none."""

    tree: StartTree | None
    spans: tuple[Span, ...]
    problem: str | None


def spans_of(run: Run, folder: Path | None = None) -> Spans:
    """Returns what the timelines beside a recording tell.

    Args:
        run: the recording.
        folder: where they are; None: where ``record --timeline`` had them written.
    """
    if folder is None:
        name = run.header["timeline_dir"]
        if name is None:
            return Spans(None, (), None)
        folder = Path(run.source).parent / name
    try:
        if not any(folder.glob(FILE_PATTERN)):
            return Spans(None, (), f"no timelines are in {folder}")
        merged = read_timeline(folder)
        tree = start_tree(merged, is_alive=is_alive)
    except (MemacctError, OSError) as error:
        return Spans(None, (), printable(f"the timelines could not be read: {error}"))
    starts = [record.entries[0].wall_ns for record in merged.records if record.entries]
    if not starts:
        return Spans(None, (), f"the timelines in {folder} are empty")
    # From the wall clock, which timelines share with other machines', to the recording's.
    begin_ns = run.origin_ns + min(starts) - int(run.header["clock"]["wall_ns"])
    spans = [span for root in tree.roots for span in _walk(root, {}, begin_ns)]
    return Spans(tree, tuple(sorted(spans, key=lambda span: (span.begin_ns, span.depth))), None)


def _walk(node: TreeNode, depths: dict[int, int], begin_ns: int) -> Iterator[Span]:
    """Yields the spans of a node; a process's own nest, those of others below it begin anew."""
    depth = depths.get(node.pid, 0)
    if node.kind == "span":
        yield Span(
            pid=node.pid,
            name=printable(node.name),
            depth=depth,
            begin_ns=begin_ns + node.begin_ns,
            end_ns=None if node.end_ns is None else begin_ns + node.end_ns,
            held_change_bytes=node.delta.held_bytes,
            device_change_bytes=node.delta.own_device_bytes,
        )
    below = {**depths, node.pid: depth + 1} if node.kind == "span" else depths
    for child in node.children:
        yield from _walk(child, below, begin_ns)
