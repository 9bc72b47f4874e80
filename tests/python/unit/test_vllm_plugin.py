"""The plugin's two hooks beside a host that is small, odd or broken: the host goes on."""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import cpu_host
import pytest

from memacct import ConfigError
from memacct.integrations.vllm import _ray, register

if TYPE_CHECKING:
    from pathlib import Path

NATIVE = {"memacct": {"profiler": "native"}}
STRICT = {"memacct": {"profiler": "native", "strict": True}}


class HostError(Exception):
    """The host's own."""


class Worker(cpu_host.Worker):
    """Fails to initialise as often as it is told."""

    failures = 0

    def init_device(self) -> str:
        if self.failures:
            self.failures -= 1
            raise HostError("no device")
        return "ready"


class Host:
    """The modules of vLLM that memacct looks at, in ``sys.modules``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class WorkerWrapperBase:
            def __init__(self, worker: object) -> None:
                self.worker = worker

            def init_device(self) -> Any:
                return self.worker.init_device()  # type: ignore[attr-defined]

        class EngineArgs:
            def __init__(self, additional_config: object) -> None:
                self.additional_config = additional_config
                self.backend = "mp"

            def create_engine_config(self) -> SimpleNamespace:
                parallel = SimpleNamespace(distributed_executor_backend=self.backend)
                return SimpleNamespace(parallel_config=parallel)

        self.WorkerWrapperBase, self.EngineArgs = WorkerWrapperBase, EngineArgs
        platform = SimpleNamespace(is_cuda=lambda: False)
        modules: dict[str, dict[str, Any]] = {
            "vllm.v1.worker.worker_base": {"WorkerWrapperBase": WorkerWrapperBase},
            "vllm.engine.arg_utils": {"EngineArgs": EngineArgs},
            "vllm.platforms": {"current_platform": platform},
            "vllm.v1.worker.cpu_worker": vars(cpu_host),
        }
        for name, content in modules.items():
            module = ModuleType(name)
            module.__dict__.update(content, __name__=name)
            monkeypatch.setitem(sys.modules, name, module)
        register()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    for name in ("MEMACCT_VLLM", "MEMACCT_REPORT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return Host(monkeypatch)


def worker(additional_config: object = None) -> Worker:
    return Worker(1 << 30, additional_config)


def session(of: Worker) -> Any:
    return vars(of).get("_memacct_session")


def test_a_worker_that_is_not_enabled_gets_nothing(host: Host) -> None:
    of = worker()
    assert host.WorkerWrapperBase(of).init_device() == "ready"
    assert session(of) is None


def test_an_enabled_worker_is_followed(host: Host) -> None:
    of = worker(NATIVE)
    assert host.WorkerWrapperBase(of).init_device() == "ready"
    assert not session(of).is_initialising
    assert "determine_available_memory" in vars(of)


def test_a_missing_class_of_the_host_does_not_stop_the_other_hook(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker_base = ModuleType("vllm.v1.worker.worker_base")
    arg_utils = ModuleType("vllm.engine.arg_utils")
    vars(arg_utils)["EngineArgs"] = kind = type("EngineArgs", (), {"create_engine_config": len})
    for module in (worker_base, arg_utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    register()
    assert kind.__dict__["create_engine_config"] is not len
    assert "worker_base was not hooked" in caplog.text


@pytest.mark.parametrize("missing", ["vllm_config", "device_config"])
def test_a_worker_without_what_is_read_is_left_alone(host: Host, missing: str) -> None:
    of = worker(NATIVE)
    delattr(of, missing)
    assert host.WorkerWrapperBase(of).init_device() == "ready"
    assert session(of) is None


def test_a_configuration_that_cannot_be_had_is_no_error(host: Host) -> None:
    class Odd:
        @property
        def additional_config(self) -> object:
            raise HostError("not here")

    of = worker()
    of.vllm_config = Odd()  # type: ignore[assignment]
    assert host.WorkerWrapperBase(of).init_device() == "ready"


def test_a_wrong_configuration_is_an_error(host: Host) -> None:
    with pytest.raises(ConfigError, match="profilerr"):
        host.WorkerWrapperBase(worker({"memacct": {"profilerr": 1}})).init_device()


class Sealed(Worker):
    """Lets nobody replace its methods."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "determine_available_memory":
            raise AttributeError(f"{name} is read-only")
        super().__setattr__(name, value)


