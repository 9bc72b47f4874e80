"""The machine that a dry run is for: from a card's name or a size, with its sources."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from memacct._errors import ConfigError
from memacct._units import MIB, format_bytes, parse_bytes
from memacct.cards import filled_card, find_card, known_names

from .neighbours import held_bytes
from .request import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence

_SMALLEST_BYTES = 256 * MIB
_MOST_GPUS = 16  # of the simulated machine
_MODEL = "h100"  # whose identity a GPU of a given size has
_GIVEN = ("driver_name", "compute_capability", "sm_count", "l2_bytes")


def machine(
    gpu: str,
    count: int = 1,
    neighbours_bytes: Sequence[int] = (),
    *,
    nvlink: bool | None = None,
    driver: str | None = None,
    wsl: bool = False,
) -> Machine:
    """Returns the machine with such GPUs.

    Args:
        gpu: a card's name in the catalogue, or its memory: "80GiB", "total=80GiB".
        count: how many of them, at most 16.
        neighbours_bytes: what each other process holds on every GPU.
        nvlink: whether it joins the GPUs; default as cards of that name mostly are.
        driver: the version of NVIDIA's driver; default a recent one.
        wsl: below Windows.

    Raises:
        ConfigError: neither a known card nor a size; or a count or neighbours that cannot be.
    """
    made = _by_name(gpu) if find_card(gpu) is not None else _by_size(gpu)
    if not 1 <= count <= _MOST_GPUS:
        raise ConfigError(f"count={count} is not within 1 to {_MOST_GPUS}")
    held = sum(map(held_bytes, neighbours_bytes))
    if min(neighbours_bytes, default=0) < 0 or held > made["cuda_total_bytes"]:
        raise ConfigError(
            f"neighbours_bytes={tuple(neighbours_bytes)}: {format_bytes(held)} are not within the "
            f"{format_bytes(made['cuda_total_bytes'])} of the GPU"
        )
    return Machine(
        **made,
        count=count,
        neighbours_bytes=tuple(neighbours_bytes),
        nvlink=nvlink,
        driver=driver,
        wsl=wsl,
    )


def machine_settings(wanted: Machine) -> dict[str, Any]:
    """The arguments of `memacct.sim.SimulatedGpu` that make this machine, but its neighbours."""
    card = find_card(wanted.gpu)
    peers = filled_card(card or _MODEL).peers
    if wanted.nvlink is not None:
        peers = "nvlink" if wanted.nvlink else "none" if peers == "none" else "pcie"
    return {
        "count": wanted.count,
        "total_bytes": wanted.total_bytes,
        "cuda_total_bytes": wanted.cuda_total_bytes,
        "reserved_bytes": wanted.total_bytes - wanted.cuda_total_bytes,
        "name": wanted.driver_name,
        "compute_capability": wanted.compute_capability,
        "sm_count": wanted.sm_count,
        "l2_bytes": wanted.l2_bytes,
        "integrated": card is not None and card.unified,
        "peers": peers,
    }


def cuda_total_range_bytes(wanted: Machine) -> tuple[int, int]:
    """The least and the most that CUDA may tell as the total of such a GPU.

    Drivers and their settings differ by some hundred MiB; a size that is given is exact.
    """
    if find_card(wanted.gpu) is None:
        return wanted.cuda_total_bytes, wanted.cuda_total_bytes
    return filled_card(wanted.gpu).cuda_total_range_bytes


def _by_name(gpu: str) -> dict[str, Any]:
    filled = filled_card(gpu)
    values = {each.name: getattr(filled, each.name) for each in fields(filled)}
    card = filled.card
    for left_out in ("card", "cuda_total_range_bytes", "peers"):
        del values[left_out]
    return {**values, "gpu": card.name, "title": card.title}


def _by_size(gpu: str) -> dict[str, Any]:
    try:
        total = parse_bytes(gpu.strip().removeprefix("total="))
    except ValueError:
        total = 0
    if total < _SMALLEST_BYTES:
        raise ConfigError(f"gpu={gpu!r} is not {known_names(gpu)} nor a size such as 80GiB")
    like = filled_card(_MODEL)
    assumed = f"assumed: as of an {like.card.title}"
    sources = {"total_bytes": "as given", "cuda_total_bytes": "as given: what programs get"}
    return {
        "gpu": f"total={gpu.strip().removeprefix('total=')}",
        "title": f"a GPU of {format_bytes(total)}",
        "total_bytes": total,
        "cuda_total_bytes": total,
        **{name: getattr(like, name) for name in _GIVEN},
        "sources": {**sources, **dict.fromkeys(_GIVEN, assumed)},
    }
