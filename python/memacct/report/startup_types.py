"""The values that the tree of an engine's start consists of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from memacct._timeline_types import Note, TimelineEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Memory of one process at one moment, in bytes; None: not known.

    Attributes:
        held_bytes: what the kernel could not take back: anonymous and shared memory, swap.
        reclaimable_bytes: pages of files, which the kernel can drop and read again.
        own_device_bytes: what the process holds on the devices that it uses, all together.
    """

    rss_bytes: int | None
    held_bytes: int | None
    reclaimable_bytes: int | None
    anon_bytes: int | None
    file_bytes: int | None
    shmem_bytes: int | None
    own_device_bytes: int | None

    @classmethod
    def of(cls, entry: TimelineEntry) -> Reading:
        """Returns what an entry says."""
        host = entry.host
        own = [each.own_bytes for each in entry.devices or ()]
        known = [each for each in own if each is not None]
        return cls(
            rss_bytes=host.rss_bytes,
            held_bytes=host.held_bytes,
            reclaimable_bytes=host.reclaimable_bytes,
            anon_bytes=host.rss_anon_bytes,
            file_bytes=host.rss_file_bytes,
            shmem_bytes=host.rss_shmem_bytes,
            own_device_bytes=sum(known) if known and len(known) == len(own) else None,
        )

    def since(self, before: Reading, *, device_from_zero: bool = True) -> Reading:
        """Returns the signed change since ``before``.

        Args:
            before: an earlier reading of the same process.
            device_from_zero: whether a device that was not read before, because the process
                had no context there, counts from 0.
        """
        changes: dict[str, int | None] = {}
        for name, now in asdict(self).items():
            then = getattr(before, name)
            if name == "own_device_bytes" and then is None and device_from_zero:
                then = 0
            changes[name] = None if now is None or then is None else now - then
        return Reading(**changes)


@dataclass(slots=True, kw_only=True)
class TreeNode:
    """One span, checkpoint or process of the tree.

    Attributes:
        begin_ns, end_ns: since the first process's timeline began. ``end_ns`` is None where a
            span has no end: the process was killed in it, or is in it still.
        begin, end: absolute readings; the same of a checkpoint. Of a span without an end,
            ``end`` is the last reading that there is.
        delta: ``end`` less ``begin``; of a checkpoint, since the entry before it.
        cumulative: ``end`` less the process's baseline.
        held_ratio, own_device_ratio: of ``delta``, as a share of what all processes hold at last.
        error: the exception that left the span.
    """

    kind: Literal["process", "span", "checkpoint"]
    name: str
    pid: int
    begin_ns: int
    end_ns: int | None
    begin: Reading
    end: Reading
    delta: Reading
    cumulative: Reading
    held_ratio: float | None = None
    own_device_ratio: float | None = None
    notes: Mapping[str, Note] = field(default_factory=dict)
    error: str | None = None
    children: list[TreeNode] = field(default_factory=list)

    def walk(self) -> Iterator[TreeNode]:
        """Yields this node and all below it, in order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, name: str) -> TreeNode:
        """Returns the first node below (or this) of that name.

        Raises:
            KeyError: there is none.
        """
        return _first(self.walk(), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessAccount:
    """One process of the start: its baseline, its sums and whether they hold.

    Attributes:
        parts: of the baseline, by kind.
        open_spans: names of the spans that it was in when its timeline stopped, outermost first.
        state: "started" if it wrote its check after its last span, else "open"; "ended" if it
            is known to be gone without having done so (killed, or failed).
        failed_in, error: the outermost span that an exception left, and its name, if the process
            got no further.
        holds: whether baseline + increments = resident memory; None: not checked.
        check: the same in words.
        own_wall_ns, own_cpu_ns: what memacct itself took there.
    """

    pid: int
    name: str
    command: str
    machine: str
    started_wall_ns: int
    baseline: Reading
    parts: Mapping[str, int] | None
    last: Reading
    entries_count: int
    lost_count: int
    state: Literal["started", "open", "ended"]
    open_spans: tuple[str, ...]
    failed_in: str | None
    error: str | None
    holds: bool | None
    check: str | None
    own_wall_ns: int | None
    own_cpu_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTree:
    """The start of an engine; ``str()`` is a table."""

    roots: tuple[TreeNode, ...]
    processes: tuple[ProcessAccount, ...]
    torn_count: int

    def walk(self) -> Iterator[TreeNode]:
        """Yields every node, parents before children, in order of time."""
        for root in self.roots:
            yield from root.walk()

    def find(self, name: str) -> TreeNode:
        """Returns the first node of that name.

        Raises:
            KeyError: there is none.
        """
        return _first(self.walk(), name)

    def as_data(self) -> dict[str, Any]:
        """Returns plain data: what JSON can hold."""
        return {
            "schema_version": 1,
            "processes": [asdict(process) for process in self.processes],
            "tree": [asdict(root) for root in self.roots],
            "torn_count": self.torn_count,
        }

    def __str__(self) -> str:
        from memacct.report.startup_text import render_tree

        return render_tree(self)


def _first(nodes: Iterator[TreeNode], name: str) -> TreeNode:
    for node in nodes:
        if node.name == name:
            return node
    raise KeyError(name)
