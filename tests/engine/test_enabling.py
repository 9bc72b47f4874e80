"""How memacct is turned on in vLLM, that it does nothing otherwise, and what a mistake says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from memacct.demo import TOLERANCE_BYTES, EngineResult
from memacct.demo.engine import KEY_LINES
from memacct.demo.scenarios import ALLOCATES, ALONE, EAGER, GRAPH_PROFILING
from memacct.demo.table import reports

if TYPE_CHECKING:
    from conftest import Starts

    from memacct.demo import EngineOptions

pytestmark = pytest.mark.engine

WITH_PLUGIN = replace(EAGER, plugins="memacct")
COMMAND_LINES = {
    "dotted": ("--additional-config.memacct.profiler", "native"),
    "json": ("--additional-config", '{"memacct": {"profiler": "native"}}'),
}
BY_WORKER_CLASS = replace(
    EAGER,
    plugins="other",
    arguments={"worker_cls": "memacct.integrations.vllm.GPUWorker"},
)


def in_scenario_c(starts: Starts, key: str, options: EngineOptions) -> EngineResult:
    """As it is given, beside the neighbour that allocates 3 GiB."""
    return starts.stock(replace(ALLOCATES, key=key, engines=(options,)))


def assert_native(starts: Starts, result: EngineResult) -> None:
    isolated = starts.isolated(ALLOCATES)
    assert result.served, result.error
    assert result.kv_cache_bytes is not None
    assert isolated.kv_cache_bytes is not None
    assert abs(result.kv_cache_bytes - isolated.kv_cache_bytes) <= TOLERANCE_BYTES
    assert [report["profiler"] for report in reports(result) if "rank" in report] == ["native"]


def test_installed_but_not_enabled_it_changes_nothing(starts: Starts) -> None:
    disabled = in_scenario_c(starts, "disabled", WITH_PLUGIN)
    stock = starts.stock(ALLOCATES)
    assert disabled.kv_cache_bytes == stock.kv_cache_bytes
    assert disabled.workers[0]["available_bytes"] == stock.workers[0]["available_bytes"]
    assert reports(disabled) == []
    about_memacct = [line for line in disabled.key_lines() if "memacct:" in line]
    assert about_memacct == [], KEY_LINES


def test_by_additional_config(starts: Starts) -> None:
    result = starts.native(ALLOCATES)
    assert_native(starts, result)
    assert result.raw["additional_config"] == {"memacct": {"profiler": "native"}}


@pytest.mark.parametrize("form", COMMAND_LINES)
def test_by_the_command_line(starts: Starts, form: str) -> None:
    options = replace(WITH_PLUGIN, cli=COMMAND_LINES[form])
    result = in_scenario_c(starts, f"cli-{form}", options)
    assert_native(starts, result)
    assert result.raw["additional_config"] == {"memacct": {"profiler": "native"}}


def test_by_the_environment(starts: Starts) -> None:
    result = starts.native(GRAPH_PROFILING)
    assert result.served, result.error
    assert result.raw["additional_config"] == {}
    assert [report["profiler"] for report in reports(result) if "rank" in report] == ["native"]


def test_by_the_worker_class_where_plugins_are_filtered(starts: Starts) -> None:
    assert_native(starts, in_scenario_c(starts, "worker-cls", BY_WORKER_CLASS))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"profilerr": "native"}, ["profilerr", "profiler"]),
        ({"profiler": "nativ"}, ["profiler", "nativ", "native | stock"]),
        ({"profiler": "native", "margin": -1}, ["margin", "-1", "not negative"]),
    ],
    ids=["unknown-key", "unknown-profiler", "negative-margin"],
)
def test_a_mistake_stops_with_one_sentence(
    starts: Starts, config: dict[str, Any], said: list[str]
) -> None:
    options = replace(WITH_PLUGIN, additional_config={"memacct": config})
    key = f"mistake-{said[0]}"
    result = starts.stock(replace(ALLOCATES, key=key, engines=(options,), moves=()))
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.startswith("ConfigError: ")
    for word in said:
        assert word in result.error
    assert "\n" not in result.error


def test_alone_it_changes_nothing(starts: Starts) -> None:
    native, stock = starts.native(ALONE), starts.stock(ALONE)
    assert native.kv_cache_bytes == stock.kv_cache_bytes
