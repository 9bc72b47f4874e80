"""Reports of the plugin beside a small host: asked ranks, failing starts, data that survives."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cpu_host
import pytest

from memacct.integrations.vllm import _attach, _engine_core, _report_file, _rpc, report
from memacct.integrations.vllm._facts import plain
from memacct.report.engine_starts import NO_REPORT

if TYPE_CHECKING:
    from pathlib import Path


class Wrapper:
    """A rank's WorkerWrapperBase."""

    def __init__(self, rank: int) -> None:
        self.worker = cpu_host.Worker(1 << 30)
        self.worker.rank = rank


class WithPlugin(Wrapper):
    def memacct_report(self) -> dict[str, Any]:
        return _rpc.worker_report(self)


class Executor:
    def __init__(self, vllm_config: Any) -> None:
        self.vllm_config = vllm_config
        if vllm_config.fails:
            raise RuntimeError("no worker came up")


def vllm_config(folder: Path, **keys: Any) -> SimpleNamespace:
    memacct = {"profiler": "native", "report_dir": str(folder)}
    parallel = SimpleNamespace(world_size=2, data_parallel_size=1, data_parallel_rank=0)
    given = {"memacct": memacct}
    return SimpleNamespace(
        additional_config=given, instance_id="x1", parallel_config=parallel, fails=False, **keys
    )


def core_class(ranks: list[Wrapper]) -> Any:
    class EngineCore:
        def __init__(self, config: Any) -> None:
            self.vllm_config = config
            self.model_executor = SimpleNamespace(is_sleeping=False)

        def collective_rpc(self, method: Any) -> list[Any]:
            if isinstance(method, str):
                return [getattr(rank, method)() for rank in ranks]
            return [method(rank) for rank in ranks]

        def _initialize_kv_caches(self, vllm_config: Any) -> str:
            if vllm_config.fails:
                raise ValueError("No available memory for the cache blocks")
            return "caches"

    _engine_core.hook_core(SimpleNamespace(EngineCore=EngineCore))  # type: ignore[arg-type]
    return EngineCore


def engine_files(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("vllm-*-engine*.json"))]


def test_a_rank_without_the_plugin_is_told_among_the_others(tmp_path: Path) -> None:
    core = core_class([WithPlugin(0), Wrapper(1)])(vllm_config(tmp_path))
    told = core.collective_rpc("memacct_report")
    assert [(one["rank"], one["status"]) for one in told] == [(0, "stock"), (1, "missing")]
    assert told[1]["reason"] == NO_REPORT


def test_other_calls_go_through_as_they_are(tmp_path: Path) -> None:
    core = core_class([WithPlugin(0), Wrapper(1)])(vllm_config(tmp_path))
    with pytest.raises(AttributeError, match="memacct_other"):
        core.collective_rpc("memacct_other")


def test_all_reports_of_an_engine_in_this_process(tmp_path: Path) -> None:
    config = vllm_config(tmp_path)
    core = core_class([WithPlugin(0), Wrapper(1)])(config)
    engine = SimpleNamespace(engine_core=SimpleNamespace(engine_core=core), vllm_config=config)
    told = report(SimpleNamespace(llm_engine=engine))
    assert [row["status"] for row in told["rows"]] == ["stock", "missing"]
    assert told["missing"] == [{"data_parallel_rank": 0, "rank": 1, "reason": NO_REPORT}]
    assert told["engines"][0]["core"]["now"]["snapshot"]["host"]["rss_bytes"] > 0
    assert json.loads(json.dumps(told)) == told, "plain data"


def test_an_engine_core_without_the_plugin_is_told() -> None:
    def call_utility(method: str, *_: object) -> None:
        raise Exception(f"Call to {method} method failed: no attribute '{method}'")  # noqa: TRY002

    client = SimpleNamespace(call_utility=call_utility)
    told = report(SimpleNamespace(engine_core=client, vllm_config=None))
    assert {lack["rank"] for lack in told["missing"]} == {0, None}
    assert {lack["reason"] for lack in told["missing"]} == {NO_REPORT}


def test_what_is_no_engine_is_refused() -> None:
    with pytest.raises(TypeError, match="int is not an engine of vLLM"):
        report(3)


def test_the_engine_core_writes_how_its_start_went(tmp_path: Path) -> None:
    module = SimpleNamespace(Executor=type("Executor", (Executor,), {}))
    _engine_core.hook_executor(module)  # type: ignore[arg-type]
    config = vllm_config(tmp_path)
    core = core_class([])(config)
    module.Executor(config)
    assert engine_files(tmp_path)[-1]["state"] == "starting"
    assert core._initialize_kv_caches(config) == "caches"
    assert engine_files(tmp_path)[-1]["state"] == "ready"
    config.fails = True
    with pytest.raises(RuntimeError, match="no worker came up"):
        module.Executor(config)  # another start, in a file of its own
    first, second = sorted(engine_files(tmp_path), key=lambda one: one["written_unix_ns"])
    assert (first["state"], second["state"]) == ("ready", "failed")
    assert second["error"] == {
        "step": "workers",
        "type": "RuntimeError",
        "message": "no worker came up",
    }
    with pytest.raises(ValueError, match="No available memory"):
        core._initialize_kv_caches(config)
    newest = max(engine_files(tmp_path), key=lambda one: one["written_unix_ns"])
    assert newest["error"]["step"] == "kv_caches"


def test_a_worker_whose_step_fails_has_written_why(tmp_path: Path) -> None:
    class Failing(cpu_host.Worker):
        def load_model(self) -> None:
            raise OSError("no such checkpoint")

    # A stock engine that was asked for a report: the numbers are vLLM's own.
    given = {"memacct": {"profiler": "stock", "report_dir": str(tmp_path)}}
    worker = Failing(1 << 30, given)
    with _attach.start(worker, default_profiler="stock"):
        pass
    with pytest.raises(OSError, match="no such checkpoint"):
        worker.load_model()
    (path,) = tmp_path.glob("vllm-*-rank0*.json")
    told = json.loads(path.read_text())
    assert (told["status"], told["error"]["step"]) == ("stock", "load_model")
    assert told["now"]["snapshot"]["host"]["held_bytes"] > 0


def test_an_engine_that_was_not_asked_writes_nothing(tmp_path: Path) -> None:
    _report_file.forget_report("engine")
    config = vllm_config(tmp_path)
    config.additional_config = {}
    core_class([])(config)._initialize_kv_caches(config)
    assert list(tmp_path.iterdir()) == []


def test_plain_data_is_what_msgpack_holds() -> None:
    class Text(str):
        __slots__ = ()

    odd = {1: (1, {2}), "big": 1 << 70, "none": None, "text": Text("a"), "other": object}
    told = plain(odd)
    assert told["1"] == [1, [2]]
    assert told["big"] is None
    assert isinstance(told["other"], str)
    assert json.loads(json.dumps(told)) == told
