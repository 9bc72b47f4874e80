"""What the bars are made of: a GPU's terms with its processes, and what binds on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memacct._printable import printable
from memacct._units import GIB
from memacct.look.bar import Part
from memacct.look.styled import PROCESS_STYLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct._core import CgroupLevel, ProcessMemory
    from memacct.look.look_types import Gpu, Holder, Look

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
UNATTRIBUTED, RESERVED, FREE, HELD, RECLAIMABLE = "?", "#", "·", "=", "-"


def gib(value: int | None) -> str:
    """Returns bytes as GiB with two decimals; ``?`` for unknown."""
    return "?" if value is None else f"{value / GIB:.2f}"


class Keys:
    """The letter and the colour of each process: the same as long as it is listed."""

    def __init__(self) -> None:
        self._slots: dict[tuple[int, int | None], int] = {}

    def update(self, look: Look) -> None:
        """Gives the new ones the lowest free slots, and takes those of the ended back."""
        listed = dict.fromkeys(_key(h) for gpu in look.gpus or () for h in gpu.processes)
        kept = {key: slot for key, slot in self._slots.items() if key in listed}
        free = iter(sorted(set(range(len(kept) + len(listed))) - set(kept.values())))
        self._slots = kept | {key: next(free) for key in listed if key not in kept}

    def letter(self, holder: Holder) -> str:
        """Returns its letter; processes beyond the alphabet share "*"."""
        slot = self._slots.get(_key(holder), len(_LETTERS))
        return _LETTERS[slot] if slot < len(_LETTERS) else "*"

    def style(self, holder: Holder) -> str:
        """Returns its colour: own and tree have theirs."""
        if holder.owner in ("own", "tree"):
            return holder.owner
        return PROCESS_STYLES[self._slots.get(_key(holder), 0) % len(PROCESS_STYLES)]


def _key(holder: Holder) -> tuple[int, int | None]:
    return (holder.pid, holder.start_ticks)


def gpu_parts(gpu: Gpu, keys: Keys) -> list[Part]:
    """Returns own, tree and foreign by process, then what is nobody's, reserved and free.

    What no term tells is drawn as unattributed, so that the bar is the whole device.
    """
    order = {"own": 0, "tree": 1}
    holders = sorted(gpu.processes, key=lambda h: (order.get(h.owner, 2), keys.letter(h)))
    parts = [
        Part(
            h.process_used_bytes or 0,
            keys.letter(h),
            keys.style(h),
            gib(h.process_used_bytes),
        )
        for h in holders
    ]
    parts += _host_parts(gpu)
    told = sum(max(part.size, 0) for part in parts) + (gpu.reserved_bytes or 0) + gpu.free_bytes
    nobodys = max(gpu.total_bytes - told, 0)
    return [
        *parts,
        Part(nobodys, UNATTRIBUTED, "unattributed", gib(nobodys)),
        Part(gpu.reserved_bytes or 0, RESERVED, "reserved", gib(gpu.reserved_bytes)),
        Part(gpu.free_bytes, FREE, "free", f"{gib(gpu.free_bytes)} free", hollow=True),
    ]


def _host_parts(gpu: Gpu) -> Iterator[Part]:
    """What the host has of a GPU whose memory is the machine's."""
    if gpu.unified is None or gpu.unified.kind != "integrated":
        return
    held, cache = gpu.unified.host_processes_bytes or 0, gpu.unified.page_cache_bytes or 0
    yield Part(held, HELD, "held", f"host {gib(held)}", keyed=False)
    yield Part(cache, RECLAIMABLE, "reclaimable", f"cache {gib(cache)}", keyed=False)


def gpu_terms(gpu: Gpu, *, picked: bool) -> list[tuple[str, int | None]]:
    """Returns the terms of the equation, by name; their sum is the total where all are known."""
    terms: list[tuple[str, int | None]] = [("free", gpu.free_bytes)]
    if picked:
        terms += [("own", gpu.own_bytes), ("tree", gpu.tree_bytes)]
    terms.append(("foreign" if picked else "processes", gpu.foreign_bytes))
    if gpu.unified is not None and gpu.unified.kind == "integrated":
        terms += [
            ("host", gpu.unified.host_processes_bytes),
            ("cache", gpu.unified.page_cache_bytes),
            ("withheld", gpu.unified.withheld_bytes),
        ]
    else:
        terms.append(("reserved", gpu.reserved_bytes))
    return [*terms, ("unattributed", gpu.unattributed_bytes)]


