"""The sampler's threads on the host: what they take, how they start and end, forks and exits."""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import memacct
from memacct import Sampler, SamplerError, measure
from memacct._units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 30.0


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def taken(sampler: Sampler) -> int:
    return sampler._native.host_counts().taken_count


def wait_taken(sampler: Sampler, more: int = 3) -> None:
    """Until samples have been taken that began after this call."""
    before = taken(sampler)
    eventually(lambda: taken(sampler) >= before + more)


def threads_named(name: str) -> list[Path]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if (task / "comm").read_text().strip() == name:
                found.append(task)
    return found


# ---------------------------------------------------------------- known answers


def test_touched_memory_is_a_step_of_its_size() -> None:
    size = 64 * MIB
    with Sampler(500, device_hz=None) as sampler:
        wait_taken(sampler)
        start_ns = time.monotonic_ns()
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
            for offset in range(0, size, mmap.PAGESIZE):
                block[offset] = 1
            touched_ns = time.monotonic_ns()
            wait_taken(sampler)
            freed_ns = time.monotonic_ns()
        unmapped_ns = time.monotonic_ns()
        wait_taken(sampler)
    trace = sampler.trace()
    times, rss = trace.host["taken_ns"], trace.host["rss_bytes"].astype("int64")
    before = rss[times < start_ns][-1]
    during = rss[(times > touched_ns) & (times < freed_ns)]
    after = rss[times > unmapped_ns]
    assert len(during) > 0
    assert during == pytest.approx(before + size, abs=2 * MIB)
    assert after == pytest.approx(before, abs=2 * MIB)
    assert trace.host["vms_bytes"].max() - trace.host["vms_bytes"].min() >= size
    peak = trace.peak_rss()
    assert peak is not None
    assert peak.sampled_bytes == rss.max()
    assert touched_ns - LIMIT_S * 1e9 < peak.taken_ns < unmapped_ns
    assert peak.upper_bytes is not None
    assert peak.upper_bytes >= peak.sampled_bytes
    assert len(set(trace.host["pid"].tolist()) | {os.getpid()}) == 1


def test_breakdown_tells_the_kinds_and_counters_do_not() -> None:
    with Sampler(200, device_hz=None, host="breakdown") as sampler:
        wait_taken(sampler)
    rows = sampler.trace()
    for name in ("rss_anon_bytes", "rss_file_bytes", "rss_shmem_bytes", "peak_rss_bytes"):
        assert rows.column("host", name).count() == len(rows.host)
    parts = sum(rows.column("host", f"rss_{kind}_bytes") for kind in ("anon", "file", "shmem"))
    assert (parts == rows.host["rss_bytes"]).all()
    with Sampler(200, device_hz=None) as sampler:
        wait_taken(sampler)
    trace = sampler.trace()
    assert trace.column("host", "rss_anon_bytes").count() == 0
    assert trace.to_dict()["host"][0]["rss_anon_bytes"] is None
    assert trace.to_dict()["host"][0]["rss_bytes"] == trace.host["rss_bytes"][0]
    json.dumps(trace.to_dict())


def test_deadlines_are_a_grid_and_every_one_is_accounted_for() -> None:
    with Sampler(200, device_hz=None) as sampler:
        wait_taken(sampler, 20)
    trace = sampler.trace()
    counts = trace.host_counts
    assert counts is not None
    assert counts.period_ns == 5_000_000
    # Sample i is served at the first deadline, the i-th after it, or later by what was missed.
    elapsed_ns = int(trace.host["taken_ns"][-1] - trace.host["taken_ns"][0])
    deadlines = counts.taken_count - 1 + counts.missed_count
    assert deadlines == pytest.approx(elapsed_ns / counts.period_ns, abs=1.01)
    assert counts.taken_count == len(trace.host)
    assert counts.error_count == 0
    assert 0 < counts.cpu_ns < LIMIT_S * 1e9
    assert counts.late_max_ns > 0


