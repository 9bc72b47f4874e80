"""What is known of the costs of a machine: readings, a user's measurement, and ranges."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest
from dry_runs import a_request
from hypothesis import given
from hypothesis import strategies as st

from memacct._errors import ConfigError
from memacct._units import GIB, MIB
from memacct.cards import find_card
from memacct.cards.readings import Reading
from memacct.dry_run.calibration_file import (
    Calibration,
    default_path,
    read_calibrations,
    write_calibration,
)
from memacct.dry_run.costs import Costs, known_costs
from memacct.dry_run.machine import cuda_total_range_bytes, machine
from memacct.dry_run.ranges import ENGINE_BYTES, widen, with_ranges
from memacct.dry_run.result import Amount, Count, DryRun, Rank, Refusal, Row

if TYPE_CHECKING:
    from pathlib import Path

H100 = machine("h100")


@pytest.fixture(autouse=True)
def _no_measurement_of_this_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def of(gpu: str, **options: object) -> Costs:
    return known_costs(machine(gpu), **{"tensor_parallel_size": 1, **options})  # type: ignore[arg-type]


def exact(value: int) -> Amount:
    return Amount(bytes=value, low_bytes=value, high_bytes=value, source="given")


def open_amount(less: int, value: int, more: int) -> Amount:
    return Amount(bytes=value, low_bytes=value - less, high_bytes=value + more, source="given")


def all_alike(amount: Amount) -> Costs:
    values: dict[str, Any] = dict.fromkeys(of("h100").terms(), amount)
    return Costs(**values)


NOTHING = all_alike(exact(0))


# ---- readings


def test_every_reading_has_its_source_its_conditions_and_a_size() -> None:
    data = json.loads((resources.files("memacct.dry_run") / "costs.json").read_text())
    readings = [each for found in data["readings"].values() for each in found]
    assert {each["source"] for each in readings} == set(data["sources"])
    for each in readings:
        assert Reading(told=each["told"], source=each["source"]).size_bytes >= 0
        assert each["conditions"]
        assert "card" not in each or find_card(each["card"]) is not None
    # Where no address is known, the text by which it is found.
    assert all(told.startswith(("https://", "a ")) for told in data["sources"].values())


@pytest.mark.parametrize("gpu", ["h100", "a100-80", "l40s", "l4", "t4", "rtx5090", "b200", "80GiB"])
@pytest.mark.parametrize("nvlink", [None, True, False])
@pytest.mark.parametrize("wsl", [True, False])
def test_every_term_is_within_its_range_and_names_its_source(
    gpu: str, nvlink: bool | None, wsl: bool
) -> None:
    costs = of(gpu, tensor_parallel_size=2, nvlink=nvlink, wsl=wsl)
    for name, amount in costs.terms().items():
        assert 0 <= amount.low_bytes <= amount.bytes <= amount.high_bytes, name
        assert amount.source, name


def test_a_card_that_was_read_has_its_own_reading() -> None:
    assert of("h100").kernels.bytes == round(0.25 * GIB)
    assert "of this card" in of("h100").kernels.source


def test_an_older_engine_has_its_own_readings() -> None:
    assert of("h100", vllm="0.11.0").kernels.bytes == round(0.14 * GIB)
    assert of("h100", vllm="0.33.0").kernels == of("h100").kernels
    old, new = (
        of("h100", vllm=v, tensor_parallel_size=2).collectives for v in ("0.11.0", "0.19.0")
    )
    assert old.bytes < new.bytes


def test_only_generations_that_fuse_all_reduce_have_its_workspaces() -> None:
    hopper, ampere = (of(gpu, tensor_parallel_size=2).collectives for gpu in ("h200", "a100-80"))
    assert hopper.bytes > ampere.bytes


def test_what_is_not_known_of_a_card_is_a_wider_range() -> None:
    known, guessed = of("h100").kernels, of("t4").kernels
    assert guessed.high_bytes - guessed.low_bytes > known.high_bytes - known.low_bytes
    assert "any card" in guessed.source


def test_a_size_says_that_its_card_is_not_known() -> None:
    assert any("card is not known" in note for note in of("80GiB").notes)
    assert not any("card is not known" in note for note in of("h100").notes)


def test_one_gpu_has_no_communicator() -> None:
    alone = of("h100")
    assert (alone.nccl_first.high_bytes, alone.collectives.high_bytes) == (0, 0)


def test_stages_of_a_pipeline_may_load_fewer_kernels_within_the_budget() -> None:
    alone, stages, shared = (
        of("h100", tensor_parallel_size=tp, gpus_count=count).kernels
        for tp, count in ((1, 1), (1, 2), (2, 2))
    )
    assert stages.low_bytes < round(0.07 * GIB) < alone.low_bytes
    assert stages.high_bytes == alone.high_bytes
    assert shared == alone


def test_older_all_reduce_is_the_second_communicator_alone() -> None:
    old = of("h100", vllm="0.11.0", tensor_parallel_size=2)
    told = round(0.55 * GIB)  # of non-torch memory, by the public table for two GPUs
    sum_of = {
        name: sum(getattr(old[term], name) for term in ("kernels", "nccl_first", "collectives"))
        for old in (old.terms(),)
        for name in ("low_bytes", "high_bytes")
    }
    assert sum_of["low_bytes"] <= told <= sum_of["high_bytes"]


def test_nvlink_costs_more_and_not_knowing_it_spans_both() -> None:
    joined, apart, unknown = (
        of("a40", tensor_parallel_size=4, nvlink=nvlink) for nvlink in (True, False, None)
    )
    assert joined.nccl_first.bytes > apart.nccl_first.high_bytes
    assert unknown.nccl_first.high_bytes >= joined.nccl_first.bytes
    assert unknown.nccl_first.low_bytes <= apart.nccl_first.bytes
    assert any("NVLink" in note for note in unknown.notes)


def test_graphs_cost_more_below_driver_550() -> None:
    old, new = of("a10", driver="535.183.01"), of("a10", driver="550.54.15")
    assert old.graph_node.bytes == 64 * 1024
    assert new.graph_node.high_bytes < old.graph_node.bytes
    assert of("a10").graph_node == new.graph_node


def test_graphs_are_the_drivers_and_alike_on_all_cards() -> None:
    nodes = [of(gpu).graph_node for gpu in ("h100", "t4", "rtx4090", "80GiB")]
    assert nodes == [nodes[0]] * 4
    assert 0 <= nodes[0].low_bytes < nodes[0].bytes < nodes[0].high_bytes


def test_windows_costs_only_there() -> None:
    assert of("rtx5090").wsl.high_bytes == 0
    assert of("rtx5090", wsl=True).wsl.high_bytes > 0


def test_cards_that_are_sold_joined_need_not_be_told_so() -> None:
    assert of("h100", tensor_parallel_size=2) == of("h100", tensor_parallel_size=2, nvlink=True)
    assert of("l4", tensor_parallel_size=2) == of("l4", tensor_parallel_size=2, nvlink=False)


def test_the_simulated_gpu_is_told_the_central_values() -> None:
    costs = of("rtx5090", wsl=True, tensor_parallel_size=2, nvlink=False)
    told = costs.simulated()
    within = costs.kernels.bytes + costs.collectives.bytes + costs.wsl_later.bytes
    # What comes before an engine's first reading is on top.
    early = 3 * -(-within // 32)
    assert told.kernels_limit_bytes == within + early
    assert told.graph_node_bytes == costs.graph_node.bytes
    assert told.nccl_first_bytes == costs.nccl_first.bytes
    assert costs.simulated_context_bytes == costs.context.bytes + costs.wsl.bytes


# ---- a measurement of the user's own


def measured(card: str = H100.driver_name, **changes: object) -> Calibration:
    values = {
        "card": card,
        "driver": "580.65.06",
        "torch": "2.14.0+cu130",
        "cuda": "13.0",
        "vllm": "0.33.0",
        "when": "2026-11-22T09:00:00+00:00",
        "gpus": 1,
        "wsl": False,
        "figures": {"kernels": open_amount(1 * MIB, 77 * MIB, 2 * MIB)},
    }
    return Calibration(**{**values, **changes})  # type: ignore[arg-type]


def test_a_measurement_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    write_calibration(path, measured())
    costs = of("h100", calibration=path, driver="580.82.07", torch="2.14.1")
    public = of("h100")
    assert costs.kernels == measured().figures["kernels"]
    assert costs.context == public.context
    assert any("measured 2026-11-22" in note for note in costs.notes)


def test_the_users_own_file_is_found_without_being_named() -> None:
    write_calibration(default_path(), measured())
    assert of("h100").kernels.bytes == 77 * MIB
    assert of("a100-80").kernels.bytes != 77 * MIB


@pytest.mark.parametrize("other", [{"torch": "2.11.0"}, {"driver": "550.54.15"}, {"cuda": "12.8"}])
def test_of_another_driver_or_torch_it_is_wider(tmp_path: Path, other: dict[str, str]) -> None:
    path = tmp_path / "mine.json"
    write_calibration(path, measured())
    found = of("h100", calibration=path, **other).kernels
    assert (found.bytes, found.low_bytes, found.high_bytes) == (77 * MIB, 38 * MIB, 158 * MIB)


def test_the_entry_that_differs_least_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    other = measured(torch="2.11.0", figures={"kernels": exact(5 * MIB)})
    for one in (measured(), other):
        write_calibration(path, one)
    assert of("h100", calibration=path, torch="2.14.0").kernels.bytes == 77 * MIB
    assert of("h100", calibration=path, torch="2.11.0").kernels.bytes == 5 * MIB


def test_the_same_card_driver_and_torch_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    write_calibration(path, measured())
    write_calibration(path, measured(figures={"kernels": exact(5 * MIB)}))
    write_calibration(path, measured(card="NVIDIA L4"))
    assert [one.card for one in read_calibrations(path)] == [H100.driver_name, "NVIDIA L4"]
    assert of("h100", calibration=path).kernels.bytes == 5 * MIB


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 1, "entries": [{"card": 1}]}',
        '{"schema_version": 1, "entries": [{"figures": []}]}',
        '{"schema_version": 9}',
    ],
)
def test_another_file_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"other\.json"):
        of("h100", calibration=path)


def test_a_later_schema_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "later.json"
    path.write_text('{"schema_version": 2, "entries": [{"figures": {"kernels": 5}}]}')
    with pytest.raises(ConfigError, match="has schema_version 2, not 1"):
        of("h100", calibration=path)


def test_what_is_to_be_known_of_a_measurement_is_told_with_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    write_calibration(path, measured(notes=("by the whole GPU",)))
    for torch in ("2.14.0", "2.11.0"):
        assert "by the whole GPU" in of("h100", calibration=path, torch=torch).notes


def test_one_gpu_has_no_communicator_whatever_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    figures = {"nccl": exact(90 * MIB), "nccl_first": exact(200 * MIB)}
    write_calibration(path, measured(gpus=2, figures=figures))
    alone, two = (of("h100", calibration=path, tensor_parallel_size=each) for each in (1, 2))
    assert (alone.nccl.bytes, alone.nccl_first.bytes) == (0, 0)
    assert (two.nccl.bytes, two.nccl_first.bytes) == (90 * MIB, 200 * MIB)


def test_a_figure_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    write_calibration(path, measured(figures={"apples": exact(3)}))
    with pytest.raises(ConfigError, match="apples"):
        of("h100", calibration=path)


def test_a_file_without_the_card_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    write_calibration(path, measured(card="NVIDIA L4"))
    with pytest.raises(ConfigError, match="H100"):
        of("h100", calibration=path)
    with pytest.raises(ConfigError, match=r"none\.json"):
        of("h100", calibration=tmp_path / "none.json")


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.json"
    write_calibration(path, measured())
    assert json.loads(path.read_text())["schema_version"] == 1
    assert read_calibrations(path) == (measured(),)


# ---- ranges


RANK = Rank(
    rank=0,
    device=0,
    total_bytes=H100.cuda_total_bytes,
    requested_bytes=0,
    non_torch=exact(200 * MIB),
    graphs=exact(500 * MIB),
    graphs_estimated=exact(400 * MIB),
    graphs_driver_bytes=100 * MIB,
    kv_cache=exact(10 * GIB),
    context=exact(400 * MIB),
    started=(
        Row(name="KV cache", amount=exact(10 * GIB)),
        Row(name="weights", amount=exact(GIB)),
    ),
)


def test_with_exact_costs_only_the_engine_itself_is_left_open() -> None:
    found = widen(RANK, NOTHING, machine=H100)
    assert found.kv_cache is not None
    assert found.kv_cache.low_bytes == 10 * GIB - ENGINE_BYTES
    assert found.kv_cache.high_bytes == 10 * GIB + ENGINE_BYTES
    assert found.non_torch == RANK.non_torch


def test_what_costs_more_leaves_less_cache() -> None:
    costs = replace(NOTHING, kernels=open_amount(0, 100 * MIB, 3 * GIB))
    found = widen(RANK, costs, machine=H100)
    assert found.kv_cache is not None
    assert found.kv_cache.low_bytes == pytest.approx(7 * GIB, rel=1e-3)
    assert found.kv_cache.high_bytes == 10 * GIB + ENGINE_BYTES
    assert found.non_torch is not None
    assert found.non_torch.high_bytes == 200 * MIB + 3 * GIB


def test_different_causes_add_up_in_quadrature_and_one_cause_linearly() -> None:
    kernels, later = open_amount(0, 0, 3 * GIB), open_amount(0, 0, 4 * GIB)
    apart = widen(RANK, replace(NOTHING, kernels=kernels, collectives=later), machine=H100)
    together = widen(RANK, replace(NOTHING, kernels=kernels, wsl_later=later), machine=H100)
    assert apart.non_torch is not None
    assert together.non_torch is not None
    assert apart.non_torch.high_bytes == 200 * MIB + 5 * GIB
    assert together.non_torch.high_bytes == 200 * MIB + 7 * GIB


def test_graphs_are_open_in_proportion_to_what_the_driver_took() -> None:
    costs = replace(NOTHING, graph_node=open_amount(5, 10, 20))
    found = widen(RANK, costs, machine=H100)
    assert found.graphs is not None
    assert (found.graphs.low_bytes, found.graphs.high_bytes) == (450 * MIB, 700 * MIB)


def test_the_context_is_outside_the_budget() -> None:
    costs = replace(NOTHING, context=open_amount(GIB, 2 * GIB, GIB))
    found = widen(RANK, costs, machine=H100)
    assert found.kv_cache == widen(RANK, NOTHING, machine=H100).kv_cache
    assert found.context is not None
    assert found.context.high_bytes == 400 * MIB + GIB


def test_the_cards_total_leaves_its_part_open() -> None:
    rank = replace(RANK, requested_bytes=H100.cuda_total_bytes // 2)
    found = widen(rank, NOTHING, machine=H100)
    assert found.kv_cache is not None
    assert found.kv_cache.high_bytes > 10 * GIB + ENGINE_BYTES


def a_run(**changed: object) -> DryRun:
    return DryRun(
        **{  # type: ignore[arg-type]
            "request": replace(a_request(), machine=H100),
            "verdict": "starts",
            "versions": {},
            "settings": {},
            "ranks": (RANK,),
            "kv_tokens": Count(value=1000.0, low=1000.0, high=1000.0),
            **changed,
        }
    )


def test_tokens_are_in_proportion_to_the_room() -> None:
    costs = replace(NOTHING, kernels=open_amount(0, 0, 5 * GIB))
    found = with_ranges(a_run(), costs).kv_tokens
    assert found is not None
    assert found.value == 1000.0
    assert found.low == pytest.approx(500, rel=1e-3)


def test_of_two_stages_the_one_with_the_smaller_blocks_decides() -> None:
    costs = replace(NOTHING, kernels=open_amount(0, 0, 2 * GIB))
    small = replace(RANK, rank=1, kv_cache=exact(4 * GIB))
    for ranks in ((RANK, small), (small, RANK)):
        found = with_ranges(a_run(ranks=ranks), costs).kv_tokens
        assert found is not None
        assert found.low == pytest.approx(500, rel=1e-3), "2 of 4 GiB"
        assert found.high == pytest.approx(1000 * (1 + ENGINE_BYTES / (10 * GIB)))


def test_an_engine_that_hardly_starts_is_told_to_be_one() -> None:
    costs = replace(NOTHING, kernels=open_amount(0, 0, 11 * GIB), notes=("of costs",))
    found = with_ranges(a_run(notes=("of the run",)), costs)
    assert found.notes[:2] == ("of the run", "of costs")
    assert any("may not start" in note for note in found.notes)
    assert not any("may not start" in note for note in with_ranges(a_run(), NOTHING).notes)


def test_what_is_missing_has_a_range_and_may_be_nothing() -> None:
    refusal = Refusal(kind="weights", message="no", missing=exact(300 * MIB))
    run = a_run(verdict="does not fit", refusal=refusal, kv_tokens=None)
    costs = replace(NOTHING, kernels=open_amount(GIB, 2 * GIB, GIB))
    wide, narrow = (with_ranges(run, each) for each in (costs, NOTHING))
    assert wide.refusal is not None
    assert wide.refusal.missing is not None
    assert wide.refusal.missing.high_bytes > GIB
    assert any("may start" in each for each in wide.notes)
    assert not wide.refusal.suggestions, "it is nothing to be tried"
    assert not any("may start" in each for each in narrow.notes)


def test_a_total_that_is_assumed_is_no_exact_one() -> None:
    """Nobody has told CUDA's total of an A10G: what is asked for is as uncertain as that."""
    a10g = machine("a10g")
    low, high = cuda_total_range_bytes(a10g)
    rank = replace(
        RANK, total_bytes=a10g.cuda_total_bytes, requested_bytes=a10g.cuda_total_bytes // 2
    )
    found = widen(rank, NOTHING, machine=a10g).kv_cache
    assert found is not None
    assert rank.kv_cache is not None
    less = rank.kv_cache.bytes - found.low_bytes
    assert less == pytest.approx(math.hypot(ENGINE_BYTES, (a10g.cuda_total_bytes - low) / 2), abs=2)
    assert found.high_bytes - rank.kv_cache.bytes == pytest.approx(
        math.hypot(ENGINE_BYTES, (high - a10g.cuda_total_bytes) / 2), abs=2
    )