class Room(NamedTuple):
    """What binds the host's memory: limit = held + reclaimable + free, as far as it is known.

    Attributes:
        name: the machine, or the control group.
        held_bytes: what only its processes, or swap, can give back.
        reclaimable_bytes: page cache, which makes way.
    """

    name: str
    limit_bytes: int
    held_bytes: int | None
    reclaimable_bytes: int | None
    free_bytes: int | None


def room(look: Look) -> Room | None:
    """Returns the limit that leaves the least room; None where the machine's is not told."""
    limits = look.limits
    if limits is not None and limits.headroom_source not in (None, "machine"):
        level = _level(look, limits.headroom_path)
        if level is not None:
            return _group_room(level, limits.headroom_source == "cgroup_high")
    if look.system is None:
        return None
    total, available, free = (
        look.system.total_bytes,
        look.system.available_bytes,
        look.system.free_bytes,
    )
    if available is None:
        return Room(
            name="machine",
            limit_bytes=total,
            held_bytes=None,
            reclaimable_bytes=None,
            free_bytes=free,
        )
    # The kernel counts on a little less than what is free; it is not drawn twice.
    free = min(free, available)
    return Room(
        name="machine",
        limit_bytes=total,
        held_bytes=total - available,
        reclaimable_bytes=available - free,
        free_bytes=free,
    )


def _level(look: Look, path: str | None) -> CgroupLevel | None:
    levels = look.cgroup.levels if look.cgroup is not None else ()
    return next((level for level in levels if level.path == path), None)


def _group_room(level: CgroupLevel, high: bool) -> Room | None:
    candidates = [level.high_bytes] if high else [level.limit_bytes, level.memsw_limit_bytes]
    limit = min((each for each in candidates if each is not None), default=None)
    if limit is None:
        return None
    held, usage = level.uncached_usage_bytes, level.usage_bytes
    known = held is not None and usage is not None
    return Room(
        name=f"cgroup {level.path}",
        limit_bytes=limit,
        held_bytes=held,
        reclaimable_bytes=usage - held if known else None,  # type: ignore[operator]
        free_bytes=None if usage is None else max(limit - usage, 0),
    )


def room_parts(found: Room) -> list[Part]:
    """Returns held, reclaimable and free; what is not known is drawn as unattributed."""
    told = [found.held_bytes or 0, found.reclaimable_bytes or 0, found.free_bytes or 0]
    return [
        Part(told[0], HELD, "held", f"held {gib(found.held_bytes)}", keyed=False),
        Part(
            told[1],
            RECLAIMABLE,
            "reclaimable",
            f"reclaimable {gib(found.reclaimable_bytes)}",
            keyed=False,
        ),
        Part(max(found.limit_bytes - sum(told), 0), UNATTRIBUTED, "unattributed"),
        Part(told[2], FREE, "free", f"{gib(found.free_bytes)} free", hollow=True),
    ]


SORTS: dict[str, Callable[[tuple[str, Holder]], tuple[object, ...]]] = {
    "gpu": lambda row: (-(row[1].process_used_bytes or 0), row[1].pid),
    "rss": lambda row: (-(row[1].host.rss_bytes if row[1].host else 0), row[1].pid),
    "pid": lambda row: (row[1].pid, row[0]),
    "name": lambda row: (called(row[1]), row[1].pid),
}


def called(holder: Holder | ProcessMemory) -> str:
    """Returns what people know a process by: its role in an engine, else its command.

    Args:
        holder: a listed process, or a ``ProcessMemory``.
    """
    if holder.role not in (None, "python", "shell"):
        return printable(f"{holder.role} {holder.rank or ''}".rstrip())
    if not holder.title:
        return printable(f"[{holder.name}]") if holder.name else "?"
    program, space, arguments = holder.title.partition(" ")
    # Its folder is long, and seldom what tells two processes apart.
    if program.startswith("/"):
        program = program.rpartition("/")[2] or program
    return printable(f"{program}{space}{arguments}")
