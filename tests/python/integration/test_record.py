"""``memacct record``: real commands, their ends, their trees, and ends of the recorder itself."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from memacct._units import GIB, MIB
from memacct.recording import Run, is_run_file, read_run
from memacct.report.run_account import account_of, equation_of
from memacct.report.run_html import run_page
from memacct.report.run_series import chart_data
from memacct.report.run_spans import spans_of
from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORD = [sys.executable, "-m", "memacct", "record", "-q"]
#: Holds what it is told to in MiB, until its standard input ends.
HOLD = """
import sys
held = b"1" * (int(sys.argv[1]) << 20)
print("here", flush=True)
sys.stdin.read()
"""
DEVICE = """
import ctypes, sys
cu, made, pointer = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_ulonglong()
assert cu.cuInit(0) == 0
assert cu.cuDevicePrimaryCtxRetain(ctypes.byref(made), 0) == 0
assert cu.cuCtxSetCurrent(made) == 0
assert cu.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(2 << 30)) == 0
print("here", flush=True)
sys.stdin.read()
"""


def record(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RECORD, *arguments],
        check=False,
        text=True,
        capture_output=True,
        timeout=60,
        **options,  # type: ignore[call-overload]
    )


def wait_until(file: Path, holds: Callable[[Run], bool], what: str) -> Run:
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        if is_run_file(file):
            run = read_run(file)
            if holds(run):
                return run
        time.sleep(0.02)
    raise AssertionError(f"not within 30 s: {what}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.memacct"


# ---------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("exit 0", 0, None), ("exit 7", 7, None), ("kill -9 $$", 137, 9), ("kill -15 $$", 143, 15)],
)
def test_it_ends_as_the_command_does(
    file: Path, script: str, code: int, number: int | None
) -> None:
    done = record("-o", str(file), "--", "sh", "-c", script)
    assert done.returncode == code, done.stderr
    end = read_run(file).end
    assert end is not None
    assert (end["exit_code"], end["signal"]) == (code, number)


def test_no_program_and_none_that_can_run_are_told_as_shells_do(file: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("text")
    for word, code, said in (
        ("no-such-program", 127, "no such program"),
        (str(plain), 126, "not executable"),
    ):
        done = record("-o", str(file), "--", word)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1)
        assert said in done.stderr
        assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("-o", "/", "--", "true"), "folder", 125),
        (("-o", "/nowhere/x", "--", "true"), "No such file", 125),
        (("-o", "/proc/version", "--", "true"), "no recording", 125),
        (("--hz", "1000", "--", "true"), "hz=1000", 125),
        (("--host", "all", "--", "true"), "host='all'", 125),
        (("--devices", "GPU-none", "--", "true"), "", 125),
        (("--pid", "4194304"), "no process 4194304", 2),
        (("--pid", "1", "--duration", "soon"), "'soon' is not a time", 2),
        (("--pid", "1", "--duration", "0"), "duration is a time above 0", 2),
        ((), "a command (after --) or --pid", 2),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], said: str, code: int
) -> None:
    done = record(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_is_passed_on_and_the_command_decides(file: Path) -> None:
    script = "trap 'exit 42' TERM; echo here; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*RECORD, "-o", str(file), "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == "here\n"
        recorder.send_signal(signal.SIGTERM)
        assert recorder.wait(30) == 42


def test_the_command_has_the_signals_that_it_would_have(file: Path) -> None:
    masks = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    inside = record("-o", str(file), "--", sys.executable, "-c", masks)
    assert inside.stdout == "set()\n"


def test_an_earlier_recording_is_kept(file: Path) -> None:
    for word in ("true", "false"):
        record("-o", str(file), "--", word)
    old, new = read_run(file.with_name("run.memacct.old")), read_run(file)
    assert (old.header["command"], new.header["command"]) == (["true"], ["false"])


# ---------------------------------------------------------------- what it sees


def test_every_process_of_the_tree_is_there_with_its_memory(file: Path) -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}, '120'])"
    with subprocess.Popen(
        [*RECORD, "-o", str(file), "--hz", "50", "--", sys.executable, "-c", child],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as recorder:
        assert recorder.stdin is not None
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == "here\n"
        wait_until(
            file, lambda run: len(run.processes) == 2 and _largest(run) > 120 * MIB, "the child"
        )
        recorder.stdin.close()
        assert recorder.wait(30) == 0
    run = read_run(file)
    parent, child_process = run.processes
    assert (parent.depth, child_process.depth, child_process.parent_pid) == (0, 1, parent.pid)
    assert run.header["pid"] == parent.pid
    account = account_of(run)
    assert account.rows[0].process is child_process
    assert account.rows[0].exact
    assert run.end is not None
    assert account.host_peak is not None
    assert account.host_peak.total_bytes == run.end["host_peak_bytes"]
    assert account.host_peak.at_ns == run.end["host_peak_at_ns"]
    assert max(account.host_totals) == account.host_peak.total_bytes
    assert run.end["largest_rss_bytes"] >= 120 * MIB


def _largest(run: Run) -> int:
    return max((point.rss_bytes or 0 for p in run.processes for point in p.points), default=0)


def test_the_equation_holds_at_every_moment_beside_neighbours_that_move(file: Path) -> None:
    with (
        SimulatedGpu(total_bytes="16GiB", reserved_bytes="300MiB") as gpu,
        gpu.tenant("3GiB") as tenant,
    ):
        with gpu.popen(
            [*RECORD, "-o", file, "--hz", "50", "--", sys.executable, "-c", DEVICE],
            runtime=False,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as recorder:
            assert recorder.stdout is not None
            assert recorder.stdout.readline() == "here\n"
            wait_until(file, lambda run: _tree_bytes(run) > 2 * GIB, "the tree on the device")
            before = len(read_run(file).devices[0].points)
            tenant.allocate("4GiB")
            wait_until(file, lambda run: len(run.devices[0].points) > before, "the neighbour")
            assert recorder.stdin is not None
            recorder.stdin.close()
            assert recorder.wait(30) == 0
        run = read_run(file)
        (device,) = run.devices
        for point in device.points:
            values = [value for value in equation_of(point).values() if value is not None]
            assert len(values) == 6
            assert sum(values) == point.terms["total_bytes"] == 16 * GIB
        (event,) = device.events
        assert (event.kind, event.pid, event.change_bytes) == ("grow", tenant.pid, 4 * GIB)
        assert event.after_ns < event.before_ns
        (peak,) = account_of(run).device_peaks
        assert peak.of_tree
        assert peak.holds
        held = [each for each in peak.point.processes if each.number is not None]
        assert [(each.number, each.owner) for each in held] == [(0, "tree")]
        assert run.names[tenant.pid]


def _tree_bytes(run: Run) -> int:
    return max((p.terms["tree_bytes"] or 0 for d in run.devices for p in d.points), default=0)


def test_a_process_that_runs_is_watched_until_it_ends(file: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, "40"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        recorder = subprocess.Popen([*RECORD, "-o", str(file), "--pid", str(process.pid)])
        run = wait_until(file, lambda run: _largest(run) > 40 * MIB, "the process")
        assert run.state == "running"
        process.kill()
        assert recorder.wait(30) == 0
    end = read_run(file).end
    assert end is not None
    assert (end["reason"], end["exit_code"]) == ("gone", None)


def test_a_duration_ends_it(file: Path) -> None:
    done = record("-o", str(file), "--pid", str(os.getpid()), "--duration", "300ms")
    assert done.returncode == 0, done.stderr
    end = read_run(file).end
    assert end is not None
    assert end["reason"] == "duration"
    assert 0.3e9 <= end["elapsed_ns"] < 30e9


def test_a_timeline_is_written_beside_it_and_its_spans_are_on_its_clock(file: Path) -> None:
    program = """
