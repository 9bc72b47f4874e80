"""The GPU that a plan is for: one of this machine as it is now, a known card, or a size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct._units import MIB, parse_bytes
from memacct.cards import find_card, known_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct._core import DeviceMemory

_SMALLEST_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Somebody else's process on a GPU."""

    pid: int
    process_used_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Where the engine is to run.

    Attributes:
        title: for people.
        total_bytes: what a utilization is a part of.
        free_bytes: what is free of it; all of it on a card that is only named.
        holders: whose the rest is, largest first; empty where nobody is listed.
        live: it is a GPU of this machine, read now.
        source: where the total comes from.
    """

    title: str
    total_bytes: int
    free_bytes: int
    holders: tuple[Holder, ...] = ()
    live: bool = False
    source: str


def named_gpu(text: str) -> Gpu:
    """A card by name, or any by its size: "h100", "80GiB", "total=80GiB".

    Raises:
        ConfigError: neither a known name nor a size of 256 MiB and more.
    """
    card = find_card(text)
    found = None if card is None else card.engine_total()
    if card is not None and found is not None:
        reading, by_cuda = found
        total = reading.size_bytes
        # Where only NVML's total is known: it is what the driver keeps more than an engine gets.
        title = card.title if by_cuda else f"{card.title} (NVML's total; CUDA's is a little less)"
        return Gpu(title=title, total_bytes=total, free_bytes=total, source=reading.source)
    try:
        total = parse_bytes(text.strip().removeprefix("total="))
    except ValueError:
        total = 0
    if total < _SMALLEST_BYTES:
        known = known_names(text)
        raise ConfigError(f"--gpu {text!r} is neither 'free' nor {known} nor a size such as 80GiB")
    return Gpu(title="a GPU of that size", total_bytes=total, free_bytes=total, source="as given")


def live_gpu(devices: Sequence[DeviceMemory], index: int) -> Gpu:
    """A GPU of this machine as it was just read.

    Raises:
        ConfigError: there is no such GPU.
    """
    found = next((each for each in devices if each.index == index), None)
    if found is None:
        have = ", ".join(str(each.index) for each in devices) or "none"
        raise ConfigError(f"--device {index}: this machine's GPUs are {have}")
    holders = [
        Holder(pid=each.pid, process_used_bytes=each.process_used_bytes)
        for each in found.processes
        if each.owner != "own"
    ]
    holders.sort(key=lambda each: -(each.process_used_bytes or 0))
    # CUDA's total, which the engine takes its part of, leaves out what the driver reserves.
    total = found.cuda_total_bytes or found.total_bytes - (found.reserved_bytes or 0)
    return Gpu(
        title=f"GPU {found.index} {found.name}",
        total_bytes=total,
        free_bytes=found.free_bytes,
        holders=tuple(holders),
        live=True,
        source="this machine, now",
    )
