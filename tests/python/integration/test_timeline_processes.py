"""Timelines of several processes: killed, forked, executed, merged, and on disks that fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from timeline_child import MIB, Child

import memacct


def test_a_killed_process_leaves_every_entry_that_it_made(tmp_path: Path) -> None:
    script = """
memacct.checkpoint("one")
with memacct.span("loading"):
    for number in range(200):
        memacct.checkpoint(f"shard {number}")
    report("made")
    wait()
"""
    with Child(script, tmp_path) as child:
        assert child.report() == "made"
        child.kill()
        (record,) = memacct.read_timeline(tmp_path).records
        assert record.pid == child.pid
    names = [entry.name for entry in record.entries]
    assert names == ["baseline", "one", "loading", *(f"shard {n}" for n in range(200))]
    assert {entry.depth for entry in record.entries[3:]} == {1}
    assert record.lost_count == 0
    assert record.identity() is None
    assert "not checked" in str(record)
    assert record.baseline is not None


def test_a_line_torn_by_a_kill_is_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    with memacct.Timeline(path) as timeline:
        timeline.checkpoint("whole")
        timeline.checkpoint("torn")
        path.write_bytes(path.read_bytes()[:-40])
        merged = memacct.read_timeline(path)
        assert [entry.name for entry in merged.records[0].entries] == ["baseline", "whole"]
        assert merged.torn_count == 1
        assert "1 lines were written half" in str(merged)
    # Another process's timeline in the same file is not swallowed by the torn line.
    path.write_bytes(path.read_bytes().rpartition(b'{"id"')[0][:-40])
    with memacct.Timeline(path) as later:
        later.checkpoint("after")
    records = memacct.read_timeline(path).records
    assert [entry.name for entry in records[1].entries] == ["baseline", "after", "end"]


def test_a_line_torn_in_a_shared_file_swallows_no_line_of_another(tmp_path: Path) -> None:
    path = tmp_path / "shared.jsonl"
    with (
        memacct.Timeline(path, breakdown=False) as first,
        memacct.Timeline(path, breakdown=False) as second,
    ):
        first.checkpoint("whole")
        with path.open("ab") as file:
            file.write(b'{"id":"0123456789abcdef","ind')  # of a process that was killed
        second.checkpoint("next")
        with path.open("ab") as file:
            file.write(b'{"id":"0123456789abcdef","ind')
        with memacct.Timeline(path, breakdown=False) as third:
            third.checkpoint("last")
    merged = memacct.read_timeline(path)
    assert merged.torn_count == 2
    assert [[entry.name for entry in record.entries] for record in merged.records] == [
        ["baseline", "whole", "end"],
        ["baseline", "next", "end"],
        ["baseline", "last", "end"],
    ]
    assert [record.lost_count for record in merged.records] == [0, 0, 0]


FORK = """
with memacct.Timeline(PATH, name="engine") as timeline:
    with memacct.span("forking"):
        block = grow(16 * MIB)
        memacct.checkpoint("in the parent")
        pid = os.fork()
        if pid == 0:
            memacct.checkpoint("in the child")
            with memacct.span("child's own"):
                more = grow(8 * MIB)
        else:
            os.waitpid(pid, 0)
            memacct.checkpoint("in the parent again")
    if pid == 0:
        assert timeline.identity().holds
        timeline.stop()
        os._exit(0)
