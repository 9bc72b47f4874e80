"""Reads the machine, or one process on it, again and again, and remembers who is who."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from memacct import _core
from memacct._errors import ConfigError, SourceUnavailableError
from memacct.look.devices import chosen_uuids, labels
from memacct.look.division import gpu_of
from memacct.look.look_types import Look

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from memacct._core import (
        DeviceMemory,
        Mappings,
        ProcessMemory,
        TreeMember,
        TreeSnapshot,
    )
    from memacct.look.look_types import Gpu, Numbers

HostTier = Literal["counters", "breakdown", "rollup", "mappings"]
TIERS: tuple[HostTier, ...] = ("counters", "breakdown", "rollup", "mappings")


class Reader:
    """Looks at the machine from outside: holds no GPU memory and makes no context.

    Args:
        devices: "auto", "all", "none", or indices and UUIDs with commas between. With "auto"
            a process is shown with the GPUs on which it or its descendants are listed.
        host: how much is read of a process's host memory.
        tree: whether the descendants of the process are read too.

    Raises:
        ConfigError: there is no such tier.
    """

    def __init__(
        self, devices: str = "auto", *, host: HostTier = "breakdown", tree: bool = False
    ) -> None:
        if host not in TIERS:
            raise ConfigError(f"--host: {host!r} is not one of {', '.join(TIERS)}")
        self._devices = devices
        self._tier = host
        self._tree = tree
        self._roster = Roster("rollup" if host == "mappings" else host)

    def read(self, pid: int | None = None) -> Look:
        """Returns one look.

        Args:
            pid: the process that own and tree are about; None: the machine.

        Raises:
            ValueError: there is no such process.
            ConfigError: there is no such device.
            SourceError: procfs could not be read.
        """
        machine = _core.snapshot("counters", None, limits=True)
        # Before the GPUs: a process that is not there is the caller's mistake, told first.
        family = self._family(pid)
        gpus, reason = self._gpus()
        views, numbers = self._views(gpus or (), pid, family)
        cgroup = machine.cgroup if pid is None else _core.read_cgroup(pid=pid)
        return Look(
            taken_ns=machine.taken_ns,
            span_ns=_core.monotonic_ns() - machine.taken_ns,
            pid=pid,
            numbers=numbers,
            gpus=None if gpus is None else views,
            gpus_reason=reason,
            gpus_notes=() if gpus is None else _core.driver_diagnosis()["notes"],
            process=family.root,
            tree=family.tree,
            mappings=family.mappings,
            system=machine.system,
            cgroup=cgroup,
            limits=machine.limits if pid is None else _core.find_limits(cgroup, machine.system),
        )

    def _views(
        self, gpus: Sequence[DeviceMemory], pid: int | None, family: Family
    ) -> tuple[tuple[Gpu, ...], Numbers]:
        seen = {each.pid for device in gpus for each in device.processes}
        known, numbers = self._roster.look_up(seen)
        named = labels(gpus)
        views = tuple(
            gpu_of(device, label=name, numbers=numbers, known=known, pid=pid, family=family.pids)
            for device, name in zip(gpus, named, strict=True)
        )
        if pid is not None and self._devices == "auto" and numbers != "others":
            mine = {pid, *family.pids}
            views = tuple(gpu for gpu in views if any(h.pid in mine for h in gpu.processes))
        return views, numbers

    def _gpus(self) -> tuple[tuple[DeviceMemory, ...] | None, str]:
        if self._devices == "none":
            return None, ""
        try:
            uuids = chosen_uuids(self._devices)
            return _core.read_devices("all" if uuids is None else uuids), ""
        except SourceUnavailableError as error:
            return None, error.reason

    def _family(self, pid: int | None) -> Family:
        if pid is None:
            return Family(None, None, None)
        tier: Literal["counters", "breakdown", "rollup"] = (
            "rollup" if self._tier == "mappings" else self._tier
        )
        if self._tree:
            tree = _core.snapshot_tree(pid, host=tier)
            root = tree.processes[0]
        else:
            members = _core._find_members([pid])  # noqa: SLF001 (the step before the sums)
            tree = _core._read_members(members, "counters")  # noqa: SLF001
            root = _core._read_members(members[:1], tier).processes[0]  # noqa: SLF001
        mappings = _core.read_mappings(pid) if self._tier == "mappings" else None
        return Family(root, tree, mappings, shown=self._tree)


class Family:
    """The process that was asked for, with its descendants."""

    def __init__(
        self,
        root: ProcessMemory | None,
        tree: TreeSnapshot | None,
        mappings: Mappings | None,
        *,
        shown: bool = False,
    ) -> None:
        self.root = root
        self.tree = tree if shown else None
        self.mappings = mappings
        self.pids: frozenset[int] = frozenset(
            each.pid for each in (tree.processes if tree else ()) if each.depth > 0
        )


class Roster:
    """Who the listed processes are, asked of procfs once while each stays listed.

    A number that is listed again after a pause may be another process's, and is asked for anew.
    One that ends keeps its name until it is off the list.
    """

    def __init__(self, tier: Literal["counters", "breakdown", "rollup"]) -> None:
        self._tier = tier
        self._members: dict[int, TreeMember | None] = {}
        self._last: dict[int, ProcessMemory] = {}
        self._initial: bool | None = None

    def look_up(self, pids: Collection[int]) -> tuple[dict[int, ProcessMemory], Numbers]:
        """Returns what is known of each listed process, and whose numbers these are."""
        self._members = {pid: each for pid, each in self._members.items() if pid in pids}
        new = [pid for pid in pids if pid not in self._members]
        self._members |= dict.fromkeys(new) | {each.pid: each for each in _find(new)}
        numbers = self._numbers()
        if numbers == "others":
            return {}, numbers
        found = [each for each in self._members.values() if each is not None]
        read = _core._read_members(found, self._tier).processes if found else ()  # noqa: SLF001
        now = {each.pid: each for each in read}
        self._last = {
            pid: self._last.get(pid, each) if each.state == "gone" else each
            for pid, each in now.items()
        }
        return self._last, numbers

    def _numbers(self) -> Numbers:
        if self._initial is None:
            about = _core.driver_diagnosis()["process"]
            self._initial = (
                about["initial_pid_namespace"] is True and about["pid"] == about["procfs_pid"]
            )
        if self._initial:
            return "ours"
        return "others" if None in self._members.values() else "perhaps"


def _find(pids: Iterable[int]) -> list[TreeMember]:
    """The processes of these numbers; those that have ended are left out."""
    wanted = sorted(pids)
    if not wanted:
        return []
    try:
        found = _core._find_members(wanted)  # noqa: SLF001 (the sums of the tree are not wanted)
    except (ValueError, SourceUnavailableError):
        if len(wanted) == 1:
            return []
        return [each for pid in wanted for each in _find([pid])]
    return [each for each in found if each.pid in set(wanted)]