@given(
    less=st.integers(0, GIB),
    value=st.integers(0, GIB),
    more=st.integers(0, GIB),
    cache=st.integers(0, GIB),
)
def test_a_range_always_holds_its_value(less: int, value: int, more: int, cache: int) -> None:
    amount = Amount(bytes=value, low_bytes=max(value - less, 0), high_bytes=value + more, source="")
    costs = all_alike(amount)
    found = widen(replace(RANK, kv_cache=exact(cache)), costs, machine=H100)
    amounts = [found.kv_cache, found.non_torch, found.graphs, found.context]
    assert all(a is not None and a.low_bytes <= a.bytes <= a.high_bytes for a in amounts)
    assert all(row.amount.low_bytes <= row.amount.bytes for row in found.started)


def test_only_gpus_that_share_layers_reduce_together() -> None:
    """Stages and replicas have communicators; the workspaces of all-reduce are none of theirs."""
    alone = of("h100")
    stages, shared = of("h100", gpus_count=2), of("h100", tensor_parallel_size=2, gpus_count=2)
    assert alone.nccl_first.bytes == alone.collectives.bytes == stages.collectives.high_bytes == 0
    assert stages.nccl_first == shared.nccl_first
    assert shared.nccl_first.bytes > 0
    assert shared.collectives.bytes > 0
