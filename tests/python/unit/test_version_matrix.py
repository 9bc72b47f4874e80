"""The vLLM version matrix: what is chosen, installed, judged and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from version_matrix import store, table
from version_matrix.__main__ import merged, status
from version_matrix.cases import cases
from version_matrix.environment import Environment, InstallError, cuda_torch, installer_environ
from version_matrix.judge import differences, judge
from version_matrix.recipe import header_packages, make_recipe, name_of, torch_of
from version_matrix.run_cpu import at_least, compare, node_total_bytes
from version_matrix.run_gpu import worst
from version_matrix.versions import TARGETS, SelectionError, Target, select

from memacct._units import GIB, MIB

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = Target(version="0.11.0"), Target(version="0.33.0")
ON_CPU = Target(version="0.28.0", is_cpu=True)
DECLARED = [
    "numpy",
    "torch==2.8.0",
    "torchvision==0.23.0",
    "xformers==0.0.32.post1; platform_system == 'Linux'",
    "flashinfer_python==0.5.3",
    "numba==0.60.0; python_version == '3.9'",
    "numba==0.61.2; python_version > '3.9'",
    "certifi>=2026.10.19",
    "pandas; extra == 'bench'",
    "transformers>=4.55.2",
]


def served(*kv_cache_bytes: int, missed: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "outcome": "served",
        "kv_cache_bytes": list(kv_cache_bytes),
        "error": None,
        "runner": "V1",
        "missed_cues": list(missed),
        "forced_spawn": False,
    }


def failed(error: str) -> dict[str, Any]:
    return {**served(), "outcome": "failed", "error": error}


# ---------------------------------------------------------------- selection


def test_nothing_chosen_is_all() -> None:
    assert select(" ") == TARGETS
    assert {"0.11.0", "0.33.0", "cpu-0.32.0"} <= {target.name for target in TARGETS}


def test_words_name_versions_once_in_their_order() -> None:
    names = [target.name for target in select("0.33.0, cpu-0.24.0 0.33.0 0.29.1")]
    assert names == ["0.33.0", "cpu-0.24.0", "0.29.1"]


def test_a_kind_stands_for_its_versions() -> None:
    assert {target.is_cpu for target in select("cpu")} == {True}
    assert select("gpu cpu") == TARGETS


@pytest.mark.parametrize("word", ["newest", "0.33", "cpu-", "0.33.0rc"])
def test_what_is_no_version_is_named(word: str) -> None:
    with pytest.raises(SelectionError, match=word):
        select(f"0.11.0 {word}")


def test_what_a_version_can_do() -> None:
    assert (OLD.other_runner, Target(version="0.20.2").other_runner, NEW.other_runner) == (
        None,
        "1",
        "0",
    )
    assert [t.profiles_graphs for t in (OLD, Target(version="0.18.1"), ON_CPU)] == [
        False,
        True,
        False,
    ]


def test_graphs_are_profiled_by_the_runner_that_does() -> None:
    runners = {}
    for version in ("0.14.1", "0.28.0", "0.30.0"):
        (case,) = [case for case in cases(Target(version=version)) if case.key == "e"]
        runners[version] = case.scenario.engines[0].environ.get("VLLM_USE_V2_MODEL_RUNNER")
    assert runners == {"0.14.1": None, "0.28.0": "0", "0.30.0": None}


# ---------------------------------------------------------------- recipe


def test_a_recipe_is_what_is_declared_less_what_is_left_out() -> None:
    recipe = make_recipe(DECLARED, OLD)
    assert recipe.left_out == ("certifi", "flashinfer-python", "xformers")
    assert [name_of(one) for one in recipe.requirements] == [
        "numpy",
        "torch",
        "torchvision",
        "numba",
        "numba",
        "transformers",
    ]
    assert "numba==0.61.2; python_version > '3.9'" in recipe.requirements


def test_a_cpu_recipe_has_no_torchvision() -> None:
    assert "torchvision" in make_recipe(DECLARED, ON_CPU).left_out


def test_bounds_are_of_the_time() -> None:
    assert "transformers<5" in make_recipe(DECLARED, OLD).constraints
    assert make_recipe(DECLARED, NEW).constraints == ()


def test_the_tightest_bound_of_a_package_holds() -> None:
    constraints = make_recipe(DECLARED, OLD).constraints
    names = [name_of(one) for one in constraints]
    assert len(names) == len(set(names))
    assert "fastapi<0.120" in constraints


def test_torch_is_found_without_its_local_part() -> None:
    assert torch_of(["torchvision==1.0", 'torch==2.13.0+cpu; platform_machine == "x86_64"']) == (
        "2.13.0"
    )
    assert torch_of(["numpy"]) is None


def test_a_cpu_build_is_not_taken_for_a_gpu() -> None:
    assert cuda_torch("2.13.0") == "torch==2.13.0,!=2.13.0+cpu"


def test_headers_follow_the_runtime() -> None:
    assert header_packages("12.8.90") == (
        "nvidia-cuda-nvcc-cu12==12.8.*",
        "nvidia-cuda-cccl-cu12==12.8.*",
    )
    assert header_packages("13.0.96") == ("nvidia-cuda-crt==13.0.*", "nvidia-cuda-cccl==13.0.*")


def test_uv_asks_pips_indexes_unless_it_has_its_own() -> None:
    base = {"PIP_INDEX_URL": "https://a", "PIP_FIND_LINKS": "/wheels", "UV_FIND_LINKS": "/own"}
    found = installer_environ(base)
    assert found["UV_DEFAULT_INDEX"] == "https://a"
    assert found["UV_FIND_LINKS"] == "/own"
    assert "UV_INDEX" not in found


def test_what_cannot_be_installed_is_an_error_of_one_kind(tmp_path: Path) -> None:
    environment = Environment(folder=tmp_path / "absent")
    with pytest.raises(InstallError, match="absent"):
        environment.install("--no-deps", str(tmp_path / "no.whl"))


# ---------------------------------------------------------------- cases


def test_each_version_has_the_same_cells() -> None:
    keys = [case.key for case in cases(NEW)]
    assert keys == [case.key for case in cases(OLD)]
    assert set(table.SCENARIOS) | set(table.SHAPES) == {*keys, "fork"}


def test_what_a_version_lacks_is_a_cell_that_says_why() -> None:
    (runner,) = [case for case in cases(OLD) if case.key == "runner"]
    assert runner.why_not
    assert [case.key for case in cases(NEW) if case.why_not] == []


def test_without_graph_profiling_the_neighbour_moves_in_the_profiling_pass() -> None:
    cues = {
        target.name: [move.cue for case in cases(target) if case.key == "e" for move in moves(case)]
        for target in (OLD, NEW)
    }
    assert cues == {"0.11.0": ["profiling"], "0.33.0": ["graphs"]}


def moves(case: Any) -> tuple[Any, ...]:
    return tuple(case.scenario.moves)


# ---------------------------------------------------------------- judging


@pytest.mark.parametrize(
    ("isolated", "native", "verdict"),
    [
        (served(GIB), served(GIB), "ok"),
        (served(GIB, GIB), served(GIB, GIB - 2 * MIB), "ok"),
        (served(GIB, GIB), served(GIB, GIB - 2 * MIB - 1), "wrong"),
        (served(GIB, GIB), served(GIB), "wrong"),
        (served(GIB), failed("out of memory"), "wrong"),
        (served(GIB), served(GIB, missed=("graphs",)), "not shown"),
        (failed("no such kernel"), failed("no such kernel"), "alone"),
    ],
)
def test_verdicts(isolated: dict[str, Any], native: dict[str, Any], verdict: str) -> None:
    found, reason = judge(isolated, native)
    assert found == verdict
    assert bool(reason) == (verdict != "ok")


def test_differences_are_rank_by_rank() -> None:
    assert differences(served(5, 3), served(4, 4)) == [1, -1]
    assert differences(failed("x"), served(4)) is None


def test_the_worst_engine_decides() -> None:
    assert worst([("ok", ""), ("wrong", "b"), ("not shown", "c")]) == ("wrong", "b")
    assert worst([("ok", ""), ("alone", "d")]) == ("alone", "d")


def test_alone_on_a_cpu_native_is_not_smaller_than_stock() -> None:
    assert at_least(served(GIB), served(2 * GIB))[0] == "ok"
    assert at_least(served(2 * GIB), served(GIB))[0] == "wrong"
    assert at_least(served(GIB), failed("x"))[0] == "wrong"


def test_beside_a_neighbour_a_cpu_worker_answers_for_its_own_heap_only() -> None:
    stock, alone = served(GIB), {**served(2 * GIB), "heap_bytes": [200 * MIB]}
    grown = {**served(2 * GIB - 90 * MIB), "heap_bytes": [290 * MIB]}
    found = compare(stock, alone, stock, grown, is_alone=False)
    assert found["verdict"] == "ok"
    assert found["native_difference_bytes"] == [-90 * MIB]
    assert found["native_heap_difference_bytes"] == 90 * MIB
    moved = {**grown, "kv_cache_bytes": [2 * GIB - 94 * MIB]}
    assert compare(stock, alone, stock, moved, is_alone=False)["verdict"] == "wrong"
    silent = {**moved, "heap_bytes": None}
    assert compare(stock, alone, stock, silent, is_alone=False)["verdict"] == "wrong"


def test_a_nodes_memory_is_read() -> None:
    assert node_total_bytes("Node 0 MemTotal:   2048 kB\nNode 0 MemFree: 7 kB") == 2 * MIB
    with pytest.raises(ValueError, match="MemTotal"):
        node_total_bytes("")


# ---------------------------------------------------------------- results


def cell(key: str, verdict: str = "ok", *, forced: bool = False) -> dict[str, Any]:
    native = served(GIB) | {"forced_spawn": forced}
    one = {
        "verdict": verdict,
        "reason": "",
        "isolated": served(GIB),
        "stock": failed("assertion") if key == "b" else served(GIB - 3 * MIB),
        "native": native,
        "stock_difference_bytes": [-3 * MIB],
        "native_difference_bytes": [0] if verdict == "ok" else [MIB // 2, -5 * MIB],
    }
    return {"key": key, "title": key, "verdict": verdict, "reason": "because", "engines": [one]}


def entry(*cells: dict[str, Any]) -> dict[str, Any]:
    about = {"python": "3.11.7", "torch": "2.14.0+cu130", "cuda": "13.0"}
    return {"date": "2026-11-22", "about": about, "cells": list(cells)}


def line_of(page: str, name: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(f"| {name} |"))


def test_a_row_says_what_stock_and_native_did() -> None:
    page = table.page([NEW], {"0.33.0": entry(cell("a"), cell("b"), cell("c", "wrong"))})
    row = line_of(page, "0.33.0")
    assert "2026-11-22 | 3.11.7 | 2.14.0 (13.0) | V1 | stock -3.0 MiB, native exact |" in row
    assert "stock fails, native exact" in row
    assert "**native -5.0 MiB: wrong**" in row
    assert row.endswith("not run | not run |")
    assert "- 0.33.0 c: wrong: because" in page


def test_a_version_without_results_is_a_row() -> None:
    page = table.page([OLD, NEW], {"0.11.0": {"date": "2026-11-22", "error": "no\nsuch wheel"}})
    assert line_of(page, "0.11.0").count("not installed") == 5
    assert "- 0.11.0: not installed: such wheel" in page
    assert line_of(page, "0.33.0").count("not run") == 5


def test_forced_spawn_is_not_shown_as_fork() -> None:
    assert table.cell(entry(cell("c", forced=True)), "fork") == "n/a: vLLM spawns here"
    assert table.cell(entry(cell("c")), "fork") == "native exact"


def test_cells_that_could_not_be_run_say_why() -> None:
    found = entry(
        {"key": "e", "verdict": "n/a", "reason": "no graphs", "engines": []},
        {**cell("tp2", "alone"), "reason": "does not start alone either: no peers"},
    )
    assert table.cell(found, "e") == "n/a: no graphs"
    assert table.cell(found, "tp2") == "n/a: fails alone too (no peers)"


def test_results_are_kept_and_done_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "results" / "r.json"
    assert store.load(path) == {}
    store.save(path, {"0.33.0": entry(cell("a"), cell("b"))})
    kept = store.load(path)["0.33.0"]
    assert store.is_done(kept, ["a", "b"])
    assert not store.is_done(kept, ["a", "b", "c"])
    assert not store.is_done({**kept, "error": "x"}, ["a"])
    assert not store.is_done(None, [])


def test_two_runs_write_one_book(tmp_path: Path) -> None:
    book, other = (store.Book(tmp_path / "r.json") for _ in range(2))
    book.keep("0.33.0", entry(cell("a")))
    other.keep("0.11.0", entry(cell("b")))
    book.keep("0.33.0", entry(cell("a"), cell("b")))
    kept = store.load(tmp_path / "r.json")
    assert {name: len(one["cells"]) for name, one in kept.items()} == {"0.33.0": 2, "0.11.0": 1}


def test_cells_that_are_run_again_replace_the_old() -> None:
    before = entry(cell("a"), cell("b", "wrong"))
    assert [one["verdict"] for one in merged(before, [cell("b")])] == ["ok", "ok"]
    assert [one["key"] for one in merged(None, [cell("b")])] == ["b"]


def test_the_exit_status() -> None:
    assert status([entry(cell("a")), entry(cell("a", "alone"))]) == 0
    assert status([entry(cell("a", "wrong"))]) == 1
    assert status([entry(cell("a", "not shown"))]) == 1
    assert status([entry(cell("a", "wrong")), {"error": "x"}]) == 2