import memacct, time
with memacct.span("outer"):
    with memacct.span("inner"):
        held = b"1" * (30 << 20)
"""
    done = record("-o", str(file), "--timeline", "--", sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    run = read_run(file)
    found = spans_of(run)
    assert found.problem is None
    outer, inner = found.spans
    assert (outer.name, outer.depth, inner.name, inner.depth) == ("outer", 0, "inner", 1)
    assert outer.pid == inner.pid == run.header["pid"]
    assert run.origin_ns < outer.begin_ns <= inner.begin_ns
    assert inner.end_ns is not None
    assert outer.end_ns is not None
    assert inner.end_ns <= outer.end_ns < run.last_ns
    assert (inner.held_change_bytes or 0) >= 30 * MIB
    lanes = chart_data(account_of(run), found)["lanes"]
    assert [span["name"] for span in lanes[0]["spans"]] == ["outer", "inner"]
    page = run_page(account_of(run), found)
    assert "The start, step by step" in page


# ---------------------------------------------------------------- what a SIGKILL leaves


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_of_all_at_any_time_keeps_what_was_written(file: Path, seed: int) -> None:
    chosen = random.Random(seed)  # noqa: S311 (no secret)
    with subprocess.Popen(
        [
            *(*RECORD, "-o", str(file), "--hz", "50", "--budget", "1", "--"),
            *("sh", "-c", "while :; do sleep 0.01; done"),
        ],
        start_new_session=True,
    ) as recorder:
        least = chosen.randrange(1, 12)
        seen = wait_until(file, lambda run: len(run.samples_ns) >= least, "samples")
        time.sleep(chosen.uniform(0, 0.03))
        if chosen.random() < 0.5:
            os.killpg(recorder.pid, signal.SIGKILL)
        else:  # the recorder alone; what it recorded goes on, and is ended by the test
            recorder.kill()
            recorder.wait(30)
            assert read_run(file).state == "died"
            os.killpg(recorder.pid, signal.SIGKILL)
        assert recorder.wait(30) == -signal.SIGKILL
    run = read_run(file)
    assert (run.state, run.end) == ("died", None)
    assert run.samples_ns[: len(seen.samples_ns)] == seen.samples_ns
    for before, after in zip(seen.processes, run.processes, strict=False):
        assert after.points[: len(before.points)] == before.points


def test_a_killed_command_has_all_its_samples_and_its_end(file: Path) -> None:
    with subprocess.Popen(
        [*RECORD, "-o", str(file), "--hz", "50", "--", "sleep", "60"]
    ) as recorder:
        run = wait_until(file, lambda run: len(run.samples_ns) >= 5, "samples")
        os.kill(run.header["pid"], signal.SIGKILL)
        assert recorder.wait(30) == 137
    after = read_run(file)
    assert after.state == "finished"
    assert after.samples_ns[: len(run.samples_ns)] == run.samples_ns
    assert after.processes[0].points[0].rss_bytes


def test_a_full_disk_ends_the_recording_and_not_the_command(tmp_path: Path) -> None:
    limited = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (3000, 3000)); "
    start = f"{limited}import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = ["-m", "memacct", "record", "-q", "-o", str(tmp_path / "run"), "--hz", "50"]
    loop = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.05; done; exit 5"
    done = subprocess.run(
        [sys.executable, "-c", start, *command, "--", "sh", "-c", loop],
        check=False,
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 5, done.stderr
    assert "not whole" in done.stderr
    assert "File too large" in done.stderr
    run = read_run(tmp_path / "run")
    assert run.samples_ns
    assert run.end is None
