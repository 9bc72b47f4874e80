"""A card with every figure that a machine needs: what no source tells is assumed, and says so."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from memacct._errors import ConfigError
from memacct._units import MIB, format_bytes
from memacct.cards.catalogue import Card, all_cards, find_card, known_names, near_names

if TYPE_CHECKING:
    from collections.abc import Mapping

_ON_NVLINK_BOARDS = {"h20", "gh200", "h100-nvl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledCard:
    """What a driver would tell of a card, as far as it is known, and assumptions for the rest.

    Attributes:
        card: whose.
        driver_name: its title where no source tells the name.
        total_bytes: by NVML; CUDA's where the memory is the machine's, of which NVML tells nothing.
        cuda_total_bytes: by CUDA.
        cuda_total_range_bytes: the least and the most that it may be: what sources tell, or what
            the totals of other cards of its architecture leave open.
        compute_capability: (9, 0) for a Hopper.
        sm_count: None if not known.
        l2_bytes: None if not known.
        peers: how several of them reach each other's memory: "nvlink", "pcie" or "none"; always an
            assumption, by the kind of card, as machines are built differently.
        sources: of each of these by its name: an address, or the assumption in words.
    """

    card: Card
    driver_name: str
    total_bytes: int
    cuda_total_bytes: int
    cuda_total_range_bytes: tuple[int, int]
    compute_capability: tuple[int, int]
    sm_count: int | None
    l2_bytes: int | None
    peers: Literal["nvlink", "pcie", "none"]
    sources: Mapping[str, str]


def filled_card(name: str | Card) -> FilledCard:
    """The card of that name with all figures.

    Raises:
        ConfigError: there is no such card.
    """
    card = name if isinstance(name, Card) else find_card(name)
    if card is None:
        raise ConfigError(f"gpu={name!r} is not {known_names(str(name))}")
    sources = {figure: readings[0].source for figure, readings in card.figures.items() if readings}
    sources["total_bytes"] = sources.pop("nvml_total_bytes", "")
    for figure in ("sm_count", "l2_bytes"):
        sources.setdefault(figure, "not known: the simulated driver tells an H100's")
    total, cuda_total, cuda_range = _totals(card, sources)
    if card.driver_name is None:
        sources["driver_name"] = "assumed: the title; no source tells the driver's name"
    return FilledCard(
        card=card,
        driver_name=card.driver_name or card.title,
        total_bytes=total,
        cuda_total_bytes=cuda_total,
        cuda_total_range_bytes=cuda_range,
        compute_capability=_capability(card, sources),
        sm_count=card.sm_count,
        l2_bytes=card.l2_bytes,
        peers=_peers(card),
        sources=sources,
    )


def _peers(card: Card) -> Literal["nvlink", "pcie", "none"]:
    """SXM boards are joined by NVLink; GeForce drivers give no peer access; others have PCIe's."""
    names = f"{card.title} {card.driver_name}"
    if "SXM" in names or card.name in _ON_NVLINK_BOARDS:
        return "nvlink"
    return "none" if card.unified or "GeForce" in names else "pcie"


def _totals(card: Card, sources: dict[str, str]) -> tuple[int, int, tuple[int, int]]:
    """NVML's total, CUDA's, and CUDA's range; one from the other where a source has only that."""
    total, cuda_total = card.nvml_total_bytes, card.cuda_total_bytes
    told = card.range_bytes("cuda_total_bytes")
    if card.unified and cuda_total is not None and told is not None:
        sources["total_bytes"] = "the machine's memory, as CUDA tells it: NVML tells no total"
        return cuda_total, cuda_total, told
    if total is not None and cuda_total is not None and told is not None:
        return total, cuda_total, told
    least, typical, most, whose = _kept(card.architecture)
    kept = f"{format_bytes(typical)} ({least / MIB:.0f} to {most / MIB:.0f} MiB), as {whose} keep"
    if total is not None:
        sources["cuda_total_bytes"] = f"assumed: NVML's total less {kept}"
        return total, total - typical, (total - most, total - least)
    if cuda_total is not None and told is not None:
        sources["total_bytes"] = f"assumed: CUDA's total and {kept}"
        return cuda_total + typical, cuda_total, told
    raise ConfigError(f"gpu={card.name!r}: no source tells a total of this card")


def _kept(architecture: str) -> tuple[int, int, int, str]:
    """What drivers keep of cards whose both totals are known: least, median, most; and whose."""
    of: dict[str, list[int]] = {}
    for card in all_cards():
        total, cuda_total = card.nvml_total_bytes, card.range_bytes("cuda_total_bytes")
        # A total by CUDA that is nearly NVML's, or above it, is from Windows.
        if total is not None and cuda_total is not None and total > cuda_total[1]:
            of.setdefault(card.architecture, []).append(total - (card.cuda_total_bytes or 0))
    own = of.get(architecture)
    kept = own or [each for some in of.values() for each in some]
    whose = f"{architecture} cards" if own else "other cards"
    return min(kept), int(statistics.median(kept)), max(kept), whose


def _capability(card: Card, sources: dict[str, str]) -> tuple[int, int]:
    if card.compute_capability is not None:
        return card.compute_capability
    alike = {
        each.name: each.compute_capability
        for each in all_cards()
        if each.architecture == card.architecture and each.compute_capability is not None
    }
    near = [name for name in near_names(card.name, len(all_cards())) if name in alike]
    nearest = (near or list(alike))[0]
    sources["compute_capability"] = f"assumed: as of the {nearest}"
    return alike[nearest]
