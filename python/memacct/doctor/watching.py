"""Watches the GPUs for a while: who moves on them, and which one to start on."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct._sampler import Sampler
from memacct._units import format_bytes
from memacct.accounting.choosing import Share, share_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memacct._core import DeviceMemory
    from memacct._trace import Trace

_HZ = 20.0
_BUDGET_RATIO = 0.2  # of the time; the samples are few, and a driver may take milliseconds
_FIRST_SAMPLE_S = 10.0  # a GPU without persistence mode takes seconds to wake


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """Another process that moved.

    Attributes:
        pid: as the driver numbers it.
        name: "" where procfs does not have it under that number.
        change_bytes: from its first to its last sample; signed.
        moved_bytes: the sum of its moves, whichever way.
        moves_count: how many were seen.
    """

    pid: int
    name: str
    change_bytes: int
    moved_bytes: int
    moves_count: int

    def __str__(self) -> str:
        named = f"pid {self.pid} ({self.name or '?'})"
        sign = "+" if self.change_bytes > 0 else ""
        moves = f"{self.moves_count} move{'s' if self.moves_count != 1 else ''}"
        return f"{named} {sign}{format_bytes(self.change_bytes)} in {moves}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedGpu:
    """What was seen of one GPU, or MIG instance.

    Attributes:
        free_bytes: at the end.
        lowest_free_bytes, highest_free_bytes: meanwhile.
        promised_bytes: what starts by ``memacct run`` have reserved and not taken yet.
        foreign_change_bytes: of all listed others; None: the driver does not tell.
        movers: who moved, most first.
        share: what an engine could ask for there; None: nothing.
    """

    uuid: str
    index: int | None
    name: str
    total_bytes: int
    free_bytes: int
    lowest_free_bytes: int
    highest_free_bytes: int
    promised_bytes: int
    foreign_change_bytes: int | None
    samples_count: int
    movers: tuple[Mover, ...]
    share: Share | None

    @property
    def moved_bytes(self) -> int:
        """Between the most and the least that was free."""
        return self.highest_free_bytes - self.lowest_free_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of all GPUs; ``best`` is the one to start on, None if none has room."""

    watched_s: float
    gpus: tuple[WatchedGpu, ...]
    best: WatchedGpu | None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return {
            "watched_s": self.watched_s,
            "gpus": [{**asdict(gpu), "moved_bytes": gpu.moved_bytes} for gpu in self.gpus],
            "recommended_uuid": None if self.best is None else self.best.uuid,
        }


def observe(
    watch_s: float,
    promised: Mapping[str, int] | None = None,
    began: Callable[[], None] = lambda: None,
) -> Observation:
    """Samples all GPUs for so long and returns what was seen; makes no context.

    Args:
        watch_s: seconds.
        promised: what is reserved on each GPU, by UUID.
        began: is called once the first sample is there: what moves later is seen.

    Raises:
        SourceUnavailableError: there is no GPU that can be read.
    """
    devices = startable(_core.read_devices("all"))  # before sampling: it says why there is none
    sampler = Sampler(
        None,
        device_hz=_HZ,
        devices=[device.uuid for device in devices],
        driver_budget_ratio=_BUDGET_RATIO,
    )
    with sampler:
        _wait_for_a_sample(sampler)
        began()
        began_s = time.monotonic()
        time.sleep(watch_s)
    watched_s = time.monotonic() - began_s
    last = {device.uuid: device for device in _core.read_devices("all")}
    trace = sampler.trace()
    gpus = tuple(
        _gpu(last.get(device.uuid, device), trace, (promised or {}).get(device.uuid, 0))
        for device in devices
    )
    return Observation(watched_s=watched_s, gpus=gpus, best=_best(gpus))


def _wait_for_a_sample(sampler: Sampler) -> None:
    ends_s = time.monotonic() + _FIRST_SAMPLE_S
    while not len(sampler.trace().devices) and time.monotonic() < ends_s:
        time.sleep(1 / _HZ)


def startable(devices: tuple[DeviceMemory, ...]) -> tuple[DeviceMemory, ...]:
    """Returns those that a program can run on: of a divided GPU its instances."""
    divided = {device.parent_uuid for device in devices}
    return tuple(device for device in devices if device.uuid not in divided)


def _gpu(device: DeviceMemory, trace: Trace, promised_bytes: int) -> WatchedGpu:
    free = [device.free_bytes]
    movers: tuple[Mover, ...] = ()
    if any(each.uuid == device.uuid for each in trace.device_list):
        free += [int(value) for value in trace.column("devices", "free_bytes", device.uuid)]
        movers = _movers(trace, device.uuid)
    low, high = min(free), max(free)
    told = device.foreign_bytes is not None
    return WatchedGpu(
        uuid=device.uuid,
        index=device.index,
        name=device.name,
        total_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        lowest_free_bytes=low,
        highest_free_bytes=high,
        promised_bytes=promised_bytes,
        foreign_change_bytes=sum(mover.change_bytes for mover in movers) if told else None,
        samples_count=len(free) - 1,
        movers=movers,
        share=share_of(device.total_bytes, low, high - low, promised_bytes),
    )


def _movers(trace: Trace, uuid: str) -> tuple[Mover, ...]:
    moves: dict[int, list[tuple[int, str]]] = {}
    for event in trace.foreign_events(uuid):
        moves.setdefault(event.pid, []).append((event.change_bytes, event.name))
    found = [
        Mover(
            pid=pid,
            name=next((name for _, name in steps if name), ""),
            change_bytes=sum(change for change, _ in steps),
            moved_bytes=sum(abs(change) for change, _ in steps),
            moves_count=len(steps),
        )
        for pid, steps in moves.items()
    ]
    return tuple(sorted(found, key=lambda mover: (-mover.moved_bytes, mover.pid)))


def _best(gpus: tuple[WatchedGpu, ...]) -> WatchedGpu | None:
    """The one whose share is the largest, and of equals the first."""
    with_room = [(gpu.share.asked_bytes, gpu) for gpu in gpus if gpu.share is not None]
    return max(with_room, key=lambda pair: pair[0])[1] if with_room else None
