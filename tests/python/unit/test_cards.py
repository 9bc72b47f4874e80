"""The catalogue of cards: every figure has a source, the figures agree, every name works."""

from __future__ import annotations

import itertools
import json
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memacct._errors import ConfigError
from memacct._units import GIB, MIB
from memacct.cards import Card, Reading, all_cards, context_readings, find_card, near_names
from memacct.cards.table import cards_table, sources_text
from memacct.planning import named_gpu

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[3] / "docs" / "cards.md"
SIZES = {"nvml_total_bytes", "cuda_total_bytes", "reserved_bytes", "l2_bytes", "context_bytes"}
TEXTS = {"driver_name", "compute_capability", "sm_count", "ecc"}
CAPABILITIES = {
    "Volta": {(7, 0)},
    "Turing": {(7, 5)},
    "Ampere": {(8, 0), (8, 6), (8, 7)},
    "Ada Lovelace": {(8, 9)},
    "Hopper": {(9, 0)},
    "Blackwell": {(10, 0), (10, 3), (11, 0), (12, 0), (12, 1)},
}
each_card = pytest.mark.parametrize("card", all_cards(), ids=lambda card: card.name)


def agreeing(*groups: tuple[Reading, ...]) -> Iterator[tuple[Reading, ...]]:
    """One reading of each group, where they are not of different ECC settings."""
    for readings in itertools.product(*groups):
        if len({each.ecc for each in readings} - {None}) <= 1:
            yield readings


def test_the_catalogue_is_there() -> None:
    assert len(all_cards()) >= 30


@each_card
def test_every_figure_is_known_and_has_a_source(card: Card) -> None:
    assert set(card.figures) <= SIZES | TEXTS
    for figure, readings in card.figures.items():
        assert readings, figure
        for reading in readings:
            assert re.fullmatch(r"https://[^\s]+", reading.source)
            assert reading.ecc in {None, "on", "off"}
            assert figure not in SIZES or reading.size_bytes > 0
    assert card.ecc in {None, "on", "off"}


def test_no_source_stands_there_for_nothing() -> None:
    text = resources.files("memacct.cards").joinpath("cards.json").read_text(encoding="utf-8")
    addresses = set(json.loads(text)["sources"].values())
    used = {r.source for card in all_cards() for each in card.figures.values() for r in each}
    assert addresses == used | {each.source for each in context_readings()}


def test_names_are_unique_and_each_finds_its_card() -> None:
    names = [(name, card) for card in all_cards() for name in (card.name, *card.aliases)]
    names += [(card.driver_name, card) for card in all_cards() if card.driver_name]
    plain = {(re.sub("[ _-]", "", name.lower()), card.name) for name, card in names}
    assert len({name for name, _ in plain}) == len(plain)
    for name, card in names:
        for spelt in (name, name.upper(), name.replace("-", "_"), f" {name} "):
            assert find_card(spelt) is card
    assert find_card("RTX 4090") is find_card("4090")
    assert find_card("h1") is None


@each_card
def test_cuda_has_no_more_than_nvml_leaves(card: Card) -> None:
    totals = (card.figures.get("nvml_total_bytes", ()), card.figures.get("cuda_total_bytes", ()))
    for nvml, cuda in agreeing(*totals):
        slack = nvml.precision_bytes + cuda.precision_bytes
        assert nvml.size_bytes + slack >= cuda.size_bytes
        # Ten per cent: no driver keeps more; another ECC setting or another card would.
        assert nvml.size_bytes * 0.9 <= cuda.size_bytes
    for nvml, cuda, kept in agreeing(*totals, card.figures.get("reserved_bytes", ())):
        # Read with different drivers, which keep up to some 0.1 GiB more or less.
        slack = nvml.precision_bytes + cuda.precision_bytes + kept.precision_bytes + 128 * MIB
        assert nvml.size_bytes - kept.size_bytes + slack >= cuda.size_bytes


@each_card
def test_the_totals_are_those_of_the_memory_in_the_title(card: Card) -> None:
    match = re.search(r"(\d+)GB", card.title)
    assert match is not None
    for figure in ("nvml_total_bytes", "cuda_total_bytes"):
        for reading in card.figures.get(figure, ()):
            # The boxes say GB for what is GiB (80) and for what is not (141, 180).
            assert 0.8 * int(match[1]) * GIB < reading.size_bytes <= 1.025 * int(match[1]) * GIB


