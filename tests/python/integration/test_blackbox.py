"""Recordings as Python and the command line read them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_group import limited_group

import memacct
from memacct import _core
from memacct._blackbox import find_blackboxes
from memacct._blackbox_text import blackbox_text

MIB = 1 << 20
NOTE_TEXT, NOTE_DEVICE, NOTE_CHECKPOINT = 0, 1, 4

# Writes a host record of a known size and a note, tells their numbers, and goes on.
CHILD = """
import sys
from memacct import _core, snapshot
recorder = _core.NativeRecorder(sys.argv[1], host_capacity=256, device_capacity=256)
recorder.keep_note(_core.monotonic_ns(), 1, 0, 0, "GPU-kept")
def record(text):
    host = snapshot(devices=None).host
    number = recorder.write_host(host, _core.monotonic_ns())
    recorder.write_note(_core.monotonic_ns(), 4, 0, number, text)
    print(number, host.rss_bytes, flush=True)
"""


def recorder(path: Path, capacity: int = 8) -> _core.NativeRecorder:
    return _core.NativeRecorder(str(path), host_capacity=capacity, device_capacity=capacity)


def written(path: Path) -> _core.NativeRecorder:
    made = recorder(path)
    host = memacct.snapshot("counters", devices=None).host
    for n in range(1, 12):
        assert made.write_host(host, 1000 * n) == n
    made.keep_note(1, NOTE_DEVICE, 0, 0, "GPU-a")
    made.write_note(12_000, NOTE_CHECKPOINT, 0, 0, "loaded\x1b[2J")
    return made


def command(*args: str | Path) -> str:
    line = [sys.executable, "-m", "memacct", "blackbox", *map(str, args)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_recording_reads_back_while_it_is_written_and_after_its_end(tmp_path: Path) -> None:
    made = written(tmp_path / "box")
    box = memacct.read_blackbox(tmp_path / "box")
    assert box.ending == "running"
    assert (box.pid, box.host) == (os.getpid(), socket.gethostname())
    assert box.memacct_version == memacct.__version__
    assert box.trace.host["taken_ns"].tolist() == [1000 * n for n in range(4, 12)]
    assert box.trace.column("host", "shared_bytes").count() == 8
    assert not box.trace.column("host", "rss_anon_bytes").count()  # unknown is not 0
    assert [device.uuid for device in box.trace.device_list] == ["GPU-a"]
    assert box.last_ns == 12_000
    assert (box.rings["host"].overwritten_count, box.rings["host"].last_number) == (3, 11)
    made.finish()
    box = memacct.read_blackbox(tmp_path / "box")
    assert box.ending == "finished"
    assert box.ended_ns is not None
    assert box.ended_ns > box.started_ns


def test_what_is_no_recording_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(memacct.SourceUnavailableError, match="No such file"):
        memacct.read_blackbox(tmp_path / "none")
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(memacct.SourceFormatError, match="letter: not a recording"):
        memacct.read_blackbox(tmp_path / "letter")
    with pytest.raises(ValueError, match="letter is there and is no recording"):
        recorder(tmp_path / "letter")
    with pytest.raises(memacct.SourceReadError, match="No such file"):
        recorder(tmp_path / "none" / "box")
    with pytest.raises(ValueError, match="powers of two"):
        recorder(tmp_path / "box", capacity=12)
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_one_writer_at_a_time_and_the_recording_before_is_kept(tmp_path: Path) -> None:
    made = written(tmp_path / "box")
    with pytest.raises(memacct.SourceReadError, match=rf"another recorder.*pid {os.getpid()}"):
        recorder(tmp_path / "box")
    made.finish()
    second = recorder(tmp_path / "box")
    assert memacct.read_blackbox(tmp_path / "box.1").rings["host"].last_number == 11
    assert memacct.read_blackbox(tmp_path / "box").rings["host"].last_number == 0
    second.finish()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["host", "note", "keep"]), st.integers(1, 20)), max_size=12),
    st.sampled_from([1, 2, 8, 16]),
)
def test_any_interleaving_of_writes_and_wraps_reads_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], capacity: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "box"
    made = recorder(path, capacity)
    host = memacct.snapshot("counters", devices=None).host
    written: dict[str, list[int]] = {"host": [], "note": [], "keep": []}
    clock = 0
    for kind, count in steps:
        for _ in range(count):
            clock += 1
            if kind == "host":
                made.write_host(host, clock)
            elif kind == "note":
                made.write_note(clock, NOTE_TEXT, 0, clock, "")
            elif not made.keep_note(clock, NOTE_TEXT, 1, clock, ""):
                assert len(written["keep"]) == 128
                continue
            written[kind].append(clock)
    box = memacct.read_blackbox(path)
    made.finish()
    notes = box.trace.notes
    assert box.trace.host["taken_ns"].tolist() == written["host"][-capacity:]
    assert [note[3] for note in notes if note[2] == 0] == written["note"][-capacity:]
    assert [note[3] for note in notes if note[2] == 1] == written["keep"]
    for ring, kind in (("host", "host"), ("devices", "note")):
        state = box.rings[ring]  # type: ignore[index]  # one of its keys
        assert state.overwritten_count == max(0, len(written[kind]) - capacity)
        assert (state.missing_count, state.torn_count, state.damaged_count) == (0, 0, 0)


def test_a_killed_process_leaves_all_that_it_told(tmp_path: Path) -> None:
    script = CHILD + "record('alive')\nsys.stdin.read()"
    line = [sys.executable, "-c", script, str(tmp_path / "box")]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        number, rss_bytes = map(int, process.stdout.readline().split())
        assert memacct.read_blackbox(tmp_path / "box").ending == "running"
        process.kill()
    box = memacct.read_blackbox(tmp_path / "box")
    assert (box.ending, box.pid) == ("died", process.pid)
    assert box.command.startswith(sys.executable)
    assert box.rings["host"].last_number == number
    assert box.trace.host["rss_bytes"].tolist() == [rss_bytes]
    assert "died without closing" in blackbox_text(box)


def test_an_oom_killed_process_leaves_its_last_record(tmp_path: Path) -> None:
    script = CHILD + "kept = []\nwhile True:\n    kept.append(b'x' * (1 << 20))\n    record('more')"
    with limited_group(96 * MIB) as group, group.start(script, str(tmp_path / "box")) as process:
        told, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    number, rss_bytes = map(int, told.splitlines()[-1].split())
    box = memacct.read_blackbox(tmp_path / "box")
    assert box.ending == "died"
    last = box.rings["host"].last_number
    assert number <= last <= number + 1  # one that it had no more time to tell of
    rows = box.trace.host["rss_bytes"].tolist()
    assert rows[number - last - 1] == rss_bytes
    assert rss_bytes > 40 * MIB


def test_a_machine_that_booted_since_and_a_copy_from_another(tmp_path: Path) -> None:
    made = written(tmp_path / "box")
    data = (tmp_path / "box").read_bytes()
    # A copy of one that runs: its process is looked up.
    (tmp_path / "copy").write_bytes(data)
    assert memacct.read_blackbox(tmp_path / "copy").ending == "running"
    made.finish()
    native = _core.parse_recording(data, "data")
    from memacct._blackbox import _ending

    assert _ending(native | {"boot_id": "another"}, running=False) == "machine_restarted"
    strange = native | {"boot_id": "another", "host": "elsewhere"}
    assert _ending(strange, running=False) == "unknown"
    assert _ending(native | {"start_ticks": 1}, running=False) == "died"
    assert _ending(native | {"pid_namespace": 1}, running=False) == "unknown"


def test_the_command_line_shows_the_last_records_first(tmp_path: Path) -> None:
    made = written(tmp_path / "one.box")
    shown = command("read", tmp_path / "one.box", "--tail", "3").splitlines()
    assert "still running" in shown
    assert "host: 8 records, 3 overwritten" in shown
    table = shown[shown.index("") + 2 :]
    assert len(table) == 3
    assert "checkpoint: loaded\\x1b[2J" in table[0]  # no terminal escape
    assert ["host" in line for line in table] == [False, True, True]
    made.finish()
    data = json.loads(command("read", tmp_path / "one.box", "--json"))
    assert (data["schema_version"], data["kind"], data["ending"]) == (1, "blackbox", "finished")
    assert [row["taken_ns"] for row in data["trace"]["host"]] == [1000 * n for n in range(4, 12)]
    followed = command("read", tmp_path / "one.box", "--follow").splitlines()
    assert followed[-1] == "finished"
    assert len(followed) == 1 + 8 + 2 + 1


def test_the_command_line_lists_a_folder(tmp_path: Path) -> None:
    made = written(tmp_path / "one.box")
    made.finish()
    (tmp_path / "letter").write_text("dear")
    data = bytearray((tmp_path / "one.box").read_bytes())
    data[100] ^= 1
    (tmp_path / "two.box").write_bytes(data)
    one, two = command("list", tmp_path).splitlines()
    assert f"one.box: pid {os.getpid()}" in one
    assert "finished" in one
    assert two.endswith("two.box: the header is damaged")
    assert len(list(find_blackboxes(tmp_path))) == 2
    with pytest.raises(memacct.SourceUnavailableError):
        list(find_blackboxes(tmp_path / "none"))


SAMPLED = """
import os, sys, memacct
sampler = memacct.Sampler(1000, device_hz=None, host="breakdown", record=sys.argv[1]).start()
while len(sampler.trace().host) < 5:
    pass
