"""The registry of an engine's processes: who is in it, who is not any more, and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from memacct.integrations.vllm import _family, _family_hooks, _family_siblings, register_sibling
from memacct.integrations.vllm._family import ID_VARIABLE, PROCESS_VARIABLE, Family
from memacct.integrations.vllm._family_files import FOLDER_VARIABLE, Entry, Registry, sweep
from memacct.integrations.vllm._family_processes import (
    ancestors,
    environ_of,
    is_same_process,
    pid_namespace,
    start_ticks,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that belongs to no engine yet, and where engines are registered."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for variable in (ID_VARIABLE, PROCESS_VARIABLE):
        monkeypatch.setenv(variable, "")
    monkeypatch.delenv("MEMACCT_VLLM", raising=False)
    fresh = Family()
    fresh._hooks_forks = True  # pytest's own forks are nobody's daemons
    monkeypatch.setattr(_family, "family", fresh)
    return tmp_path


def standing_still(env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A process that runs its program by now, until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with standing_still() as process:
        yield process
        process.kill()


def entry_of(pid: int, role: str = "helper", **known: Any) -> Entry:
    return Entry(
        pid=pid, role=role, started_ticks=start_ticks(pid), namespace=pid_namespace(), **known
    )


def pids(registry: Registry) -> list[int]:
    return [entry.pid for entry in registry.entries().values()]


# ---------------------------------------------------------------- files


def test_an_entry_is_read_as_it_was_written(folder: Path) -> None:
    registry = Registry("engine")
    entry = entry_of(
        os.getpid(), "worker", rank=3, dp_rank=1, device_uuid="GPU-0", driver_pid=77, belongs_to=5
    )
    registry.write(entry)
    assert registry.entries() == {(entry.namespace, entry.pid): entry}
    assert (folder / "engine").stat().st_mode & 0o777 == 0o700


def test_a_later_entry_of_a_process_takes_the_place_of_the_earlier(folder: Path) -> None:
    del folder
    registry = Registry("engine")
    registry.write(entry_of(os.getpid(), "EngineCore"))
    registry.write(entry_of(os.getpid(), "worker"))
    assert [entry.role for entry in registry.entries().values()] == ["worker"]


@pytest.mark.usefixtures("folder")
def test_an_ended_process_is_no_entry_and_its_file_goes(child: subprocess.Popen[bytes]) -> None:
    registry = Registry("engine")
    registry.write(entry_of(child.pid))
    assert pids(registry) == [child.pid]
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert pids(registry) == []
    assert list(registry.folder.iterdir()) == []


@pytest.mark.usefixtures("folder")
def test_a_reused_number_is_another_process(child: subprocess.Popen[bytes]) -> None:
    registry = Registry("engine")
    entry = entry_of(child.pid)
    assert entry.started_ticks is not None
    registry.write(replace(entry, started_ticks=entry.started_ticks - 1))
    assert pids(registry) == []
    registry.write(entry)
    assert pids(registry) == [child.pid]


@pytest.mark.usefixtures("folder")
def test_a_process_of_another_namespace_is_not_looked_up_here() -> None:
    registry = Registry("engine")
    entry = Entry(pid=1 << 22, role="worker", started_ticks=1, namespace=1, driver_pid=9)
    registry.write(entry)
    assert not entry.is_here
    assert list(registry.entries().values()) == [entry]


def test_what_is_no_entry_is_passed_over(folder: Path) -> None:
    registry = Registry("engine")
    registry.write(entry_of(os.getpid()))
    for number, text in enumerate(["", "{", "[]", "{}", '{"pid": 1}', "null"]):
        (folder / "engine" / f"0-{number}.json").write_text(text)
    assert pids(registry) == [os.getpid()]


def test_a_folder_open_to_others_is_refused(folder: Path) -> None:
    (folder / "engine").mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="only this user"):
        Registry("engine").write(entry_of(os.getpid()))
    with pytest.raises(PermissionError, match="only this user"):
        Registry("engine").entries()


def test_the_default_folder_must_be_private_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / f"memacct-{os.geteuid()}").mkdir(mode=0o777)
    (tmp_path / f"memacct-{os.geteuid()}").chmod(0o777)
    with pytest.raises(PermissionError, match="0700"):
        Registry("engine").write(entry_of(os.getpid()))


def test_any_name_makes_one_folder_below_the_base(folder: Path) -> None:
    names = ["../../etc", "a/b", "", ".", "..", "x" * 300, "ä", "plain-1"]
    folders = {Registry(name).folder for name in names}
    assert len(folders) == len(names)
    assert {path.parent for path in folders} == {folder}
    assert all(path.name not in ("", ".", "..") for path in folders)


def test_sweeping_takes_what_ended_engines_left(
    folder: Path, child: subprocess.Popen[bytes]
) -> None:
    Registry("alive").write(entry_of(os.getpid()))
    Registry("ended").write(entry_of(child.pid))
    child.kill()
    child.wait()
    sweep()
    assert [path.name for path in folder.iterdir()] == ["alive"]


# ---------------------------------------------------------------- /proc


def test_a_process_is_known_by_its_start(child: subprocess.Popen[bytes]) -> None:
    started = start_ticks(child.pid)
    assert started is not None
    assert is_same_process(child.pid, started)
    assert not is_same_process(child.pid, started + 1)
    child.kill()
    child.wait()
    assert not is_same_process(child.pid, started)


def test_ancestors_end_at_the_first_process(child: subprocess.Popen[bytes]) -> None:
    found = list(ancestors(child.pid))
    assert found[0] == os.getpid()
    assert found[-1] == 1 or len(found) < 64


def test_only_the_asked_variables_are_read() -> None:
    environ = {**os.environ, "MEMACCT_A": "1=2", "MEMACCT_B": ""}
    with standing_still(environ) as process:
        found = environ_of(process.pid, ("MEMACCT_A", "MEMACCT_B", "MEMACCT_C"))
        process.kill()
    assert found == {"MEMACCT_A": "1=2", "MEMACCT_B": ""}
    assert environ_of(process.pid, ("MEMACCT_A",)) is None


# ---------------------------------------------------------------- engines


def test_two_engines_of_one_process_have_two_names(folder: Path) -> None:
    del folder
    _family.begin_engine("LLM_CLASS")
    first = os.environ[ID_VARIABLE]
    _family.begin_engine("LLM_CLASS")
    assert os.environ[ID_VARIABLE] != first
    assert [entry.role for entry in _family.family.entries()] == [_family.USER]


@pytest.mark.usefixtures("folder")
def test_a_name_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ID_VARIABLE, "mine")
    _family.begin_engine("OPENAI_API_SERVER")
    assert os.environ[ID_VARIABLE] == "mine"
    assert [entry.role for entry in _family.family.entries()] == [_family.API_SERVER]


@pytest.mark.usefixtures("folder")
def test_an_api_server_keeps_the_name_of_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    _family.begin_engine("OPENAI_API_SERVER")
    first = os.environ[ID_VARIABLE]
    monkeypatch.setattr("multiprocessing.process._current_process._name", "ApiServer_1")
    _family.begin_engine("OPENAI_API_SERVER")
    assert os.environ[ID_VARIABLE] == first


@pytest.mark.usefixtures("folder")
def test_without_a_named_engine_nobody_registers() -> None:
    _family.join_engine_core(None)
    assert _family.family.entries() == []
    with pytest.raises(ValueError, match="belongs to no engine"):
        register_sibling(os.getpid())


@pytest.mark.usefixtures("folder")
def test_what_is_registered_by_hand_must_exist(child: subprocess.Popen[bytes]) -> None:
    _family.begin_engine("LLM_CLASS")
    register_sibling(child.pid, role="decoder")
    assert {e.role for e in _family.family.entries()} == {_family.USER, "decoder"}
    child.kill()
    child.wait()
    with pytest.raises(ValueError, match=f"no process {child.pid}"):
        register_sibling(child.pid)


@pytest.mark.usefixtures("folder")
def test_a_users_process_stays_one_when_the_core_is_in_it() -> None:
    _family.begin_engine("LLM_CLASS")
    _family.join_engine_core(None)
    assert [entry.role for entry in _family.family.entries()] == [_family.USER]


@pytest.mark.parametrize("config", [{"memacct": {"profiler": "native"}}, {}])
def test_the_core_of_a_stock_engine_does_not_join_the_enabled_one(
    folder: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    del folder
    monkeypatch.setenv(ID_VARIABLE, "engine-of-the-same-process")
    _family_hooks.engine_core_starts(SimpleNamespace(additional_config=config))
    expected = [_family.ENGINE_CORE] if config else []
    assert [entry.role for entry in _family.family.entries()] == expected


def test_an_unusable_folder_is_said_once_and_ends_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.environ[ID_VARIABLE] = "mine"
    (folder.parent / "file").write_text("")
    os.environ[FOLDER_VARIABLE] = str(folder.parent / "file" / "engines")
    _family.begin_engine("LLM_CLASS")
    _family.join_engine_core(None)
    assert _family.family.entries() == []
    assert "not usable" in _family_siblings.why_siblings_unknown(None)
    assert sum("not usable" in record.message for record in caplog.records) == 1


FORKS = """
import json, os, sys
from memacct.integrations.vllm import _family
os.environ["MEMACCT_ENGINE_ID"] = "engine"
for role in sys.argv[1:]:
    _family.family.join(role)
reader, writer = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:  # a daemon: its parent ends
        os.setsid()
        os.write(writer, b".")
        os.read(0, 1)
    os._exit(0)
os.wait()
os.read(reader, 1)
print(json.dumps([[e.role, e.belongs_to, e.pid] for e in _family.family.entries()]), flush=True)
"""


@pytest.mark.parametrize(
    "roles", [(_family.ENGINE_CORE,), (_family.USER,), (_family.WORKER, _family.USER)]
)
def test_a_forked_daemon_is_its_makers_unless_a_users(folder: Path, roles: tuple[str, ...]) -> None:
    del folder
    with subprocess.Popen(
        [sys.executable, "-c", FORKS, *roles], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        entries = json.loads(process.stdout.readline())
        process.communicate()
    daemons = [[said, of] for said, of, pid in entries if pid != process.pid]
    role = roles[-1]  # what it has become
    expected = [] if role == _family.USER else [[f"fork of {role}", process.pid]]
    assert daemons == expected