@each_card
def test_the_capability_is_the_architecture_s(card: Card) -> None:
    told = {each.told for each in card.figures.get("compute_capability", ())}
    assert len(told) <= 1
    if card.compute_capability is not None:
        assert card.compute_capability in CAPABILITIES[card.architecture]


@each_card
def test_where_memory_is_the_machine_s_nvml_tells_no_total(card: Card) -> None:
    assert not (card.unified and card.nvml_total_bytes is not None)
    assert not card.unified or card.note is not None


def test_known_answers() -> None:
    h200 = find_card("h200")
    assert h200 is not None
    assert h200.driver_name == "NVIDIA H200"
    assert h200.nvml_total_bytes == 143771 * MIB
    assert h200.cuda_total_bytes == 143156 * MIB
    assert h200.reserved_bytes == 616 * MIB
    assert (h200.compute_capability, h200.sm_count, h200.l2_bytes) == ((9, 0), 132, 60 * MIB)
    assert (h200.ecc, h200.context_bytes) == ("on", None)
    ada = find_card("rtx6000ada")
    assert ada is not None
    assert ada.range_bytes("cuda_total_bytes") == (47706349240, 50865307648)
    assert ada.range_bytes("reserved_bytes") is None
    assert [each.size_bytes for each in context_readings()] == [287047680, 666632192]


@pytest.mark.parametrize(
    ("told", "size_bytes", "precision_bytes"),
    [
        ("81559 MiB", 81559 * MIB, MIB),
        ("79.11 GiB", 84943715697, 10737419),
        ("126.50 MiB", 126 * MIB + MIB // 2, 10486),
        ("40960 KiB", 40 * MIB, 1024),
        ("42298834944 B", 42298834944, 0),
    ],
)
def test_a_size_is_as_exact_as_it_is_printed(
    told: str, size_bytes: int, precision_bytes: int
) -> None:
    reading = Reading(told=told, source="https://example.org")
    assert (reading.size_bytes, reading.precision_bytes) == (size_bytes, precision_bytes)


@pytest.mark.parametrize("told", ["80GB", "80 GB", "79,11 GiB", "-1 MiB", "MiB", "NVIDIA L4"])
def test_what_is_not_a_size_is_an_error(told: str) -> None:
    with pytest.raises(ValueError, match="is not a size such as"):
        _ = Reading(told=told, source="https://example.org").size_bytes


@each_card
def test_a_plan_goes_by_every_name(card: Card) -> None:
    for name in (card.name, *card.aliases):
        gpu = named_gpu(name)
        cuda_bytes = card.cuda_total_bytes
        assert gpu.total_bytes == gpu.free_bytes == (cuda_bytes or card.nvml_total_bytes)
        assert ("NVML's total" in gpu.title) == (cuda_bytes is None)
        assert gpu.source.startswith("https://")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("24GiB", 24 * GIB), ("total=24GiB", 24 * GIB), (" total=1g ", GIB), (str(GIB), GIB)],
)
def test_a_plan_goes_by_a_size(text: str, size_bytes: int) -> None:
    assert named_gpu(text).total_bytes == size_bytes


@pytest.mark.parametrize(
    ("text", "near"),
    [("a100-90", "a100-80"), ("h1000", "h100"), ("RTX 4095", "rtx4090"), ("L4S", "l40s")],
)
def test_a_card_that_is_not_known_is_told_its_nearest(text: str, near: str) -> None:
    assert near in near_names(text)
    with pytest.raises(
        ConfigError, match=rf"known \(near: [^)]*{near}.*size such as 80GiB"
    ) as caught:
        named_gpu(text)
    assert "\n" not in str(caught.value)


def test_what_looks_like_no_card_is_told_all_of_them() -> None:
    assert near_names("banana") == []
    with pytest.raises(ConfigError) as caught:
        named_gpu("banana")
    assert all(card.name in str(caught.value) for card in all_cards())


@pytest.mark.parametrize("text", ["", "total=", "total=h100", "255MiB", "-80GiB"])
def test_what_is_neither_card_nor_size_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="size such as 80GiB"):
        named_gpu(text)


def test_the_page_has_these_figures_and_no_others() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert cards_table() in page, f"{PAGE.name} wants this table:\n{cards_table()}"
    assert sources_text() in page, f"{PAGE.name} wants these sources:\n{sources_text()}"
