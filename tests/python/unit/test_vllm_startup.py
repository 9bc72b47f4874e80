"""The points of a start on a host of our own: wrapped where they are, inert where not asked for."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import memacct
from memacct import ConfigError, _timeline
from memacct.integrations import vllm as plugin
from memacct.integrations.vllm import _startup, _startup_hooks
from memacct.integrations.vllm._config import PluginConfig, read_config
from memacct.integrations.vllm._startup_notes import buffer_notes
from memacct.integrations.vllm._startup_points import POINTS, Point
from memacct.integrations.vllm._startup_stack import find_caller
from memacct.report.startup_tree import start_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from memacct.integrations.vllm._startup import Startup


@pytest.fixture
def startup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Startup]:
    monkeypatch.delenv("MEMACCT_TIMELINE_DIR", raising=False)
    config = PluginConfig(timeline=True, report_dir=str(tmp_path))
    finders = list(sys.meta_path)
    begun = _startup.begin("main", config)
    assert begun is not None
    yield begun
    begun.timeline.stop()
    _startup._current.clear()
    sys.meta_path[:] = finders


def names(startup: Startup) -> list[str]:
    signs = {"span_begin": "<", "span_end": ">", "checkpoint": "."}
    return [signs[e.kind] + e.name for e in startup.timeline.entries if e.kind in signs]


def host() -> Any:
    module = ModuleType("host")

    def plain(a: int, b: int = 2) -> int:
        """Says."""
        return a + b

    @contextlib.contextmanager
    def loading(value: str) -> Iterator[str]:
        yield value

    class Thing:
        def __init__(self, size: int) -> None:
            self.token_ids_cpu_tensor = np.zeros(size, dtype=np.int32)

        def run(self) -> str:
            return "ran"

    vars(module).update(plain=plain, loading=loading, Thing=Thing)
    return module


def point(path: str, role: Any = "span", name: str = "it") -> Point:
    return Point(module="host", path=path, name=name, role=role)


def test_a_call_becomes_a_span_and_stays_itself(startup: Startup) -> None:
    module = host()
    before = inspect.signature(module.plain)
    assert _startup_hooks.hook(module, point("plain"))
    assert _startup_hooks.hook(module, point("plain"))  # once
    assert module.plain(1, b=3) == 4
    assert names(startup) == ["<it", ">it"]
    assert inspect.signature(module.plain) == before
    assert module.plain.__doc__ == "Says."


def test_what_is_not_there_is_told(startup: Startup) -> None:
    module = host()
    assert not _startup_hooks.hook(module, point("gone"))
    assert not _startup_hooks.hook(module, point("Gone.run"))
    assert not _startup_hooks.hook(module, point("Thing.gone"))
    assert not hasattr(module.Thing, "gone")
    assert names(startup) == []


def test_an_object_tells_how_large_its_buffers_are(startup: Startup) -> None:
    module = host()
    _startup_hooks.hook(module, point("Thing.__init__", "buffers"))
    module.Thing(1000)
    (end,) = [entry for entry in startup.timeline.entries if entry.kind == "span_end"]
    assert end.notes == {"token_ids_cpu_tensor_bytes": 4000}


def test_what_is_called_often_is_summed_up_and_stays_a_context_manager(startup: Startup) -> None:
    module = host()
    _startup_hooks.hook(module, point("loading", "often"))
    _startup_hooks.hook(module, point("plain", "processing"))
    for _ in range(3):
        with module.loading("value") as given:
            assert given == "value"
    with pytest.raises(OSError, match="own"), module.loading("value"):
        raise OSError("own")
    module.plain(1)
    assert names(startup) == ["<it", ">it"]
    (end,) = [entry for entry in startup.timeline.entries if entry.kind == "span_end"]
    assert end.notes is not None
    assert end.notes["device_loading_context_count"] == 4
    assert startup.take_often() == {}


def test_errors_of_the_host_pass_through_and_are_told(startup: Startup) -> None:
    module = host()

    def fail() -> None:
        raise OSError("its own")

    module.fail = fail
    _startup_hooks.hook(module, point("fail"))
    with pytest.raises(OSError, match="its own"):
        module.fail()
    assert [entry.error for entry in startup.timeline.entries if entry.kind == "span_end"] == [
        "OSError"
    ]


def test_a_fault_of_the_timeline_does_not_reach_the_host(
    startup: Startup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = host()
    _startup_hooks.hook(module, point("plain"))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    with monkeypatch.context() as patched:
        patched.setattr(startup.timeline, "span", broken)
        assert module.plain(1) == 3
        assert module.plain(2) == 4
    assert sum("incomplete" in record.getMessage() for record in caplog.records) <= 1


def test_hooks_that_are_left_over_do_nothing_in_a_process_without_a_timeline() -> None:
    module = host()
    for path, role in (("plain", "span"), ("loading", "often"), ("Thing.__init__", "buffers")):
        _startup_hooks.hook(module, point(path, role))
    assert _startup.current() is None
    assert module.plain(1) == 3
    with module.loading("x") as given:
        assert given == "x"
    assert module.Thing(3).run() == "ran"


def test_an_engine_without_a_timeline_after_one_that_has_one_is_left_alone(
    startup: Startup,
) -> None:
    module = host()
    _startup_hooks.hook(module, point("plain"))
    with plugin._configuring(PluginConfig()):
        assert module.plain(1) == 3
    assert names(startup) == []
    assert _startup.begin("main", PluginConfig(timeline=True)) is startup
    assert module.plain(1) == 3
    assert names(startup) == ["<it", ">it"]


def test_methods_are_wrapped_on_whatever_class_the_instance_has(startup: Startup) -> None:
    thing = host().Thing(1)
    _startup_hooks._hook_class(startup, thing, {"run": "Thing.run", "gone": "Thing.gone"})
    assert thing.run() == "ran"
    assert names(startup) == ["<Thing.run", ">Thing.run"]
    told = {key.rpartition(".")[2]: there for key, there in startup.present.items()}
    assert told["run"]
    assert not told["gone"]


def test_the_core_and_a_worker_under_it(startup: Startup) -> None:
    """In one process: nothing is on the stack when the plugin is loaded."""
    module = host()

    class WorkerWrapperBase:
        rpc_rank = 0

        def init_worker(self, all_kwargs: Any) -> None:
            self.worker = SimpleNamespace(
                device_config=SimpleNamespace(device_type="cpu"), all_kwargs=all_kwargs
            )

    class EngineCore:
        def __init__(self, vllm_config: Any) -> None:
            WorkerWrapperBase().init_worker([{"rank": 0, "vllm_config": vllm_config}])

    vars(module).update(WorkerWrapperBase=WorkerWrapperBase, EngineCore=EngineCore)
    _startup_hooks.hook(module, point("EngineCore.__init__", "core", "EngineCore"))
    _startup_hooks.hook(module, point("WorkerWrapperBase.init_worker", "worker made", "init"))
    module.EngineCore(vllm_config=SimpleNamespace())
    assert names(startup) == ["<EngineCore", "<init", ">init", ">EngineCore", ".EngineCore started"]
    assert startup.name == "main"
    check = startup.timeline.record().identity()
    assert check is not None
    assert check.holds


def test_a_forked_child_has_a_part_of_its_own(startup: Startup, tmp_path: Path) -> None:
    with startup.step("outer"):
        pid = os.fork()
        if pid == 0:
            try:
                startup.go_on_as("EngineCore")
                with startup.step("inner"):
                    pass
                startup.complete("EngineCore")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    tree = start_tree(memacct.read_timeline(tmp_path))
    assert [account.name for account in tree.processes] == ["main", "EngineCore"]
    (core,) = [node for node in tree.find("outer").children if node.kind == "process"]
    assert (core.name, core.pid) == ("EngineCore", pid)
    assert [child.name for child in core.children] == ["inner", "EngineCore started"]
    assert all(account.check is None or account.holds for account in tree.processes)


def test_children_are_told_the_folder_and_nobody_after_them(startup: Startup) -> None:
    assert "MEMACCT_TIMELINE_DIR" not in os.environ
    with _startup.handed_down(startup):
        assert os.environ["MEMACCT_TIMELINE_DIR"] == startup.folder
    assert "MEMACCT_TIMELINE_DIR" not in os.environ


def test_a_users_own_checkpoints_are_in_the_same_timeline(startup: Startup) -> None:
    memacct.checkpoint("mine")
    with memacct.span("my span"):
        pass
    assert names(startup) == [".mine", "<my span", ">my span"]


def test_a_timeline_that_is_there_in_the_folder_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMACCT_TIMELINE_DIR", str(tmp_path))
    memacct.checkpoint("before the engine")
    known = _timeline._started[-1]
    try:
        begun = _startup.begin("main", PluginConfig(timeline=True))
        assert begun is not None
        assert begun.timeline is known
        assert len(list(tmp_path.iterdir())) == 1
    finally:
        _startup._current.clear()
        known.stop()


def test_nothing_begins_unless_it_is_asked_for() -> None:
    assert _startup.begin("main", PluginConfig()) is None
    assert _startup.current() is None


CORE = """
from memacct.integrations.vllm._startup_stack import find_caller
class EngineCore:
    def __init__(self, vllm_config):
        self.found = find_caller()
