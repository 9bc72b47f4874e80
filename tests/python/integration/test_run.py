"""``memacct run``: waits, chooses, reserves, and is not noticed by the program that it starts."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from memacct._units import GIB, MIB
from memacct.cli import app
from memacct.reservations import Reservations
from memacct.sim import SimulatedGpu, scenarios
from memacct.sim._tenant import control_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONTEXT_BYTES = 400 * MIB
# Says which GPU it was given and when, and ends with its standard input.
SHOW = (
    "import os, sys, time; print(time.monotonic_ns(), os.environ.get('CUDA_VISIBLE_DEVICES'), "
    "os.environ.get('MEMACCT_VLLM'), flush=True); sys.stdin.read()"
)
# Says each signal that it gets, once it is ready; ends with SIGTERM, with the number of the rest.
COUNT = """
import signal, sys
got = []
def note(number, frame):
    if number == signal.SIGTERM:
        sys.exit(len(got))
    got.append(number)
    print(number, flush=True)
for number in (1, 2, 3, 10, 12, 14, 15, 28):
    signal.signal(number, note)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture(scope="module")
def gpu() -> Iterator[SimulatedGpu]:
    """A machine with two GPUs of 32 GiB, of which the driver keeps 500 MiB."""
    with SimulatedGpu(total_bytes="32GiB", count=2, reserved_bytes="500MiB") as made:
        yield made


@pytest.fixture
def uuids(gpu: SimulatedGpu) -> list[str]:
    return [device.uuid for device in gpu.status().devices]


