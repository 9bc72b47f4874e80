"""The machine of a dry run: known cards, sizes, what is assumed and says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memacct._errors import ConfigError
from memacct._units import GIB, MIB
from memacct.cards import all_cards, filled_card
from memacct.dry_run.machine import cuda_total_range_bytes, machine, machine_settings

FIGURES = ("driver_name", "total_bytes", "cuda_total_bytes", "compute_capability")


def test_a_card_that_is_known_in_full() -> None:
    found = machine("A100", count=2, neighbours_bytes=(GIB,))
    assert (found.gpu, found.title, found.count) == ("a100-80", "A100 80GB SXM", 2)
    assert found.driver_name == "NVIDIA A100-SXM4-80GB"
    assert (found.total_bytes, found.cuda_total_bytes) == (81920 * MIB, round(79.25 * GIB))
    assert (found.compute_capability, found.sm_count) == ((8, 0), 108)
    assert found.neighbours_bytes == (GIB,)
    assert found.sources["sm_count"].startswith("https://gist.github.com/")
    settings = machine_settings(found)
    assert settings["total_bytes"] - settings["reserved_bytes"] == settings["cuda_total_bytes"]
    assert settings["integrated"] is False


@pytest.mark.parametrize("card", all_cards(), ids=lambda card: card.name)
def test_every_card_makes_a_machine_and_every_figure_says_from_where(card: object) -> None:
    filled = filled_card(card)  # type: ignore[arg-type]
    found = machine(filled.card.name)
    assert 0 < found.cuda_total_bytes <= found.total_bytes
    for figure in (*FIGURES, "sm_count", "l2_bytes"):
        told = "nvml_total_bytes" if figure == "total_bytes" else figure
        known = told in filled.card.figures
        assert found.sources[figure].startswith("https://") == known, figure
    low, high = cuda_total_range_bytes(found)
    assert low <= found.cuda_total_bytes <= high


def test_a_total_that_no_source_tells_comes_from_cards_of_its_generation() -> None:
    found = machine("h20")  # NVML 97871 MiB; the other Hoppers keep 550 to 616 MiB
    kept = found.total_bytes - found.cuda_total_bytes
    assert 550 * MIB < kept < 616 * MIB
    assert "as Hopper cards keep" in found.sources["cuda_total_bytes"]
    low, high = cuda_total_range_bytes(found)
    assert low < found.cuda_total_bytes < high
    assert "assumed: CUDA's total and" in machine("a40").sources["total_bytes"]
    assert machine("a10g").compute_capability == (8, 6)
    assert machine("a10g").sources["compute_capability"] == "assumed: as of the a10"


@pytest.mark.parametrize("text", ["80GiB", "total=80GiB"])
def test_a_size_has_an_h100s_identity(text: str) -> None:
    found = machine(text)
    assert found.gpu == "total=80GiB"
    assert found.total_bytes == found.cuda_total_bytes == 80 * GIB
    assert (found.compute_capability, found.sm_count) == ((9, 0), 132)
    assert found.sources["total_bytes"] == "as given"
    assert found.sources["sm_count"].startswith("assumed")
    assert cuda_total_range_bytes(found) == (80 * GIB, 80 * GIB)


def test_unified_memory_is_all_the_machines() -> None:
    found = machine("gb10")
    assert found.total_bytes == found.cuda_total_bytes
    assert machine_settings(found)["integrated"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gpu": "h10"}, r"gpu='h10' is not a card that is known \(near: h100.*\) nor a size"),
        ({"gpu": "zzz"}, "gpu='zzz' is not one of h100, .* nor a size such as 80GiB"),
        ({"gpu": "80MiB"}, "gpu='80MiB' is not"),
        ({"gpu": "h100", "count": 0}, "count=0 is not within 1 to 16"),
        ({"gpu": "l4", "neighbours_bytes": (20 * GIB, 2 * GIB)}, "22.00 GiB are not within"),
        # Each takes a page of 2 MiB.
        ({"gpu": "1GiB", "neighbours_bytes": (1,) * 513}, "1.00 GiB are not within"),
    ],
)
def test_what_is_no_machine_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        machine(**arguments)  # type: ignore[arg-type]


def test_peers_are_as_told_else_as_such_cards_mostly_are() -> None:
    def peers(gpu: str, nvlink: bool | None = None) -> object:
        return machine_settings(replace(machine(gpu, 2), nvlink=nvlink))["peers"]

    assert [peers(gpu) for gpu in ("h100", "l4", "rtx4090", "80GiB")] == [
        "nvlink", "pcie", "none", "nvlink",
    ]  # fmt: skip
    assert (peers("h100", False), peers("a40", True)) == ("pcie", "nvlink")
    assert peers("rtx4090", False) == "none"