class WorkerWrapperBase:
    def init_worker(self, all_kwargs):
        kwargs = all_kwargs[0]
        self.found = find_caller()
"""


@pytest.mark.parametrize(("size", "suffix"), [(1, ""), (2, " DP1")])
def test_the_process_is_told_by_who_loads_the_plugin(size: int, suffix: str) -> None:
    space: dict[str, Any] = {}
    exec(compile(CORE, "/somewhere/vllm/v1/engine/core.py", "exec"), space)  # noqa: S102
    worker: dict[str, Any] = {}
    exec(compile(CORE, "/somewhere/vllm/v1/worker/worker_base.py", "exec"), worker)  # noqa: S102
    parallel = SimpleNamespace(data_parallel_size=size, data_parallel_rank=1)
    config = SimpleNamespace(additional_config={"memacct": {}}, parallel_config=parallel)
    found = space["EngineCore"](config).found
    assert (found.role, found.name) == ("core", f"EngineCore{suffix}")
    assert found.additional_config == {"memacct": {}}
    wrapper = worker["WorkerWrapperBase"]()
    wrapper.init_worker([{"rank": 3, "vllm_config": config}])
    assert (wrapper.found.role, wrapper.found.name) == ("worker", f"Worker 3{suffix}")
    assert find_caller().role == "front"


@pytest.mark.parametrize(
    ("text", "value"), [("", False), ("0", False), ("1", True), ("tensors", "tensors")]
)
def test_the_variable(text: str, value: object) -> None:
    assert read_config(None, environ={"MEMACCT_TIMELINE": text}).timeline == value


@pytest.mark.parametrize("value", [True, False, "tensors"])
def test_the_configuration_wins_over_the_variable(value: object) -> None:
    given = {"memacct": {"timeline": value}}
    assert read_config(given, environ={"MEMACCT_TIMELINE": "1"}).timeline == value


def test_a_wrong_value_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="MEMACCT_TIMELINE='yes'.*0, 1 and tensors"):
        read_config(None, environ={"MEMACCT_TIMELINE": "yes"})
    with pytest.raises(ConfigError, match='timeline.*true | false | "tensors"'):
        read_config({"memacct": {"timeline": "files"}}, environ={})


def test_the_table_names_each_function_once_and_every_role_is_known() -> None:
    keys = [point.key for point in POINTS]
    assert len(keys) == len(set(keys))
    assert {point.role for point in POINTS} <= set(_startup_hooks._AROUND)


def test_views_of_one_tensor_are_counted_once_and_small_ones_not_named() -> None:
    tensor = np.zeros(1 << 20, dtype=np.int8)
    staged = SimpleNamespace(cpu=tensor, copy=tensor[:], other=np.zeros(1 << 20, dtype=np.int8))
    made = SimpleNamespace(
        all_token_ids=staged, token_ids_cpu=tensor, small=np.zeros(4), text="x", none=None
    )
    assert buffer_notes(made) == {"all_token_ids_bytes": 2 << 20}