@pytest.fixture
def start(gpu: SimulatedGpu, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``memacct run`` with these arguments; its reservations are this test's."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str, on: SimulatedGpu = gpu, **options: Any) -> Any:
            environ = options.pop("environ", {})
            process = on.popen(
                [sys.executable, "-m", "memacct", "run", *arguments],
                env={**os.environ, "MEMACCT_RESERVATIONS": str(tmp_path / "held"), **environ},
                **{
                    "stdin": subprocess.PIPE,
                    "stdout": subprocess.PIPE,
                    "stderr": subprocess.PIPE,
                    "text": True,
                    **options,
                },
            )
            stack.callback(end, process)
            return process

        yield begin


def end(process: subprocess.Popen[str]) -> None:
    """Closes the pipes, at which the programs end, and waits."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        process.communicate(timeout=30)


def line_with(stream: Any, words: str) -> str:
    """Returns the next line that has these words."""
    for line in stream:
        if words in line:
            return str(line)
    raise AssertionError(f"no line with {words!r}")


def until(true: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


# ---------------------------------------------------------------- choosing and waiting


def test_it_takes_the_gpu_with_the_most_free(
    gpu: SimulatedGpu, uuids: list[str], start: Callable[..., Any]
) -> None:
    with gpu.tenant("3GiB", device=0):
        out, err = start("--still", "0.1s", "--", sys.executable, "-c", SHOW).communicate(
            timeout=30
        )
    assert out.split()[1:] == [uuids[1], "1"]
    assert f"GPU 1 ({uuids[1]}), 31.51 GiB available" in err


def test_it_waits_until_a_neighbour_has_released_and_stands_still(
    gpu: SimulatedGpu, uuids: list[str], start: Callable[..., Any]
) -> None:
    with gpu.tenant("20GiB", device=0) as first, gpu.tenant("25GiB", device=1) as second:
        process = start(
            *("--need", "20GiB", "--still", "0.3s", "--wait", "60s", "--"),
            *(sys.executable, "-c", SHOW),
        )
        line = line_with(process.stderr, "waiting for 20.00 GiB on a GPU")
        assert f"GPU 1: 6.12 GiB free, held by pid {second.pid} memacct_simctl 25.39 GiB" in line
        first.free("2GiB")  # not enough
        released = first.free("10GiB")
        out, _ = process.communicate(timeout=60)
    started_ns, uuid, _ = out.split()
    assert uuid == uuids[0]
    assert int(started_ns) - released.at_ns > 0.3e9


def test_too_late_is_124_and_says_who_holds_what(
    gpu: SimulatedGpu, start: Callable[..., Any]
) -> None:
    with gpu.tenant("20GiB", device=0) as one, gpu.tenant("25GiB", device=1):
        process = start("--need", "20GiB", "--still", "0.1s", "--wait", "0.3s", "--", "true")
        _, err = process.communicate(timeout=30)
    assert process.returncode == 124
    (line,) = [line for line in err.splitlines() if "not free and still within" in line]
    assert f"GPU 0: 11.12 GiB free, held by pid {one.pid} memacct_simctl 20.39 GiB" in line


def test_a_gpu_that_moves_is_not_taken(gpu: SimulatedGpu, start: Callable[..., Any]) -> None:
    with gpu.tenant("1GiB", device=0) as tenant:
        process = start(
            *("--gpu", "0", "--need", "20GiB", "--still", "1s", "--wait", "2s", "--", "true")
        )
        ends = time.monotonic() + 60
        while process.poll() is None:
            assert time.monotonic() < ends
            tenant.allocate("64MiB")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
            tenant.free("64MiB")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 124
    assert "moving" in err


@pytest.mark.parametrize(
    ("arguments", "environ", "wanted"),
    [
        (["--gpu", "1"], {}, "1"),
        (["--gpu", "1,0"], {}, "10"),
        ([], {"CUDA_VISIBLE_DEVICES": "1"}, "1"),
    ],
)
def test_a_choice_is_restricted(
    start: Callable[..., Any], arguments: list[str], environ: dict[str, str], wanted: str
) -> None:
    process = start(*arguments, "--still", "0s", "--", sys.executable, "-c", SHOW, environ=environ)
    out, _ = process.communicate(timeout=30)
    assert "".join(uuid[-1] for uuid in out.split()[1].split(",")) == wanted


def test_a_divided_gpu_is_started_on_by_its_instance(start: Callable[..., Any]) -> None:
    with scenarios.open("mig") as divided:
        instances = [each.uuid for each in divided.status().instances]
        options = ("--still", "0.1s", "--need", "9GiB", "--", sys.executable, "-c", SHOW)
        environ = {"CUDA_VISIBLE_DEVICES": ""}
        # The scenario names the first instance itself.
        out, err = start(*options, on=divided, environ=environ).communicate(timeout=30)
    assert out.split()[1:2] == instances[:1], err


def test_the_settings_of_the_program(
    uuids: list[str], start: Callable[..., Any], tmp_path: Path
) -> None:
    names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "MEMACCT_VLLM", "MEMACCT_REPORT_DIR")
    source = f"import os; print(*[os.environ.get(n) for n in {names!r}])"
    folder = tmp_path / "reports"
    process = start(
        *("--stock", "--by-index", "--gpu", uuids[1][:-1] + "1", "--still", "0.1s"),
        *("--report-dir", str(folder), "--", sys.executable, "-c", source),
    )
    out, err = process.communicate(timeout=30)
    assert out.split() == ["1", "PCI_BUS_ID", "0", str(folder)], err
    assert folder.is_dir()


# ---------------------------------------------------------------- reserving


def test_two_starts_at_once_take_different_gpus_and_a_third_waits(
    uuids: list[str], start: Callable[..., Any]
) -> None:
    options = ("--need", "20GiB", "--still", "0.2s")
    processes = [start(*options, "--", sys.executable, "-c", SHOW) for _ in range(2)]
    given = [process.stdout.readline().split()[1] for process in processes]
    assert sorted(given) == uuids
    third = start(*options, "--wait", "0.3s", "--", "true")
    _, err = third.communicate(timeout=30)
    assert third.returncode == 124
    assert "31.51 GiB free, 20.00 GiB of it reserved by another start" in err


def test_a_reservation_ends_with_a_run_that_is_killed(
    uuids: list[str], start: Callable[..., Any], tmp_path: Path
) -> None:
    process = start(
        *("--need", "20GiB", "--gpu", "0", "--still", "0.1s"),
        *("--", sys.executable, "-c", SHOW),
    )
    process.stdout.readline()
    held = Reservations(tmp_path / "held")
    assert held.promised() == {uuids[0]: 20 * GIB}
    (one,) = held.held()
    assert (one.pid, one.what) == (process.pid, os.path.basename(sys.executable))  # noqa: PTH119
    process.kill()
    process.wait(30)
    assert held.promised() == {}
    assert [path.name for path in held.folder.iterdir()] == ["lock"]


def test_a_reservation_falls_by_what_is_taken_and_ends_when_all_is(
    uuids: list[str], start: Callable[..., Any], tmp_path: Path
) -> None:
    process = start(
        *("--need", "20GiB", "--gpu", "0", "--still", "0.1s"),
        *("--", str(control_path()), "tenant", "0"),
    )
    process.stdout.readline()  # it has a context
    held = Reservations(tmp_path / "held")
    first = {uuids[0]: 20 * GIB - CONTEXT_BYTES}
    until(lambda: held.promised() == first, "the context is taken off")
    tell(process, "allocate", 8 * GIB)
    second = {uuids[0]: 12 * GIB - CONTEXT_BYTES}
    until(lambda: held.promised() == second, "8 GiB are taken off")
    tell(process, "free", 8 * GIB)
    tell(process, "allocate", 4 * GIB)
    # What it has given back it may take again, but it was not promised more than once.
    for _ in range(12):  # two looks of it
        assert held.promised() == second
        time.sleep(0.1)
    tell(process, "allocate", 16 * GIB)
    until(lambda: held.promised() == {}, "all is taken")


def tell(process: subprocess.Popen[str], action: str, size_bytes: int) -> None:
    """Has a tenant act, which answers when the device's account has changed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{action}\t{size_bytes}\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["error"] == ""


# ---------------------------------------------------------------- the program's end, and signals


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--still", "0.1s", "--", "sh", "-c", "exit 7"], 7, "after 0."),
        (["--still", "0.1s", "--", "sh", "-c", "kill -KILL $$"], 137, "after 0."),
        (["--gpu", "none", "--", "sh", "-c", "exit 0"], 0, ""),
        (["--gpu", "none", "--", "/nonexistent/program"], 127, "program: not found"),
        (["--gpu", "none", "--", "/etc/passwd"], 126, "/etc/passwd: Permission denied"),
        (["--need", "40GiB", "--", "true"], 125, "is more than a GPU here has when it is empty"),
        (["--gpu", "7", "--", "true"], 125, "gpu='7' names none of 0 (GPU-"),
        (["--count", "3", "--", "true"], 125, "count=3: there are 2 GPUs"),
    ],
)
def test_exit_status(
    start: Callable[..., Any], arguments: list[str], status: int, says: str
) -> None:
    process = start(*arguments)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--wait", "soon"], "'soon' is not a time"),
        (["--need", "much"], "'much' is not a size"),
        (["--gpu", "none", "--report-dir", "/proc/none"], "/proc/none"),
    ],
)
def test_a_wrong_value_is_one_sentence_and_125(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["run", *arguments, "--", "true"])
    assert result.exit_code == 125
    (line,) = result.stderr.splitlines()
    assert line.startswith("memacct: ")
    assert says in line