report(pid)
"""


@pytest.mark.parametrize("in_folder", [True, False], ids=["folder", "file"])
def test_a_forked_child_has_a_timeline_of_its_own(tmp_path: Path, *, in_folder: bool) -> None:
    path = tmp_path if in_folder else tmp_path / "both.jsonl"
    with Child(f"PATH = {str(path)!r}\n" + FORK) as child:
        forked_pid = child.report()
    assert len(list(tmp_path.iterdir())) == (2 if in_folder else 1)
    parent, forked = memacct.read_timeline(path).records
    assert (parent.pid, forked.pid) == (child.pid, forked_pid)
    assert forked.parent_id == parent.id
    assert parent.parent_id is None
    assert parent.name == forked.name == "engine"
    assert parent.start_ticks is not None
    assert forked.start_ticks is not None
    assert [(entry.name, entry.depth) for entry in parent.entries] == [
        ("baseline", 0),
        ("forking", 0),
        ("in the parent", 1),
        ("in the parent again", 1),
        ("forking", 0),
        ("end", 0),
    ]
    # The parent's span is not one of the child's: it neither nests there nor ends there.
    assert [(entry.name, entry.kind, entry.depth) for entry in forked.entries] == [
        ("baseline", "baseline", 0),
        ("in the child", "checkpoint", 0),
        ("child's own", "span_begin", 0),
        ("child's own", "span_end", 0),
        ("end", "end", 0),
    ]
    for record in (parent, forked):
        check = record.identity()
        assert check is not None
        assert check.holds
        assert record.baseline is not None
        assert {entry.thread_id for entry in record.entries} == {record.pid}
    assert forked.entries[3].span_delta is not None
    near = MIB + 2 * (forked.entries[3].host.rss_error_bound_bytes or 0)
    assert forked.entries[3].span_delta.rss_bytes == pytest.approx(8 * MIB, abs=near)


def test_a_forked_child_that_makes_no_entry_changes_nothing(tmp_path: Path) -> None:
    script = """
memacct.checkpoint("one")
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
memacct.checkpoint("two")
report(memacct.current_timeline().stop().holds)
"""
    with Child(script, tmp_path) as child:
        assert child.report() is True
    (record,) = memacct.read_timeline(tmp_path).records
    assert [entry.name for entry in record.entries] == ["baseline", "one", "two", "end"]


def test_an_executed_program_of_the_same_pid_has_a_timeline_of_its_own(tmp_path: Path) -> None:
    after = "import memacct; memacct.checkpoint('after exec')"
    script = f"""
memacct.checkpoint("before exec")
os.execv(sys.executable, [sys.executable, "-c", {after!r}])
"""
    with Child(script, tmp_path) as child:
        child.end()
    before_exec, after_exec = memacct.read_timeline(tmp_path).records
    assert before_exec.pid == after_exec.pid == child.pid
    assert before_exec.id != after_exec.id
    assert [entry.name for entry in before_exec.entries] == ["baseline", "before exec"]
    assert [entry.name for entry in after_exec.entries] == ["baseline", "after exec"]


def test_three_processes_merge_by_wall_time(tmp_path: Path) -> None:
    script = """
for step in range(3):
    sys.stdin.readline()
    memacct.checkpoint(f"{sys.argv[1]}{step}")
    report(step)
"""
    prelude = "import sys, memacct\ndef report(value): print(value, flush=True)\n"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", prelude + script, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "MEMACCT_TIMELINE_DIR": str(tmp_path)},
            text=True,
        )
        for name in "abc"
    ]
    try:
        order = [2, 0, 1, 1, 2, 0, 0, 1, 2]
        for number in order:  # one after the other: each is done before the next begins
            child = children[number]
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline()
    finally:
        for child in children:
            child.communicate(timeout=60)
    merged = memacct.read_timeline(tmp_path)
    names = [entry.name for _, entry in merged.entries if entry.kind == "checkpoint"]
    assert names == ["c0", "a0", "b0", "b1", "c1", "a1", "a2", "b2", "c2"]
    assert [record.pid for record in merged.records] == [children[n].pid for n in (2, 0, 1)]
    walls = [entry.wall_ns for _, entry in merged.entries]
    assert walls == sorted(walls)
    assert all(str(child.pid) in str(merged) for child in children)
    # Files one by one, in any order, are the same as their folder.
    files = sorted(tmp_path.iterdir(), reverse=True)
    assert memacct.read_timeline(files) == merged


def test_a_folder_that_cannot_be_written_is_logged_once_and_memory_goes_on(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    script = """
import logging
logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
for number in range(5):
    memacct.checkpoint(f"{number}")
timeline = memacct.current_timeline()
report([[entry.name for entry in timeline.entries], timeline.lost_count, timeline.path,
        timeline.stop().holds, str(timeline)])
