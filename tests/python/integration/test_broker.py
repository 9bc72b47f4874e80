"""The broker: what it tells whom, and which of its answers a reading believes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess
from hypothesis import given
from hypothesis import strategies as st
from pid_namespace import in_pid_namespace, needs_initial, needs_unshare

from memacct import _core
from memacct._errors import ConfigError
from memacct._units import GIB, MIB
from memacct.broker import INITIAL_PID_NAMESPACE, Broker, own_pid_namespace
from memacct.sim import Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
NEIGHBOUR_BYTES = GIB + CONTEXT_BYTES
OUTER = Faults(pids="outer")
CLIENT = """
import socket, sys
made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
made.connect(sys.argv[1])
print(made.recv(200).decode(), end="")
"""


@contextlib.contextmanager
def serving(path: Path) -> Iterator[Broker]:
    with Broker(path) as broker:
        thread = threading.Thread(target=broker.serve)
        thread.start()
        try:
            yield broker
        finally:
            broker.stop()
            thread.join()


def connect(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.connect(str(path))  # waits while the queue is full
    made.settimeout(30)
    return made


def ask(path: Path) -> str:
    with connect(path) as made:
        return made.recv(200).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker" / "broker.sock"


# ---------------------------------------------------------------- the helper itself


def test_it_tells_the_caller_its_own_number(path: Path) -> None:
    with serving(path) as broker:
        line = f"memacct-broker 1 pid {os.getpid()} pidns {own_pid_namespace()}\n"
        assert ask(path) == line
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                CLIENT,
                str(path),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        told, _ = child.communicate(timeout=30)
        assert told == line.replace(str(os.getpid()), str(child.pid), 1)
        assert broker.answers_count == 2
    assert not path.exists()


def test_clients_that_say_nothing_or_leave_hold_nobody_up(path: Path) -> None:
    with serving(path) as broker:
        open_fds = len(list(Path("/proc/self/fd").iterdir()))
        idle = [connect(path) for _ in range(100)]
        for made in idle[:50]:
            made.close()
        for made in idle[50:]:
            with contextlib.suppress(OSError):  # it may have closed by now
                made.send(b"x" * 1000)
        assert ask(path).startswith("memacct-broker 1 pid ")
        for made in idle[50:]:
            made.close()
        assert ask(path)
        assert broker.answers_count >= 2
        assert len(list(Path("/proc/self/fd").iterdir())) <= open_fds + 1


def test_what_a_killed_broker_left_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    with serving(path):
        assert ask(path)


def test_nothing_else_is_replaced(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is there and is no socket"), Broker(path):
        pass
    assert path.read_text() == "precious"
    path.unlink()
    with serving(path):
        with pytest.raises(ConfigError, match="another process listens there"), Broker(path):
            pass
        assert ask(path)
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "sock"
    with pytest.raises(ConfigError, match="cannot be made: File exists: .*file"), Broker(inside):
        pass
    with pytest.raises(ConfigError, match="longer than 107 bytes"), Broker("/" + "x" * 107):
        pass


def test_where_it_may_not_be_made(path: Path) -> None:
    """Tried by a child without root's rights, in a folder that is root's alone."""
    if os.geteuid() != 0:
        pytest.skip("only root can give its rights up")
    path.parent.mkdir(mode=0o700)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setuid(65534)
        try:
            Broker(path).__enter__()
        except ConfigError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        assert "cannot be made: Permission denied" in told.read()
    os.wait()


def test_whoever_sees_it_may_connect(path: Path) -> None:
    before = os.umask(0o077)
    try:
        with Broker(path):
            assert path.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_a_socket_that_is_not_its_own_stays(path: Path) -> None:
    with Broker(path):
        path.unlink()
        path.touch()
    assert path.exists()


@needs_initial
def test_the_command(path: Path) -> None:
    command = [sys.executable, "-m", "memacct", "broker", "--socket", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == f"memacct broker listens at {path}\n"
            assert f" pid {os.getpid()} " in ask(path)
            second = subprocess.run(command, check=False, capture_output=True, text=True)
        finally:  # whatever is found: it would be waited for without an end
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert second.returncode == 2
    assert "another process listens there" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert not path.exists()


@needs_unshare
def test_the_command_refuses_to_be_useless(path: Path) -> None:
    command = [sys.executable, "-m", "memacct", "broker", "--socket", str(path)]
    full = ["unshare", "-pf", "--mount-proc", *command]
    done = subprocess.run(full, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not the machine's own" in done.stderr
    assert not path.exists()


# ---------------------------------------------------------------- its answer


@given(st.integers(1, 4194304))
def test_a_number_of_the_machines_namespace(pid: int) -> None:
    message = f"memacct-broker 1 pid {pid} pidns {INITIAL_PID_NAMESPACE}\n"
    assert _core._parse_broker_answer(message.encode()) == (pid, "")
    assert _core._parse_broker_answer(message.encode()[:-1])[0] is None
    assert _core._parse_broker_answer(message.encode() + b"\n")[0] is None


@given(st.integers(1, 4194304), st.integers(0, 2**64 - 1))
def test_a_number_of_any_other_namespace(pid: int, inode: int) -> None:
    told = _core._parse_broker_answer(f"memacct-broker 1 pid {pid} pidns {inode}\n".encode())
    assert (told[0] == pid) is (inode == INITIAL_PID_NAMESPACE)
    assert (told[1] == "") is (inode == INITIAL_PID_NAMESPACE)


@given(st.binary(max_size=200))
def test_anything_else_is_no_answer(message: bytes) -> None:
    pid, reason = _core._parse_broker_answer(message)
    assert pid is None
    assert reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("memacct-broker 1 pid 0 pidns 4026531836\n", "it cannot see this process"),
        ("memacct-broker 2 whatever\n", "it speaks version 2, not 1"),
        ("memacct-broker 1 pid 4194305 pidns 4026531836\n", "its answer is not understood"),
        ("memacct-broker 1 pid -5 pidns 4026531836\n", "its answer is not understood"),
        ("memacct-broker 1 pid 5 pidns 18446744073709551616\n", "its answer is not understood"),
        ("memacct-broker 1 pid 5 pidns 4026532000\n", "it is in pid namespace 4026532000"),
    ],
)
def test_answers_without_a_number(message: str, reason: str) -> None:
    pid, text = _core._parse_broker_answer(message.encode())
    assert pid is None
    assert reason in text


# ---------------------------------------------------------------- which number is believed


def test_the_brokers_number_is_the_last_resort() -> None:
    rows = [(7, GIB), (31000, 2 * GIB)]
    found = _core._find_own(rows, pid=9, numbers_ours=False, broker_pid=31000)
    assert found[:3] == ("broker", 31000, 2 * GIB)
    # The list is in our own numbers: the broker's is somebody else's there.
    assert _core._find_own(rows, pid=9, numbers_ours=True, broker_pid=31000)[0] == "none"
    assert _core._find_own(rows, pid=7, numbers_ours=True, broker_pid=31000)[:2] == ("pid", 7)
    # Nobody knows whose numbers they are.
    assert _core._find_own(rows, pid=9, broker_pid=31000)[0] == "none"
    assert _core._find_own(rows, pid=7, broker_pid=31000)[0] == "none"
    # A stranger has our number.
    assert _core._find_own(rows, pid=7, numbers_ours=False, broker_pid=31000)[1] == 31000
    # It is not listed, not measured, or less than we hold.
    assert _core._find_own(rows, pid=9, numbers_ours=False, broker_pid=31001)[0] == "none"
    unknown: list[tuple[int, int | None]] = [(31000, None)]
    assert _core._find_own(unknown, pid=9, numbers_ours=False, broker_pid=31000)[0] == "none"
    for reserved_bytes, source in ((2 * GIB, "broker"), (2 * GIB + 1, "none")):
        found = _core._find_own(
            rows, pid=9, numbers_ours=False, broker_pid=31000, reserved_bytes=reserved_bytes
        )
        assert found[0] == source


# ---------------------------------------------------------------- in a container


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB") as machine:
        yield machine


def contained(
    gpu: SimulatedGpu, folder: Path, socket_path: Path, faults: Faults = OUTER, **options: Any
) -> DeviceProcess:
    prefix, env = in_pid_namespace(folder / "host-proc", **options)
    env["MEMACCT_BROKER"] = str(socket_path)
    return DeviceProcess(gpu, faults=faults, prefix=prefix, env=env)


@needs_unshare
@needs_initial
def test_a_container_learns_its_number_without_an_allocation(
    gpu: SimulatedGpu, tmp_path: Path, path: Path
) -> None:
    with (
        serving(path) as broker,
        gpu.tenant("1GiB") as stranger,
        contained(gpu, tmp_path, path, pid=stranger.pid) as process,
    ):
        assert process.pid == stranger.pid  # in there; the list has both under outer numbers
        process.run("context()")
        for _ in range(3):
            reading = process.read()
            assert reading["attribution"]["source"] == "broker"
            assert reading["own_bytes"] == CONTEXT_BYTES
            assert (reading["tree_bytes"], reading["foreign_bytes"]) == (0, NEIGHBOUR_BYTES)
            assert reading["unattributed_bytes"] == 0
        assert broker.answers_count == 1  # once a process
        assert process.run("result = attempt(_core.identify, 0)")["source"] == "broker"
        assert process.run("result = _core.driver_diagnosis()['process']['identified_pid']") is None


@needs_unshare
@needs_initial
def test_each_fork_asks_for_itself(gpu: SimulatedGpu, tmp_path: Path, path: Path) -> None:
    with serving(path) as broker, contained(gpu, tmp_path, path) as process:
        numbers = set()
        for count in (1, 2):
            child = process.run("result = in_fork('context(); reading(); result = reading()')")
            assert child["result"]["attribution"]["source"] == "broker"
            assert child["result"]["own_bytes"] == CONTEXT_BYTES
            numbers.add(child["result"]["attribution"]["own_pid"])
            assert broker.answers_count == count
        assert len(numbers) == 2


@needs_unshare
@needs_initial
def test_it_is_not_asked_where_our_own_number_is_sure(
    gpu: SimulatedGpu, tmp_path: Path, path: Path
) -> None:
    with serving(path) as broker, contained(gpu, tmp_path, path, Faults()) as process:
        process.run("context()")
        assert process.read()["attribution"]["source"] == "pid"
        assert broker.answers_count == 0


HIDING = {
    "listed with 0 bytes": Faults(pid_bytes={"self": 0}),
    "in a list that the driver lacks": Faults(
        missing=[f"nvmlDeviceGetMPSComputeRunningProcesses{v}" for v in ("", "_v2", "_v3")]
    ),
}


@needs_unshare
@needs_initial
@pytest.mark.parametrize("hiding", HIDING)
def test_another_container_process_has_the_brokers_number(
    gpu: SimulatedGpu, tmp_path: Path, path: Path, hiding: str
) -> None:
    """The driver lists the container's numbers, ours not or without bytes; one is ours outside."""
    with serving(path), contained(gpu, tmp_path, path, HIDING[hiding], pid=4321) as process:
        process.run("os.environ['MEMACCT_SIM_LISTS'] = 'mps'; context()")
        (outside,) = [p.pid for p in gpu.status().devices[0].processes]
        process.run(f"Path('/proc/sys/kernel/ns_last_pid').write_text('{outside - 1}')")
        process.run(f"os.environ['MEMACCT_SIM_LISTS'] = 'compute'; child = in_tree({MIB})")
        assert process.run("result = child.process.pid") == outside
        reading = process.read()
        assert outside in [row["pid"] for row in reading["processes"]]
        assert reading["own_bytes"] is None
        assert reading["attribution"]["source"] == "none"