def test_without_a_gpu_it_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "memacct", "run", "--", "true"],
        env={**os.environ, "MEMACCT_NVML_LIBRARY": str(tmp_path / "none.so")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert line.startswith("memacct: no GPU can be read")
    assert "--gpu none" in line


def test_signals_are_passed_on_once(start: Callable[..., Any]) -> None:
    process = start("--gpu", "none", "--", sys.executable, "-c", COUNT)
    assert process.stdout.readline() == "ready\n"
    sent = ("SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGWINCH")
    for name in sent:
        number = getattr(signal, name)
        process.send_signal(number)
        assert process.stdout.readline() == f"{number:d}\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == len(sent)


@contextlib.contextmanager
def in_a_terminal(source: str) -> Iterator[tuple[int, Any]]:
    """Runs a program by ``memacct run`` in a terminal of its own; gives its pid and the screen."""
    command = [sys.executable, "-m", "memacct", "run", "--gpu", "none", "--"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*command, sys.executable, "-c", source])  # noqa: S606
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        show(screen, b"ready")
        yield pid, screen


def show(screen: Any, words: bytes) -> None:
    """Waits until the screen shows these words."""
    shown = b""
    while words not in shown:
        shown += screen.read(64)


def test_ctrl_c_in_a_terminal_reaches_the_program() -> None:
    with in_a_terminal(COUNT) as (pid, screen):
        screen.write(b"\x03")
        show(screen, b"2\r\n")
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_what_the_terminal_sends_is_not_sent_again() -> None:
    # The program is in another group than the terminal's, where no Ctrl-C reaches it.
    with in_a_terminal(f"import os; os.setpgrp()\n{COUNT}") as (pid, screen):
        screen.write(b"\x03")
        show(screen, b"^C")  # we have been sent it by now
        os.kill(pid, signal.SIGTERM)  # which comes after it: the lower number is first
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_program_that_is_stopped_stops_us_and_goes_on_with_us(start: Callable[..., Any]) -> None:
    # In a group of its own: the kernel lets nobody stop a group that no shell could continue.
    process = start("--gpu", "none", "--", sys.executable, "-c", COUNT, preexec_fn=os.setpgrp)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTSTP)
    found, status = os.waitpid(process.pid, os.WUNTRACED)
    assert found == process.pid
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == f"{signal.SIGUSR1:d}\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1


def test_vllm_without_the_plugin_is_warned_of(start: Callable[..., Any]) -> None:
    process = start("--gpu", "none", "--", "true", environ={"VLLM_PLUGINS": "lora"})
    assert "VLLM_PLUGINS=lora leaves memacct's plugin out" in process.communicate(timeout=30)[1]
