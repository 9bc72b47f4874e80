"""``memacct watch`` in a real terminal on the simulated GPU, and where there is no terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pty_screen import ENTERED, LEFT, PtyScreen

from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.sim import Tenant

MIB = 1 << 20
WATCH = [sys.executable, "-m", "memacct", "watch", "--interval", "0.1"]


@pytest.fixture(scope="module")
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", reserved_bytes="512MiB") as made:
        yield made


@pytest.fixture
def tenants(gpu: SimulatedGpu) -> Iterator[tuple[Tenant, Tenant]]:
    with gpu.tenant("7GiB") as one, gpu.tenant("3GiB") as other:
        yield one, other


def screen(gpu: SimulatedGpu, *options: str, **settings: Any) -> PtyScreen:
    environ = {**os.environ, "TERM": "xterm-256color"} | settings.pop("environ", {})
    environ.pop("COLUMNS", None)
    return PtyScreen([*WATCH, *options], start=gpu.popen, env=environ, **settings)


def test_a_release_is_an_event_with_its_size(
    gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant]
) -> None:
    with screen(gpu) as shown:
        shown.wait_text("processes 10.78")
        tenants[0].free("1946MiB")
        frame = shown.wait_text("released")
        (event,) = [line for line in frame if "released" in line]
        assert f"pid {tenants[0].pid} memacct_simctl released 1.90 GiB, holds 5.49 GiB" in event
        assert "s ago" in event
        tenants[1].allocate("1GiB")
        shown.wait_text(f"pid {tenants[1].pid} memacct_simctl took 1.00 GiB")
        tenants[1].kill()
        shown.wait_text(f"pid {tenants[1].pid} memacct_simctl ended, released 4.39 GiB")
        shown.type("q")
        assert shown.end() == 0
        assert shown.modes() == shown.before
        assert shown.output.endswith(LEFT)


@pytest.mark.parametrize(
    ("how", "status"),
    [("\x03", 130), ("\x1c", 131), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["ctrl-c", "ctrl-backslash", "SIGTERM", "SIGHUP"],
)
def test_the_terminal_is_as_it_was(
    gpu: SimulatedGpu, how: str | signal.Signals, status: int
) -> None:
    with screen(gpu) as shown:
        shown.wait_text("q quit")
        assert shown.modes() != shown.before  # keys come one by one, unseen
        assert ENTERED in shown.output
        if isinstance(how, signal.Signals):
            shown.process.send_signal(how)
        else:
            shown.type(how)
        assert shown.end() == status
        assert shown.modes() == shown.before
        assert shown.output.count(LEFT) == 1
        assert shown.output.endswith(LEFT)
        assert "\x1b[?25h" in shown.output  # the cursor is back


def test_it_follows_the_size(gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant]) -> None:
    # A look an hour: what redraws is the signal alone.
    with screen(gpu, "--interval", "3600", columns=120, lines=30) as shown:
        for columns, lines in ((120, 30), (80, 24), (45, 12), (20, 5), (200, 50)):
            shown.resize(columns, lines)
            frame = shown.wait(_is_whole(lines))
            assert max(map(len, frame)) <= columns
        assert str(tenants[0].pid) in "".join(shown.frame())


def _is_whole(lines: int) -> Callable[[list[str]], bool]:
    return lambda frame: len(frame) == lines and "q quit" in frame[-1]


def test_keys_pick_a_process_and_it_may_end(
    gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant]
) -> None:
    with screen(gpu, columns=100) as shown:
        shown.wait_text("processes 10.78")
        shown.type("\x1b[B\r")  # the first row: who holds most
        frame = shown.wait_text("7.39 own")
        assert frame[0].split()[4:6] == ["pid", str(tenants[0].pid)]
        shown.type("s")
        shown.wait_text("sort: rss")
        shown.type("p")
        shown.wait_text("PAUSED")
        tenants[0].kill()
        shown.type(" ")
        frame = shown.wait_text(f"pid {tenants[0].pid} has ended")
        shown.wait_text("processes 3.39")
        shown.type("?")
        shown.wait_text("any key leaves it")
        shown.type("x")  # and the message goes; nobody is picked any more
        shown.wait(lambda frame: frame[0].split()[:4] == ["memacct", "watch", "1", "GPU"])
        assert "pid" not in shown.frame()[0]
        shown.type("?")
        shown.type("q")
        assert shown.end() == 0


def test_it_can_be_stopped_and_goes_on(gpu: SimulatedGpu) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash, whose job control this is about")
    environ = {**os.environ, "TERM": "xterm", "PS1": "ready> "}
    shell = [bash, "--norc", "--noediting", "-i"]
    with PtyScreen(shell, start=gpu.popen, env=environ) as shown:
        shown.wait_text("ready> ")
        shown.type(" ".join(WATCH) + "; echo status=$?\n")
        shown.wait_text("q quit")
        during = shown.modes()
        shown.type("\x1a")
        shown.wait_text("Stopped")
        assert shown.output.rindex(LEFT) > shown.output.rindex(ENTERED)
        shown.type(
            "stty -a | tr -s ' ;' '\\n' | grep -x -e -\\*icanon -e -\\*echo | sort | tr '\\n' ,\n"
        )
        shown.wait_text("echo,icanon,")
        shown.output = ""
        shown.type("fg\n")
        shown.wait_text("q quit")
        assert shown.modes() == during
        shown.type("q")
        shown.wait_text("ready> ")
        shown.type("exit\n")
        shown.end()


def test_no_color_draws_by_letters(gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant]) -> None:
    with screen(gpu, environ={"NO_COLOR": "1"}) as shown:
        frame = shown.wait_text("A 7.39 AAAA")
        assert "B 3.39 B" in "".join(frame)
        assert "\x1b[38" not in shown.output
        assert str(tenants[0].pid) in "".join(frame)


def test_a_dumb_terminal_gets_plain_frames(gpu: SimulatedGpu) -> None:
    with screen(gpu, "--count", "2", environ={"TERM": "dumb"}) as shown:
        assert shown.end() == 0
        assert "\x1b" not in shown.output
        assert shown.output.count("memacct watch") == 2


def piped(gpu: SimulatedGpu, *options: str) -> subprocess.Popen[str]:
    process: subprocess.Popen[str] = gpu.popen(
        [*WATCH, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process


def test_without_a_terminal_frames_are_text(
    gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant]
) -> None:
    process = piped(gpu, "--count", "3")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert out.count("memacct watch") == 3
    assert out.count(f" {tenants[0].pid} ") == 3


def test_json_is_an_object_a_look(gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant]) -> None:
    with piped(gpu, "--json", "--pid", str(tenants[0].pid)) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["schema_version"], first["kind"], first["events"]) == (1, "watch", [])
        assert first["gpus"][0]["own_bytes"] == (7 * 1024 + 400) * MIB
        tenants[1].free("1GiB")
        looks = (json.loads(line) for line in process.stdout)
        events = next(each["events"] for each in looks if each["events"])
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "memacct: interrupted\n"
    (event,) = events
    assert (event["pid"], event["change_bytes"]) == (tenants[1].pid, -1024 * MIB)
    assert event["after_ns"] < event["before_ns"]


def test_a_closed_pipe_ends_it_without_a_traceback(gpu: SimulatedGpu) -> None:
    process = piped(gpu)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) != 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize("option", [("--pid", "99999999"), ("--devices", "9"), ("--interval", "0")])
def test_a_mistake_is_told_before_the_screen_is_taken(
    gpu: SimulatedGpu, option: tuple[str, str]
) -> None:
    with screen(gpu, *option) as shown:
        assert shown.end() == 2
        assert ENTERED not in shown.output
        assert "Traceback" not in shown.output


def test_no_gpu_is_a_sentence_and_the_host_is_there() -> None:
    with PtyScreen(WATCH, env={**os.environ, "TERM": "xterm"}) as shown:
        frame = shown.wait_text("q quit")
        assert any(line.startswith("host ") for line in frame)
        shown.type("q")
        assert shown.end() == 0