def test_a_fault_before_the_initialisation_leaves_stock(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    of = Sealed(1 << 30, NATIVE)
    assert host.WorkerWrapperBase(of).init_device() == "ready"
    assert not session(of).is_initialising
    assert "From here on the profiling is vLLM's own" in caplog.text


def test_a_fault_before_the_initialisation_is_raised_where_strict(host: Host) -> None:
    of = Sealed(1 << 30, STRICT)
    with pytest.raises(AttributeError, match="read-only"):
        host.WorkerWrapperBase(of).init_device()
    assert not session(of).is_initialising


def test_a_failed_initialisation_can_be_tried_again(host: Host) -> None:
    of = worker(NATIVE)
    of.failures = 1
    wrapper = host.WorkerWrapperBase(of)
    with pytest.raises(HostError):
        wrapper.init_device()
    first = session(of)
    assert not first.is_initialising
    assert wrapper.init_device() == "ready"
    assert session(of) is first


def test_without_its_own_modules_the_host_goes_on(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("_attach", "_config"):  # as in an installation with files missing
        monkeypatch.setitem(sys.modules, f"memacct.integrations.vllm.{name}", None)
    assert host.WorkerWrapperBase(worker(NATIVE)).init_device() == "ready"
    assert host.EngineArgs(NATIVE).create_engine_config() is not None
    assert caplog.text.count("profiling stays stock") == 2


def test_the_main_process_reports(host: Host, tmp_path: Path) -> None:
    config = {"memacct": {"profiler": "native", "report_dir": str(tmp_path)}}
    host.EngineArgs(config).create_engine_config()
    (path,) = tmp_path.glob("vllm-*-main.json")
    told = json.loads(path.read_text())
    assert told["profiler"] == "native"
    assert told["overhead_ns"] > 0


def unwritable(tmp_path: Path, **keys: object) -> dict[str, object]:
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "folder")
    return {"memacct": {"profiler": "native", "report_dir": folder, **keys}}


def test_a_report_that_cannot_be_written_does_not_end_the_engine(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert host.EngineArgs(unwritable(tmp_path)).create_engine_config() is not None
    assert "vLLM goes on" in caplog.text


def test_a_report_that_cannot_be_written_is_an_error_where_strict(
    host: Host, tmp_path: Path
) -> None:
    with pytest.raises(NotADirectoryError):
        host.EngineArgs(unwritable(tmp_path, strict=True)).create_engine_config()


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("", "MEMACCT_"),
        (" ", "MEMACCT_"),
        ("MINE_", "MINE_,MEMACCT_"),
        ("A_, B_", "A_, B_,MEMACCT_"),
        ("A_, MEMACCT_ ,B_", "A_, MEMACCT_ ,B_"),
    ],
)
def test_rays_prefixes_keep_what_the_user_set(given: str, result: str) -> None:
    assert _ray.with_prefix(given) == result


RAY_EXECUTOR = type("RayExecutor", (), {"uses_ray": True})


@pytest.mark.parametrize(
    ("parallel", "environ", "copied"),
    [
        ({"distributed_executor_backend": "ray"}, {"MEMACCT_VLLM": "1"}, True),
        ({"distributed_executor_backend": RAY_EXECUTOR}, {"MEMACCT_REPORT_DIR": "/r"}, True),
        ({"data_parallel_backend": "ray"}, {"MEMACCT_VLLM": "1"}, True),
        ({"distributed_executor_backend": "ray"}, {}, False),
        ({"distributed_executor_backend": "mp"}, {"MEMACCT_VLLM": "1"}, False),
        ({}, {"MEMACCT_VLLM": "1"}, False),
    ],
)
def test_rays_workers_get_memaccts_variables(
    parallel: dict[str, object], environ: dict[str, str], copied: bool
) -> None:
    before = dict(environ)
    _ray.reach_ray_workers(SimpleNamespace(**parallel), environ)
    assert environ == before | ({_ray.VARIABLE: "MEMACCT_"} if copied else {})


def test_enabling_by_the_environment_reaches_rays_workers(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMACCT_VLLM", "1")
    monkeypatch.setenv(_ray.VARIABLE, "MINE_")
    arguments = host.EngineArgs(None)
    arguments.backend = "ray"
    arguments.create_engine_config()
    assert os.environ[_ray.VARIABLE] == "MINE_,MEMACCT_"
