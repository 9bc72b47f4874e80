"""Who the listed processes are, over their lives: ends, orphans, numbers that are used again."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import table_driver

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(table_driver.COMPILER is None, reason="a C compiler is needed"),
    pytest.mark.skipif(
        not table_driver.in_machines_namespace(), reason="listed pids mean nothing here"
    ),
]
CLONE3, SET_TID_SIZE_BYTES = 435, 80  # clone_args with set_tid, Linux 5.5

# Reads lines of JSON text, each the source of some Python, and answers with its `result`.
PROGRAM = """
import json, os, resource, subprocess, sys, time
from memacct import _core
from table_driver import set_table, sleeper
def owners(*pids):
    set_table([os.getpid(), *pids])
    (device,) = _core.read_devices("all")
    of_pid = {process.pid: process.owner for process in device.processes}
    assert of_pid[os.getpid()] == "own"
    return [of_pid[pid] for pid in pids]
def descriptors():
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return sum("pidfd" in link for link in links)
for line in sys.stdin:
    exec(json.loads(line))
    print(json.dumps(result), flush=True)
"""


class Reader:
    """A process with the table for a driver."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, source: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(source) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "it ended"
        return json.loads(line)

    def owners(self, *pids: int) -> list[str]:
        found: list[str] = self.run(f"result = owners(*{pids!r})")
        return found

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    library = table_driver.compile_table(tmp_path_factory.mktemp("libraries"))
    helpers = str(Path(table_driver.__file__).parent)
    return {**os.environ, "MEMACCT_NVML_LIBRARY": str(library), "PYTHONPATH": helpers}


@pytest.fixture
def reader(environ: dict[str, str]) -> Iterator[Reader]:
    made = Reader(environ)
    yield made
    made.close()


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    made = table_driver.sleeper()
    yield made
    made.kill()
    made.wait()


def test_an_orphan_of_the_tree_stays_of_the_tree(reader: Reader) -> None:
    pid = reader.run(
        """
parent = subprocess.Popen(["/bin/sh", "-c", "sleep 300 >/dev/null & echo $!; read line"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
result = int(parent.stdout.readline())
"""
    )
    assert reader.owners(pid) == ["tree"]
    reader.run("parent.communicate(); result = parent.returncode")  # its child is init's now
    assert reader.owners(pid) == ["tree"]
    reader.run(f"os.kill({pid}, 9); result = None")


def process_with_pid(pid: int) -> int:
    """Makes a process of that number, a child of this one; skips where that is not allowed."""
    chosen = ctypes.c_int32(pid)
    arguments = (ctypes.c_uint64 * 10)()  # exit_signal SIGCHLD, one set_tid
    arguments[4], arguments[8], arguments[9] = 17, ctypes.addressof(chosen), 1
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    made = syscall(CLONE3, ctypes.byref(arguments), SET_TID_SIZE_BYTES)
    if made == 0:
        os.execv(table_driver.SLEEP, ["sleep", "300"])  # noqa: S606 (a child of clone3)
    if made < 0:
        pytest.skip(f"no process with a number of our choice: {os.strerror(ctypes.get_errno())}")
    assert made == pid
    return int(made)


def test_a_number_that_is_used_again_is_another_process(reader: Reader) -> None:
    pid = reader.run("child = sleeper(); result = child.pid")
    assert reader.owners(pid) == ["tree"]
    reader.run("child.kill(); result = child.wait()")
    assert reader.owners(pid) == ["tree"]  # gone, and its memory still listed
    again = process_with_pid(pid)
    try:
        assert reader.owners(pid) == ["foreign"]
    finally:
        os.kill(again, 9)
        os.waitpid(again, 0)


def test_descriptors_are_closed_when_they_are_of_no_use(
    reader: Reader, neighbour: subprocess.Popen[bytes]
) -> None:
    child = reader.run("child = sleeper(); result = child.pid")
    assert reader.owners(neighbour.pid, child) == ["foreign", "tree"]
    watched = reader.run("result = descriptors()")
    if watched == 0:
        pytest.skip("no pidfds here")
    assert watched == 2
    assert reader.owners(neighbour.pid) == ["foreign"]
    assert reader.run("result = descriptors()") == 1
    in_fork = """
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, bytes([descriptors()]))
    os._exit(0)
os.wait()
result = [os.read(reading, 1)[0], descriptors()]
"""
    assert reader.run(in_fork) == [0, 1]
    neighbour.kill()
    neighbour.wait()
    assert reader.owners(neighbour.pid) == ["foreign"]
    assert reader.run("result = descriptors()") == 0
    reader.run("child.kill(); result = child.wait()")


def test_more_processes_than_descriptors(reader: Reader) -> None:
    """A quarter of the limit is watched; who else is listed is looked up, to the same end."""
    pids = reader.run(
        """
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
children = [sleeper() for _ in range(20)]
result = [child.pid for child in children]
"""
    )
    for _ in range(2):
        assert reader.owners(*pids) == ["tree"] * len(pids)
        assert reader.run("result = descriptors()") <= 16
    assert reader.run("for child in children: child.kill(); child.wait()\nresult = None") is None