def test_a_process_that_does_not_run_misses_deadlines() -> None:
    """Stopped by a signal, as by a debugger or a frozen control group: counted, not made up for."""
    script = """
import sys, time, memacct
with memacct.Sampler(1000, device_hz=None) as sampler:
    while sampler._native.host_counts().taken_count == 0:  # no deadline before its first
        time.sleep(0.001)
    print("ready", flush=True)
    sys.stdin.readline()
    while sampler._native.host_counts().late_max_ns < 250_000_000:
        time.sleep(0.001)
counts = sampler.trace().host_counts
print(counts.missed_count, counts.taken_count, counts.late_max_ns, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        time.sleep(0.3)  # the pause itself
        child.send_signal(signal.SIGCONT)
        out, _ = child.communicate("go\n", timeout=LIMIT_S)
    missed, sampled, late_ns = map(int, out.split())
    assert missed >= 250
    assert late_ns >= 250_000_000
    assert sampled >= 1


def test_the_ring_keeps_the_newest_and_counts_the_rest() -> None:
    with Sampler(2000, device_hz=None, keep_count=60) as sampler:
        eventually(lambda: taken(sampler) > 200)
    trace = sampler.trace()
    assert len(trace.host) == 64  # the next power of two
    assert trace.host_counts is not None
    assert trace.overwritten_count == trace.host_counts.taken_count - 64
    assert (trace.host["taken_ns"][1:] > trace.host["taken_ns"][:-1]).all()


# ---------------------------------------------------------------- start and stop


def test_stop_is_idempotent_and_a_sampler_runs_once() -> None:
    sampler = Sampler(100, device_hz=None)
    assert sampler.state == "new"
    sampler.stop()
    with pytest.raises(SamplerError, match="not started"):
        sampler.trace()
    with sampler:
        assert sampler.running
        with pytest.raises(SamplerError, match="started before"):
            sampler.start()
        wait_taken(sampler)
    assert sampler.state == "stopped"
    length = len(sampler.trace().host)
    sampler.stop()
    assert len(sampler.trace().host) == length > 0
    with pytest.raises(SamplerError, match="started before"):
        sampler.start()


@pytest.mark.parametrize("value", [0, -1, 100_001, float("nan"), float("inf"), True, "10"])
def test_a_rate_that_is_not_allowed_is_named(value: Any) -> None:
    with pytest.raises(SamplerError, match="must be above 0 and at most 100,000") as raised:
        Sampler(value)
    assert str(raised.value).startswith(f"sample_hz={value!r} ")
    with pytest.raises(SamplerError, match="device_hz="):
        Sampler(device_hz=value)


def test_other_arguments_that_are_not_allowed_are_named() -> None:
    with pytest.raises(SamplerError, match="nothing to sample"):
        Sampler(None, device_hz=None)
    with pytest.raises(SamplerError, match="driver_budget_ratio=0 "):
        Sampler(driver_budget_ratio=0)
    with pytest.raises(SamplerError, match="keep_count=0 "):
        Sampler(keep_count=0)
    with pytest.raises(ValueError, match="host='rollup'"):
        Sampler(host="rollup")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="devices must be"):
        Sampler(devices="some")  # type: ignore[arg-type]


def test_a_slow_rate_does_not_delay_the_stop() -> None:
    with Sampler(0.01, device_hz=0.01) as sampler:
        wait = threading.Thread(target=sampler.stop)
        eventually(lambda: taken(sampler) == 1)
        wait.start()
        wait.join(LIMIT_S)
        assert not wait.is_alive()  # the next deadline is 100 s away
    assert len(sampler.trace().host) == 1


def test_threads_are_named_and_take_no_signal() -> None:
    with Sampler(100, device_hz=10, devices="auto") as sampler:
        wait_taken(sampler)
        for name in ("memacct-host", "memacct-device"):
            (task,) = threads_named(name)
            status = dict(
                line.split(":\t", 1) for line in (task / "status").read_text().splitlines()
            )
            blocked = int(status["SigBlk"], 16)
            # All but SIGKILL, SIGSTOP and those that the C library keeps (32, 33).
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                assert blocked >> (number - 1) & 1, number
    # Joined is a moment before gone from /proc.
    eventually(lambda: not threads_named("memacct-host") and not threads_named("memacct-device"))
    # The caller's own signals are as they were.
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_several_samplers_at_once_from_several_threads() -> None:
    samplers = [Sampler(hz, device_hz=None) for hz in (50, 200, 1000)]
    threads = [threading.Thread(target=sampler.start) for sampler in samplers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sampler in samplers:
        wait_taken(sampler)
        assert sampler.running
    # Stopped at once, by two threads each.
    threads = [threading.Thread(target=s.stop) for s in samplers for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sampler.state for sampler in samplers] == ["stopped"] * 3


def test_a_sampler_that_is_dropped_ends_its_threads() -> None:
    sampler = Sampler(100, device_hz=10).start()
    wait_taken(sampler)
    gone = weakref.ref(sampler)
    del sampler
    gc.collect()
    assert gone() is None
    eventually(lambda: not threads_named("memacct-host"))


def test_sampling_needs_no_gil() -> None:
    """The main thread keeps the GIL for long; samples are taken meanwhile."""
    with Sampler(1000, device_hz=None) as sampler:
        wait_taken(sampler)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # no other Python thread gets it
        try:
            before_ns = time.monotonic_ns()
            for _ in range(10):
                sum(range(1_000_000))
            after_ns = time.monotonic_ns()
        finally:
            sys.setswitchinterval(interval)
    times = sampler.trace().host["taken_ns"]
    assert ((times > before_ns) & (times < after_ns)).sum() >= 3


def test_a_trace_can_be_read_while_it_grows() -> None:
    with Sampler(5000, device_hz=None, keep_count=256) as sampler:
        wait_taken(sampler)
        for _ in range(200):
            rows = sampler.trace().host
            assert (rows["taken_ns"][1:] > rows["taken_ns"][:-1]).all()
            assert (rows["rss_bytes"] > 0).all()


# ---------------------------------------------------------------- forks and exits


def in_child(action: Callable[[], object]) -> Any:
    """What `action` returns in a fork's child, which then leaves as Python does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(LIMIT_S))
        try:
            answer = json.dumps(action())
        except BaseException as error:  # noqa: BLE001 (the parent is to see it)
            answer = json.dumps(f"{type(error).__name__}: {error}")
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return json.loads(text)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forks_child_has_it_stopped_and_can_read_it() -> None:
    with Sampler(1000, device_hz=100) as sampler:
        wait_taken(sampler)

        def look() -> object:
            rows = len(sampler.trace().host)
            sampler.stop()
            try:
                sampler.start()
            except SamplerError as error:
                said = str(error)
            with Sampler(1000, device_hz=None) as own:  # the child can sample, too
                eventually(lambda: taken(own) >= 3)
            pids = set(own.trace().host["pid"].tolist())
            return [sampler.state, rows > 0, said, pids == {os.getpid()}]

        for _ in range(20):
            answer = in_child(look)
            assert answer == [
                "forked",
                True,
                "this sampler is the parent process's: make another one",
                True,
            ]
        assert sampler.running
        wait_taken(sampler)


