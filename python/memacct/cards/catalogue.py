"""The catalogue of cards: who is in it, by which names, and each card's figures."""

from __future__ import annotations

import difflib
import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from memacct.cards.readings import Reading, reading_from

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card that one can name.

    The properties give the first reading of each figure, the one to reckon with; the others
    are in `figures`. None: no source tells it.

    Attributes:
        name: for the command line.
        aliases: what else it may be called there.
        title: for people.
        architecture: NVIDIA's name of it.
        unified: its memory is the machine's (GB10, Jetson), and NVML tells no total.
        note: what to know before its figures are used; None where there is nothing.
        figures: the readings of each figure that is known.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    architecture: str
    unified: bool
    note: str | None
    figures: Mapping[str, tuple[Reading, ...]]

    def first(self, figure: str) -> Reading | None:
        """The reading of a figure to reckon with."""
        readings = self.figures.get(figure, ())
        return readings[0] if readings else None

    def range_bytes(self, figure: str) -> tuple[int, int] | None:
        """The least and the most that sources tell of a size."""
        sizes = [each.size_bytes for each in self.figures.get(figure, ())]
        return (min(sizes), max(sizes)) if sizes else None

    def _size(self, figure: str) -> int | None:
        reading = self.first(figure)
        return None if reading is None else reading.size_bytes

    def _told(self, figure: str) -> str | None:
        reading = self.first(figure)
        return None if reading is None else reading.told

    @property
    def driver_name(self) -> str | None:
        """The name as the driver gives it; engines choose kernels and batches by it."""
        return self._told("driver_name")

    @property
    def nvml_total_bytes(self) -> int | None:
        """memory.total of nvidia-smi: what the driver keeps for itself is in it."""
        return self._size("nvml_total_bytes")

    @property
    def cuda_total_bytes(self) -> int | None:
        """The total of cudaMemGetInfo and torch: what a utilization is a part of."""
        return self._size("cuda_total_bytes")

    @property
    def reserved_bytes(self) -> int | None:
        """What the driver and its firmware keep, by NVML; it changes from driver to driver."""
        return self._size("reserved_bytes")

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        """(9, 0) for a Hopper."""
        told = self._told("compute_capability")
        if told is None:
            return None
        major, minor = told.split(".")
        return int(major), int(minor)

    @property
    def sm_count(self) -> int | None:
        """Multiprocessors."""
        told = self._told("sm_count")
        return None if told is None else int(told)

    @property
    def l2_bytes(self) -> int | None:
        """The L2 cache."""
        return self._size("l2_bytes")

    @property
    def context_bytes(self) -> int | None:
        """A process's CUDA context; under the conditions that its reading names."""
        return self._size("context_bytes")

    @property
    def ecc(self) -> str | None:
        """How ECC was set where somebody looked: "on" or "off"."""
        return self._told("ecc")

    def engine_total(self) -> tuple[Reading, bool] | None:
        """The reading of what an engine takes its part of, and whether it is CUDA's.

        Where nobody tells CUDA's total it is NVML's, which is more by what the driver keeps.
        """
        cuda = self.first("cuda_total_bytes")
        reading = cuda or self.first("nvml_total_bytes")
        return None if reading is None else (reading, cuda is not None)


@functools.cache
def all_cards() -> tuple[Card, ...]:
    """Every card, in the order of the data file: data centre first."""
    data = _data()
    return tuple(_card(values, data["sources"]) for values in data["cards"])


@functools.cache
def context_readings() -> tuple[Reading, ...]:
    """What a CUDA context took where the source does not name the card."""
    data = _data()
    found = data["context_bytes_of_any_card"]
    return tuple(reading_from(values, data["sources"]) for values in found)


def find_card(name: str) -> Card | None:
    """The card of that name, alias or driver's name; case, blanks, - and _ do not matter."""
    wanted = _plain(name)
    for card in all_cards():
        driver = (card.driver_name,) if card.driver_name else ()
        if wanted in {_plain(each) for each in (card.name, *card.aliases, *driver)}:
            return card
    return None


def near_names(name: str, count: int = 3) -> list[str]:
    """Names of cards that look most like one that is not known; those it begins like first."""
    wanted = _plain(name)
    names = {_plain(each): card.name for card in all_cards() for each in (card.name, *card.aliases)}
    begins = [each for each in names if wanted and _common(each, wanted) >= min(3, len(wanted))]
    alike = difflib.get_close_matches(wanted, names, n=count, cutoff=0.5)
    return list(dict.fromkeys(names[each] for each in (*alike, *begins)))[:count]


def known_names(name: str) -> str:
    """What an unknown name could have been: "a card that is known (near: ...)", or all of them."""
    near = near_names(name)
    if near:
        return f"a card that is known (near: {', '.join(near)})"
    return f"one of {', '.join(card.name for card in all_cards())}"


def _plain(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", " -_"))


def _common(left: str, right: str) -> int:
    """How many letters two names begin alike with."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


@functools.cache
def _data() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("cards.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _card(values: Mapping[str, Any], sources: Mapping[str, str]) -> Card:
    figures = {
        figure: tuple(reading_from(each, sources) for each in readings)
        for figure, readings in values["figures"].items()
    }
    return Card(**{**values, "aliases": tuple(values["aliases"]), "figures": figures})