"""
    with Child(script, blocked / "below") as child:
        names, lost, path, holds, text = child.report()
        errors = child.end()
    assert names == ["baseline", "0", "1", "2", "3", "4"]
    assert lost == 6
    assert path is None
    assert holds
    assert "7 entries could not be written to the file" in text
    assert errors.count("memacct WARNING") == 1
    assert str(blocked) in errors


def test_a_full_disk_tears_no_more_than_what_did_not_fit(tmp_path: Path) -> None:
    # A limit on the size of files stands for a full disk: a write is cut short, or refused.
    script = """
import resource
for number in range(3):
    memacct.checkpoint(f"before {number}")
timeline = memacct.current_timeline()
size_bytes = timeline.path.stat().st_size
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes + 100, most))
for number in range(4):
    memacct.checkpoint(f"full {number}")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
for number in range(2):
    memacct.checkpoint(f"after {number}")
report([timeline.lost_count, len(timeline.entries)])
"""
    with Child(script, tmp_path) as child:
        lost, kept = child.report()
        errors = child.end()
    assert (lost, kept) == (4, 10)
    assert errors.count("the timeline stays in memory") == 1
    merged = memacct.read_timeline(tmp_path)
    (record,) = merged.records
    names = [entry.name for entry in record.entries]
    assert names == ["baseline", "before 0", "before 1", "before 2", "after 0", "after 1"]
    assert merged.torn_count == 1
    assert record.lost_count == 4
    assert "4 entries were lost" in str(record)


def test_a_descriptor_that_was_closed_behind_us_is_nobody_elses_file(tmp_path: Path) -> None:
    # What programs do that turn into daemons.
    other = tmp_path / "stranger"
    folder = tmp_path / "timelines"
    script = f"""
memacct.checkpoint("before")
os.closerange(3, 256)
strangers = [os.open({str(other)!r}, os.O_WRONLY | os.O_CREAT) for _ in range(20)]
memacct.checkpoint("after")
timeline = memacct.current_timeline()
report([timeline.lost_count, timeline.stop().holds])
for fd in strangers:
    os.fstat(fd)
"""
    with Child(script, folder) as child:
        assert child.report() == [0, True]
        child.end()
    assert other.read_bytes() == b""
    (record,) = memacct.read_timeline(folder).records
    assert [entry.name for entry in record.entries] == ["baseline", "before", "after", "end"]


def test_a_timeline_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "timeline-1.jsonl"
    with memacct.Timeline(path, breakdown=False) as timeline:
        for name in "abc":
            timeline.checkpoint(name)
    once = memacct.read_timeline(path)
    copied = tmp_path / "copied"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert memacct.read_timeline([path, tmp_path, link]) == once
    # Two parts of one timeline, such as a file that was moved away and begun again, are one.
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    copied.write_bytes(b"\n".join([lines[0], *lines[3:]]))
    path.write_bytes(b"\n".join(lines[:5]))
    assert memacct.read_timeline([copied, path]) == once
    copied.write_bytes(lines[0] + b"\n" + lines[2].replace(b'"a"', b'"x"'))
    with pytest.raises(memacct.SourceFormatError, match="two entries have one number"):
        memacct.read_timeline([copied, path])


def test_a_line_that_nests_too_deep_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    with memacct.Timeline(path, breakdown=False):
        pass
    once = memacct.read_timeline(path)
    with path.open("ab") as file:
        file.write(b"[" * 200_000 + b"\n")
    merged = memacct.read_timeline(path)
    assert merged.records == once.records
    assert merged.torn_count == 1


def test_what_is_no_timeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(memacct.SourceUnavailableError, match="no such file or folder"):
        memacct.read_timeline(tmp_path / "missing")
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}\n')
    with pytest.raises(memacct.SourceFormatError, match="not a line of a timeline"):
        memacct.read_timeline(other)
    assert memacct.read_timeline(tmp_path).records == ()
    later = tmp_path / "later.jsonl"
    later.write_text('{"id":"0","kind":"start","schema":2}\n')
    with pytest.raises(memacct.SourceFormatError, match="made by a later memacct"):
        memacct.read_timeline(later)
