"""What a refused KV cache plan needs, asked of the planner itself: exact, and nothing is left."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from memacct.integrations.vllm import _shortfall_core as core

TOKEN_BYTES = 3 * 1024
BLOCK_BYTES = 16 * TOKEN_BYTES


def config(model_len: int) -> Any:
    model = SimpleNamespace(max_model_len=model_len)
    return SimpleNamespace(
        model_config=model, additional_config={"memacct": {"profiler": "native"}}
    )


def plan(vllm_config: Any, specs: list[dict[str, int]], available: list[int], *rest: Any) -> str:
    """vLLM's admission check in small: each worker's layers, and a block that is kept back."""
    logging.getLogger("vllm.test").error("planned")
    blocks = -(-vllm_config.model_config.max_model_len // 16)
    for spec, size in zip(specs, available, strict=True):
        needed = blocks * BLOCK_BYTES * spec["layers"]
        if size - BLOCK_BYTES < needed:
            raise ValueError("To serve at least one request")
    for spec in specs:
        spec["layers"] += 100  # planners may change what they are given
    return f"planned {rest}"


def refuse(model_len: int, layers: list[int], sizes: list[int]) -> Any:
    given = config(model_len)
    specs = [{"layers": count} for count in layers]
    with pytest.raises(ValueError, match="at least one request"):
        core._around_plan(plan, given, specs, sizes, "groups")
    assert given.model_config.max_model_len == model_len
    return core._Refused


def test_a_plan_that_fits_is_vllms_own() -> None:
    given = config(32)
    assert core._around_plan(plan, given, [{"layers": 1}], [10**9], 7) == "planned (7,)"


def test_each_workers_need_is_exact() -> None:
    needed = [4096 // 16 * BLOCK_BYTES * layers + BLOCK_BYTES for layers in (4, 6)]
    found = refuse(4096, [4, 6], [needed[0], needed[1] - 1])
    assert found.needs == needed
    assert found.model_len == 4096


@pytest.mark.parametrize("fitting_blocks", [1, 7, 255])
def test_the_longest_request_that_fits(fitting_blocks: int) -> None:
    size = fitting_blocks * BLOCK_BYTES * 4 + BLOCK_BYTES
    found = refuse(4096, [4], [size])
    assert found.fitting_model_len == fitting_blocks * 16


def test_none_fits_into_nothing() -> None:
    assert refuse(4096, [4], [-5]).fitting_model_len == 0


def test_asking_says_nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.root.manager.disable
    refuse(4096, [4], [10])
    assert len(caplog.records) == 1  # of the plan that vLLM itself asked for
    assert logging.root.manager.disable == before


class Executor:
    """Remembers what the workers are told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def collective_rpc(self, method: str, *, args: tuple[Any, ...]) -> None:
        self.told.append((method, *args))


def initialize(given: Any) -> Executor:
    executor = Executor()
    engine = SimpleNamespace(model_executor=executor, vllm_config=given)

    def original(_: Any) -> None:
        core._around_plan(plan, given, [{"layers": 4}], [10])

    with pytest.raises(ValueError, match="at least one request"):
        core._around_initialize(original, engine)
    return executor


def test_each_worker_is_told_once() -> None:
    given = config(16)
    needs = [4 * BLOCK_BYTES + BLOCK_BYTES]
    assert initialize(given).told == [(core.RPC_NAME, needs, 16, 0)]


def test_nobody_is_told_in_an_engine_that_is_not_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMACCT_VLLM", raising=False)
    given = config(16)
    given.additional_config = {}
    assert initialize(given).told == []


def test_a_planner_with_other_arguments_still_refuses() -> None:
    def odd() -> None:
        raise ValueError("at least one request")

    with pytest.raises(ValueError, match="at least one request"):
        core._around_plan(odd)


def make_core(monkeypatch: pytest.MonkeyPatch, given: Any) -> ModuleType:
    """Loads the plugin as a spawned core does: from inside of its ``__init__``."""
    module = ModuleType(core.CORE_MODULE)
    source = (
        "class EngineCore:\n"
        "    def __init__(self, vllm_config):\n"
        "        load_plugins()\n"
        "    def _initialize_kv_caches(self, vllm_config):\n"
        "        get_kv_cache_configs(vllm_config, [{'layers': 4}], [10])\n"
    )
    vars(module).update(load_plugins=core.hook_core_if_enabled, get_kv_cache_configs=plan)
    exec(compile(source, "/site-packages/vllm/v1/engine/core.py", "exec"), vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, core.CORE_MODULE, module)
    made: Any = module
    made.EngineCore(given)
    return module


def test_a_spawned_core_is_hooked_where_it_is_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMACCT_VLLM", raising=False)
    given = config(16)
    made: Any = make_core(monkeypatch, given)
    engine = made.EngineCore(given)
    engine.model_executor, engine.vllm_config = Executor(), given
    with pytest.raises(ValueError, match="at least one request"):
        engine._initialize_kv_caches(given)
    assert [told[0] for told in engine.model_executor.told] == [core.RPC_NAME]


def test_a_core_that_is_not_enabled_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMACCT_VLLM", raising=False)
    given = config(16)
    given.additional_config = {}
    made = make_core(monkeypatch, given)
    assert vars(made)["get_kv_cache_configs"] is plan
    assert not hasattr(vars(made)["EngineCore"]._initialize_kv_caches, "__wrapped__")