block = bytearray(64 << 20)
while sampler.trace().host["rss_bytes"][-1] < 64 << 20:
    pass
print(len(sampler.trace().host), flush=True)
if sys.argv[2] == "fork":
    if os.fork() == 0:
        print(len(sampler.trace().host), flush=True)
        sampler.stop()
        os._exit(0)
    os.wait()
    sampler.stop()
sys.stdin.read()
"""


@pytest.mark.parametrize("way", ["kill", "fork"])
def test_what_a_sampler_saw_is_in_its_recording(tmp_path: Path, way: str) -> None:
    path = tmp_path / "box"
    line = [sys.executable, "-c", SAMPLED, str(path), way]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        count = int(process.stdout.readline())
        assert memacct.read_blackbox(path).ending in {"running", "finished"}
        if way == "kill":
            process.kill()
        else:
            assert process.stdout.readline() == "0\n"  # the child has no part in it
        process.communicate()
    box = memacct.read_blackbox(path)
    assert box.ending == ("died" if way == "kill" else "finished")
    assert box.rings["host"].last_number >= count
    assert int(box.trace.host["rss_bytes"][-1]) > 64 << 20
    assert box.trace.column("host", "rss_anon_bytes").count() == len(box.trace.host)


def test_a_sampler_names_what_it_cannot_record(tmp_path: Path) -> None:
    with pytest.raises(memacct.SamplerError, match="sync_s=1 is for a recording"):
        memacct.Sampler(sync_s=1)
    with pytest.raises(memacct.SamplerError, match="sync_s=0 must be"):
        memacct.Sampler(sync_s=0, record=tmp_path)
    with pytest.raises(memacct.SourceReadError, match="No such file"):
        memacct.Sampler(record=tmp_path / "none" / "box")