@needs_unshare
def test_a_broker_of_another_namespace_is_not_believed(
    gpu: SimulatedGpu, tmp_path: Path, path: Path
) -> None:
    program = (
        "import sys; from memacct.broker import Broker\n"
        "with Broker(sys.argv[1]) as b: print('up', flush=True); b.serve()"
    )
    command = ["unshare", "-pf", "--kill-child", "--mount-proc", sys.executable, "-c", program]
    with subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE, text=True) as wrong:
        try:
            assert wrong.stdout is not None
            assert wrong.stdout.readline() == "up\n"
            with gpu.tenant("1GiB"), contained(gpu, tmp_path, path) as process:
                process.run("context()")
                reading = process.read()
                assert reading["own_bytes"] is None
                assert reading["attribution"]["source"] == "none"
                assert "not in the machine's own" in reading["attribution"]["reason"]
        finally:
            wrong.kill()


@needs_unshare
def test_a_silent_broker_costs_one_wait(gpu: SimulatedGpu, tmp_path: Path, path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(path))
        silent.listen(8)
        silent.setblocking(False)
        with gpu.tenant("1GiB"), contained(gpu, tmp_path, path) as process:
            process.run("context()")
            for _ in range(2):
                reading = process.read()
                assert reading["own_bytes"] is None
                assert "no answer in time" in reading["attribution"]["reason"]
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


@needs_unshare
@pytest.mark.parametrize(
    ("name", "reason"), [("none.sock", "No such file"), ("x" * 200, "its path is too long")]
)
def test_a_broker_that_is_not_there(
    gpu: SimulatedGpu, tmp_path: Path, name: str, reason: str
) -> None:
    with gpu.tenant("1GiB"), contained(gpu, tmp_path, tmp_path / name) as process:
        process.run("context()")
        reading = process.read()
        assert reading["own_bytes"] is None
        assert reason in reading["attribution"]["reason"]
        process.run("result = attempt(_core.identify, 0)")
        assert process.read()["attribution"]["source"] == "fingerprint"
