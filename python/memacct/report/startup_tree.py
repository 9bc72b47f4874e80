"""Joins the timelines of an engine's processes to one tree of its start. Pure.

``str()`` of what `start_tree` returns is the table, its ``as_data()`` the JSON form. No file is
read here: `memacct.read_timeline` does that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from memacct.report.startup_types import ProcessAccount, Reading, StartTree, TreeNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from memacct._timeline_records import MergedTimeline, TimelineRecord
    from memacct._timeline_types import Note, TimelineEntry

# An engine's processes in the order in which they start each other.
_RANKS = ("main", "EngineCore", "Worker")


def start_tree(
    merged: MergedTimeline, *, is_alive: Callable[[TimelineRecord], bool | None] | None = None
) -> StartTree:
    """Returns the start that the timelines of an engine's processes tell of. Pure.

    A process is below the process that started it, in the span in which that one waited for it:
    its steps are put, by wall time, under the innermost of the other's spans that was open then.

    Args:
        merged: of ``read_timeline``.
        is_alive: whether a record's process lives; None, or its answer None: not known.
    """
    records = [record for record in merged.records if record.entries]
    if not records:
        return StartTree(roots=(), processes=(), torn_count=merged.torn_count)
    start_ns = min(record.entries[0].wall_ns for record in records)
    parts = {record.id: _ProcessPart(record, start_ns) for record in records}
    tops: list[TimelineRecord] = []
    # The last first: what belongs into a process is there before it goes into another one.
    for record in sorted(records, key=lambda each: each.started_wall_ns, reverse=True):
        host = _host_of(record, records)
        if host is None:
            tops.append(record)
        else:
            _insert(parts[host.id], parts[record.id])
    for part in parts.values():
        part.sort()
    roots = [parts[record.id].node(parts[record.id].top) for record in reversed(tops)]
    _add_shares(roots, parts.values())
    processes = tuple(
        parts[record.id].account(None if is_alive is None else is_alive(record))
        for record in records
    )
    return StartTree(roots=tuple(roots), processes=processes, torn_count=merged.torn_count)


class _ProcessPart:
    """One process's own tree, while it is being joined to the others'."""

    def __init__(self, record: TimelineRecord, start_ns: int) -> None:
        self.record = record
        self.start_ns = start_ns
        self.name = record.name or record.command or str(record.pid)
        self.baseline = Reading.of(record.entries[0])
        self.last = Reading.of(record.entries[-1])
        self.spans: list[TreeNode] = []
        self.top: list[TreeNode] = []
        self.open: list[TreeNode] = []
        self._build()

    def _build(self) -> None:
        by_index: dict[int, TreeNode] = {}
        before = self.baseline
        for entry in self.record.entries:
            now = Reading.of(entry)
            around = None if entry.span_index is None else by_index.get(entry.span_index)
            if entry.kind == "span_end":
                if around is not None:
                    self._end(around, entry, now)
            elif entry.kind in ("span_begin", "checkpoint"):
                node = self._begin(entry, now, before)
                (self.top if around is None else around.children).append(node)
                if entry.kind == "span_begin":
                    by_index[entry.index] = node
                    self.spans.append(node)
            before = now
        self.open = [node for node in self.spans if node.end_ns is None]
        for node in self.open:
            node.end, node.delta = self.last, self.last.since(node.begin)
            node.cumulative = self.last.since(self.baseline)

    def _begin(self, entry: TimelineEntry, now: Reading, before: Reading) -> TreeNode:
        is_point = entry.kind == "checkpoint"
        at_ns = entry.wall_ns - self.start_ns
        return TreeNode(
            kind="checkpoint" if is_point else "span",
            name=entry.name,
            pid=self.record.pid,
            begin_ns=at_ns,
            end_ns=at_ns if is_point else None,
            begin=now,
            end=now,
            delta=now.since(before if is_point else now),
            cumulative=now.since(self.baseline),
            notes=dict(entry.notes or {}),
        )

    def _end(self, node: TreeNode, entry: TimelineEntry, now: Reading) -> None:
        node.end_ns = entry.wall_ns - self.start_ns
        node.end, node.delta = now, now.since(node.begin)
        node.cumulative = now.since(self.baseline)
        node.notes = {**node.notes, **(entry.notes or {})}
        node.error = entry.error

    def node(self, children: list[TreeNode]) -> TreeNode:
        """Returns a node for (a stretch of) the process, with these of its steps."""
        is_whole = children is self.top
        first = self.record.entries[0]
        begin = self.baseline if is_whole or not children else children[0].begin
        end = self.last if is_whole or not children else children[-1].end
        ends_ns = [child.end_ns for child in children]
        return TreeNode(
            kind="process",
            name=self.name,
            pid=self.record.pid,
            begin_ns=children[0].begin_ns if children else first.wall_ns - self.start_ns,
            end_ns=None if not ends_ns or None in ends_ns else ends_ns[-1],
            begin=begin,
            end=end,
            delta=end.since(begin),
            cumulative=end.since(self.baseline),
            children=list(children),
        )

    def innermost(self, at_ns: int) -> TreeNode | None:
        """Returns the innermost span that was open at ``at_ns``."""
        around = [
            span
            for span in self.spans
            if span.begin_ns <= at_ns and (span.end_ns is None or at_ns <= span.end_ns)
        ]
        return around[-1] if around else None

    def sort(self) -> None:
        """Orders what was inserted into the spans by time."""
        for nodes in (self.top, *(span.children for span in self.spans)):
            nodes.sort(key=lambda node: node.begin_ns)

    def _failed(self) -> TreeNode | None:
        own = [node for node in self.top if node.kind == "span"]
        return own[-1] if own and own[-1].error is not None else None

    def account(self, alive: bool | None) -> ProcessAccount:
        """Returns the process's own line."""
        record = self.record
        check = record.identity()
        notes = [entry.notes for entry in record.entries if entry.notes]
        own = next((each for each in reversed(notes) if "own_wall_ns" in each), {})
        failed = self._failed() if check is None and not self.open else None
        state: Literal["started", "open", "ended"] = "started"
        if self.open or check is None:
            state = "ended" if alive is False else "open"
        return ProcessAccount(
            pid=record.pid,
            name=self.name,
            command=record.command,
            machine=record.machine,
            started_wall_ns=record.started_wall_ns,
            baseline=self.baseline,
            parts=None if record.baseline is None else record.baseline.by_kind(),
            last=self.last,
            entries_count=len(record.entries),
            lost_count=record.lost_count,
            state=state,
            open_spans=tuple(node.name for node in self.open),
            failed_in=None if failed is None else failed.name,
            error=None if failed is None else failed.error,
            holds=None if check is None else check.holds,
            check=None if check is None else str(check),
            own_wall_ns=_whole(own.get("own_wall_ns")),
            own_cpu_ns=_whole(own.get("own_cpu_ns")),
        )


