"""docs/cards.md's tables, made from the data: a test holds the page to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import GIB, MIB
from memacct.cards.catalogue import all_cards, context_readings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.cards.catalogue import Card
    from memacct.cards.readings import Reading

_HEADS = (
    "`--gpu`",
    "driver's name",
    "NVML, MiB",
    "CUDA, GiB",
    "reserved, MiB",
    "capability",
    "SMs",
    "L2, MiB",
    "context, MiB",
    "ECC",
)
_FIGURES = (
    ("driver_name", "name by the driver"),
    ("nvml_total_bytes", "total by NVML"),
    ("cuda_total_bytes", "total by CUDA"),
    ("reserved_bytes", "reserved"),
    ("compute_capability", "compute capability"),
    ("sm_count", "multiprocessors"),
    ("l2_bytes", "L2"),
    ("context_bytes", "CUDA context"),
    ("ecc", "ECC"),
)


def cards_table() -> str:
    """The cards, one a line; "–" is not known."""
    rows = [_row(card) for card in all_cards()]
    return "\n".join(["| " + " | ".join(_HEADS) + " |", "|---" * len(_HEADS) + "|", *rows])


def sources_text() -> str:
    """Every reading of every card with its conditions and its source."""
    parts = [_card_text(card) for card in all_cards()]
    contexts = "\n".join(f"- CUDA context: {_reading(each)}" for each in context_readings())
    return "\n\n".join([*parts, f"### Of a card that is not told\n\n{contexts}"])


def _row(card: Card) -> str:
    names = ", ".join(f"`{each}`" for each in (card.name, *card.aliases))
    capability = card.first("compute_capability")
    cells = (
        names,
        card.driver_name or "–",
        _sizes(card, "nvml_total_bytes", MIB, 0),
        _sizes(card, "cuda_total_bytes", GIB, 2),
        _sizes(card, "reserved_bytes", MIB, 0),
        capability.told if capability else "–",
        "–" if card.sm_count is None else str(card.sm_count),
        _sizes(card, "l2_bytes", MIB, 1),
        _sizes(card, "context_bytes", MIB, 0),
        card.ecc or "–",
    )
    return "| " + " | ".join(cells) + " |"


def _sizes(card: Card, figure: str, unit: int, decimals: int) -> str:
    """A size, or from the least to the most that is told."""
    found = card.range_bytes(figure)
    if found is None:
        return "–"
    texts = dict.fromkeys(f"{size / unit:.{decimals}f}" for size in found)
    return " to ".join(texts)


def _card_text(card: Card) -> str:
    lines = [f"### {card.title}", ""]
    if card.note is not None:
        lines += [card.note, ""]
    for figure, words in _FIGURES:
        readings = card.figures.get(figure, ())
        if readings:
            lines.append(f"- {words}: {_readings(readings)}")
    return "\n".join(lines)


def _readings(readings: Sequence[Reading]) -> str:
    return "; ".join(map(_reading, readings))


def _reading(reading: Reading) -> str:
    ecc = None if reading.ecc is None else f"ECC {reading.ecc}"
    about = ", ".join(each for each in (reading.conditions, ecc) if each)
    return f"[{reading.told}]({reading.source})" + (f" ({about})" if about else "")
