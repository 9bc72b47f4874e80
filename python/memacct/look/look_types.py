"""One look at the machine: GPUs with who holds them, one process's memory, the host's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from memacct._convert import to_dict

if TYPE_CHECKING:
    from memacct._core import (
        CgroupMemory,
        HostMemory,
        Mappings,
        MemoryLimits,
        ProcessMemory,
        SystemMemory,
        TreeSnapshot,
        UnifiedMemory,
    )

# Named tuples, not dataclasses: `snap` is to answer before the import of `dataclasses` (with
# `inspect`, a third of all its time) would have ended.

#: Of the JSON of ``snap`` and ``watch``; grows when a key changes its meaning or goes.
SCHEMA = 1

#: Whether the numbers in the driver's lists are those of this procfs.
Numbers = Literal["ours", "perhaps", "others"]
Owner = Literal["own", "tree", "foreign", "unknown"]


class Holder(NamedTuple):
    """A process in a device's list, and what procfs says of that number.

    Attributes:
        pid: as the driver numbers it.
        owner: "own" is the process that was asked for, "tree" its descendants.
        start_ticks: with ``pid``, names a process for ever; None where procfs was not asked.
        name, title, role, rank: as in ``ProcessMemory``; empty or None where unknown.
        host: its host memory; None: not told, or ended meanwhile.
    """

    pid: int
    process_used_bytes: int | None
    owner: Owner
    kinds: tuple[str, ...] = ()
    gpu_instance_id: int | None = None
    start_ticks: int | None = None
    name: str = ""
    title: str = ""
    role: str | None = None
    rank: str | None = None
    host: HostMemory | None = None


class Finding(NamedTuple):
    """How the process that was asked for was found in a device's list, and how sure that is."""

    source: Literal["pid", "none"]
    sure: bool
    own_bounds_bytes: tuple[int | None, int | None]
    reason: str


class Gpu(NamedTuple):
    """One device: total = free + reserved + own + tree + foreign + unattributed, as read.

    own and tree are 0 when no process was asked for: everybody is foreign then.

    Attributes:
        label: short: the index, or "index/n" of the n-th MIG instance.
        attribution: None when no process was asked for.
        notes: what a reader of the numbers has to know.
    """

    uuid: str
    label: str
    nvml_index: int | None
    parent_uuid: str | None
    name: str
    source: str
    taken_ns: int
    span_ns: int
    consistent: bool
    total_bytes: int
    free_bytes: int
    device_used_bytes: int | None
    reserved_bytes: int | None
    own_bytes: int | None
    tree_bytes: int | None
    foreign_bytes: int | None
    unattributed_bytes: int | None
    processes: tuple[Holder, ...]
    attribution: Finding | None = None
    unified: UnifiedMemory | None = None
    virtualized: str | None = None
    notes: tuple[str, ...] = ()


class Look(NamedTuple):
    """All of it. ``gpus`` is None where there is no driver, or none was asked for.

    Attributes:
        gpus_notes: what the driver did not tell, such as a GPU that was left out, and why.
        pid: the process that was asked for; None: the machine.
        numbers: whether the driver's numbers are procfs's: names hang on it.
        process, tree, mappings: the memory of the process that was asked for.
        cgroup, limits: of that process's control group; without a pid this command's, the shell's.
    """

    taken_ns: int
    span_ns: int
    pid: int | None
    numbers: Numbers
    gpus: tuple[Gpu, ...] | None
    gpus_reason: str
    gpus_notes: tuple[str, ...] = ()
    process: ProcessMemory | None = None
    tree: TreeSnapshot | None = None
    mappings: Mappings | None = None
    system: SystemMemory | None = None
    cgroup: CgroupMemory | None = None
    limits: MemoryLimits | None = None

    def to_dict(self, kind: str = "snap") -> dict[str, Any]:
        """Returns plain data for JSON; unknown is None."""
        data = to_dict(self, without=("mappings",))
        if self.mappings is not None:
            kinds = self.mappings.by_kind().values()
            files = list(self.mappings.by_file().values())[:20]
            data["mappings"] = {
                "source": self.mappings.source,
                "by_kind": [to_dict(each) for each in kinds],
                "by_file": [to_dict(each) for each in files],
            }
        return {"schema_version": SCHEMA, "kind": kind, **data}