EXITS = {
    "end": "",
    "exit": "raise SystemExit(0)",
    "dropped": "del sampler",
    "thread": "import threading; threading.Thread(target=sampler.trace).start()",
    "os._exit": "import os; os._exit(0)",
}


@pytest.mark.parametrize("way", EXITS)
def test_an_exit_with_a_running_sampler_is_clean(way: str) -> None:
    script = (
        f"import memacct\nsampler = memacct.Sampler(5000, device_hz=100).start()\n{EXITS[way]}\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------- measured blocks


def test_measure_without_samples() -> None:
    with measure("block") as m:
        with pytest.raises(SamplerError, match=r"measure\('block'\) has not ended"):
            _ = m.delta
        block = mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for offset in range(0, len(block), mmap.PAGESIZE):
            block[offset] = 1
    block.close()
    assert m.delta.host.rss_anon_bytes == pytest.approx(32 * MIB, abs=2 * MIB)
    assert m.trace is None
    assert m.peak is not None
    assert m.peak.sampled_bytes == m.after.host.rss_bytes
    assert not threads_named("memacct-host")


def test_measure_sees_what_came_and_went() -> None:
    size = 48 * MIB
    with measure("transient", sample_hz=1000) as m:
        assert m._sampler is not None
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
            for offset in range(0, size, mmap.PAGESIZE):
                block[offset] = 1
            wait_taken(m._sampler)
    assert abs(m.delta.host.rss_bytes) < 8 * MIB
    assert m.peak is not None
    assert m.peak.sampled_bytes >= m.before.host.rss_bytes + size - 2 * MIB
    assert m.trace is not None
    assert m.trace.host_counts is not None
    assert m.trace.host_counts.period_ns == 1_000_000


def test_measure_hides_no_error_of_its_block() -> None:
    with pytest.raises(ZeroDivisionError), measure("fails", sample_hz=100) as m:
        _ = 1 / 0
    assert m.delta.elapsed_ns > 0
    assert not threads_named("memacct-host")


def test_measure_names_a_bad_rate() -> None:
    with pytest.raises(SamplerError, match="sample_hz=-5"):
        measure(sample_hz=-5)


def test_the_kernels_peak_is_joined_where_it_grew() -> None:
    """In a process of its own, whose peak is now: what comes and goes unsampled is not lost."""
    script = f"""
import json, memacct, mmap
with memacct.measure("unseen") as m:
    block = mmap.mmap(-1, {256 * MIB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, len(block), mmap.PAGESIZE): block[offset] = 1
    block.close()
print(json.dumps([m.before.host.rss_bytes, m.peak.sampled_bytes, m.peak.exact_bytes, str(m.peak)]))
"""
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    before, sampled, exact, text = json.loads(out.stdout)
    assert sampled < before + 64 * MIB
    assert exact == pytest.approx(before + 256 * MIB, abs=8 * MIB)
    assert "the kernel's own peak" in text
    assert "Sampler" in memacct.__all__


# ---------------------------------------------------------------- in a file


def test_samples_in_a_file_are_the_same_and_outlive_a_kill(tmp_path: Path) -> None:
    script = f"""
import memacct, os, signal, time
sampler = memacct.Sampler(1000, device_hz=None, record={str(tmp_path / "box")!r}).start()
while len(sampler.trace().host) < 5: time.sleep(0.001)
print(os.getpid(), int(sampler.trace().host["taken_ns"][0]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, first_ns = map(int, done.stdout.split())
    # The record as it lies in the file: when it was taken, then whose it is.
    words = (first_ns.to_bytes(8, "little"), pid.to_bytes(4, "little"))
    content = (tmp_path / "box").read_bytes()
    place = content.find(words[0])
    assert place > 0
    assert content[place + 8 : place + 12] == words[1]


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(memacct.MemacctError, match="no-such-folder"):
        Sampler(record=tmp_path / "no-such-folder" / "box")