def _whole(value: Note | None) -> int | None:
    return value if isinstance(value, int) else None


def _host_of(record: TimelineRecord, records: Iterable[TimelineRecord]) -> TimelineRecord | None:
    """Returns the process below which ``record``'s is: its parent, or who waited for it."""
    others = [other for other in records if other is not record]
    for other in others:
        if record.parent_id is not None and other.id == record.parent_id:
            return other
    same = [other for other in others if other.machine == record.machine]
    for other in same:
        if record.parent_pid is not None and other.pid == record.parent_pid:
            return other
    # Started by a third one (Ray, a fork server): the nearest role above that began before it.
    rank = _rank(record)
    above = [
        other
        for other in others
        if _rank(other) < rank and other.started_wall_ns <= record.started_wall_ns
    ]
    return max(above, key=lambda other: (_rank(other), other.started_wall_ns), default=None)


def _rank(record: TimelineRecord) -> int:
    name = record.name or ""
    return next((index for index, role in enumerate(_RANKS) if name.startswith(role)), 0)


def _insert(host: _ProcessPart, guest: _ProcessPart) -> None:
    """Puts the guest's steps under the host's spans that they fall into, side by side."""
    stretch: list[TreeNode] = []
    place: TreeNode | None = None
    for step in guest.top:
        around = host.innermost(step.begin_ns)
        if stretch and around is not place:
            _attach(host, guest, place, stretch)
            stretch = []
        place = around
        stretch.append(step)
    if stretch or not guest.top:
        if not guest.top:
            place = host.innermost(guest.record.entries[0].wall_ns - host.start_ns)
        _attach(host, guest, place, stretch)


def _attach(
    host: _ProcessPart, guest: _ProcessPart, place: TreeNode | None, steps: list[TreeNode]
) -> None:
    # What is beyond the host's spans is at its end, as the host's own steps there are.
    (host.top if place is None else place.children).append(guest.node(steps))


def _add_shares(roots: list[TreeNode], parts: Iterable[_ProcessPart]) -> None:
    lasts = [part.last for part in parts]
    held_bytes = sum(last.held_bytes or 0 for last in lasts)
    device_bytes = sum(last.own_device_bytes or 0 for last in lasts)
    for root in roots:
        for node in root.walk():
            node.held_ratio = _share(node.delta.held_bytes, held_bytes)
            node.own_device_ratio = _share(node.delta.own_device_bytes, device_bytes)


def _share(part_bytes: int | None, whole_bytes: int) -> float | None:
    return None if part_bytes is None or whole_bytes == 0 else part_bytes / whole_bytes
