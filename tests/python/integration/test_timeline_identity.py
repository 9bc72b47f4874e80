"""Baseline + increments = resident memory, in real processes and as other programs show it."""

from __future__ import annotations

import copy
import json
import mmap
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from timeline_child import MIB, Child

import memacct
from memacct._timeline_read import parse_timelines


def program_path(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def resident_by_top(pid: int) -> int:
    """Bytes, of the column RES."""
    screen = subprocess.run(
        [program_path("top"), "-b", "-n1", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    header, row = screen[-2].split(), screen[-1].split()
    assert row[header.index("PID")] == str(pid)
    return int(row[header.index("RES")]) * 1024


def resident_by_ps(pid: int) -> int:
    shown = subprocess.run(
        [program_path("ps"), "-o", "rss=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return int(shown) * 1024


STARTING = """
with memacct.Timeline(path, name="server") as timeline:
    first = grow(48 * MIB)
    memacct.checkpoint("after first")
    with memacct.span("imports"):
        import decimal, email, sqlite3
        second = bytearray(b"x" * (8 * MIB))
    del first
    memacct.checkpoint("after the first is gone")
    check = timeline.identity()
    report([check.baseline_bytes, check.increments_bytes, check.now_bytes, check.holds])
    wait()
    report([timeline.stop().holds, str(timeline)])
    wait()
"""


@pytest.mark.parametrize("program", ["top", "ps"])
def test_baseline_and_increments_are_what_other_programs_show(program: str) -> None:
    show = resident_by_top if program == "top" else resident_by_ps
    with Child("path = None" + STARTING) as child:
        baseline, increments, now, holds = child.report()
        # The child waits on its pipe: nothing moves.
        assert holds
        assert baseline + increments == now
        assert abs(show(child.pid) - now) <= 64 * 1024  # of the report itself
        child.go_on()
        assert child.report()[0] is True


@pytest.mark.parametrize("program", ["top", "ps"])
def test_the_last_entry_is_to_the_page_what_others_show_of_a_process_at_rest(program: str) -> None:
    show = resident_by_top if program == "top" else resident_by_ps
    # An entry's own line may, rarely, touch a new page after its reading: of three, one counts.
    script = """
line = b'1\\n'
with memacct.Timeline() as timeline:
    blocks = [grow(20 * MIB)]
    for attempt in range(3):
        memacct.checkpoint("at rest")
        os.write(1, line)
        os.read(0, 1)
    first, *resting = timeline.entries
    report([first.host.rss_bytes + entry.since_baseline.rss_bytes for entry in resting])
    wait()
"""
    with Child(script) as child:
        shown = []
        for _ in range(3):
            child.report()
            shown.append(show(child.pid))
            child.go_on()
        explained = child.report()
    assert explained[0] > 20 * MIB
    assert any(ours == theirs for ours, theirs in zip(explained, shown, strict=True))


# By how much a difference of two entries can be off, where the kernel counts in batches.
BOUND = """
def bound(timeline):
    return 2 * max(entry.host.rss_error_bound_bytes or 0 for entry in timeline.entries)
"""


def test_known_allocations_appear_in_their_increments() -> None:
    script = """
with memacct.Timeline() as timeline:
    memacct.checkpoint("ready")
    anonymous = grow(64 * MIB)
    memacct.checkpoint("anonymous")
    shared = mmap.mmap(-1, 32 * MIB)
    for offset in range(0, len(shared), mmap.PAGESIZE):
        shared[offset] = 1
    memacct.checkpoint("shared")
    array = bytearray(b"x" * (16 * MIB))
    memacct.checkpoint("array")
    anonymous.close()
    memacct.checkpoint("given back")
    report([{
        entry.name: [entry.delta.rss_bytes, entry.delta.rss_anon_bytes, entry.delta.rss_shmem_bytes,
                     entry.delta.held_bytes]
        for entry in timeline.entries
    }, bound(timeline)])
"""
    with Child(BOUND + script) as child:
        deltas, bound_bytes = child.report()
    near = 256 * 1024 + bound_bytes
    assert deltas["anonymous"][0] == pytest.approx(64 * MIB, abs=near)
    assert deltas["anonymous"][1] == pytest.approx(64 * MIB, abs=near)
    assert deltas["anonymous"][2] == pytest.approx(0, abs=bound_bytes)
    assert deltas["shared"][2] == pytest.approx(32 * MIB, abs=bound_bytes)
    assert deltas["array"][1] == pytest.approx(16 * MIB, abs=near)
    assert deltas["given back"][0] == pytest.approx(-64 * MIB, abs=near)
    assert [each[3] for each in deltas.values()] == [each[1] + each[2] for each in deltas.values()]


def test_a_mapped_file_is_reclaimable_and_its_copy_is_held() -> None:
    # A folder for temporary files may be a tmpfs, whose files are shared memory.
    with tempfile.TemporaryDirectory(dir=".") as folder:
        weights = Path(folder).absolute() / "model.safetensors"
        weights.write_bytes(bytes(24 * MIB))
        check_mapped_file(weights)


def check_mapped_file(weights: Path) -> None:
    script = f"""
with memacct.Timeline() as timeline, open({str(weights)!r}, "rb") as file:
    memacct.checkpoint("ready")
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    sum(mapped[offset] for offset in range(0, len(mapped), mmap.PAGESIZE))
    memacct.checkpoint("mapped")
    copied = bytearray(mapped)
    memacct.checkpoint("copied")
    kinds = {{m.kind for m in memacct.snapshot("mappings").mappings if m.path == {str(weights)!r}}}
    deltas = {{e.name: [e.delta.reclaimable_bytes, e.delta.held_bytes] for e in timeline.entries}}
    shmem_bytes = timeline.entries[2].delta.rss_shmem_bytes
    report([deltas, bound(timeline), sorted(kinds), shmem_bytes])
"""
    with Child(BOUND + script) as child:
        deltas, bound_bytes, kinds, shmem_bytes = child.report()
    assert kinds
    near = 512 * 1024 + bound_bytes
    if "shmem" in kinds or shmem_bytes >= 24 * MIB - near:
        pytest.skip("the working directory is a tmpfs")
    assert deltas["mapped"] == pytest.approx([24 * MIB, 0], abs=near)
    assert deltas["copied"] == pytest.approx([0, 24 * MIB], abs=near)


BASELINE = """
import sqlite3
block = grow(30 * MIB)
timeline = memacct.Timeline().start()
report({
    "numpy": "numpy" in sys.modules,
    "rss": timeline.entries[0].host.rss_bytes,
    "baseline": timeline.baseline.rss_bytes,
    "lag": timeline.baseline.counter_lag_bytes,
    "bound": timeline.entries[0].host.rss_error_bound_bytes or 0,
    "parts": [[p.kind, p.path, p.rss_bytes, p.mappings_count] for p in timeline.baseline.parts],
    "kinds": timeline.baseline.by_kind(),
    "packages": timeline.baseline.by_package(),
    "executable": os.path.realpath(sys.executable),
    "text": str(timeline),
})
wait()
"""


def test_the_parts_of_a_baseline_sum_up_to_it_exactly() -> None:
    with Child(BASELINE) as child:
        found = child.report()
        smaps = Path(f"/proc/{child.pid}/smaps").read_text()
    parts = found["parts"]
    assert found["rss"] == found["baseline"] == sum(part[2] for part in parts) + found["lag"]
    # The counter and the mappings are read again while they disagree.
    assert abs(found["lag"]) <= MIB + found["bound"]
    assert not found["numpy"]
    assert found["kinds"]["anon"] >= 30 * MIB
    assert {"interpreter", "library", "heap", "anon", "stack"} <= found["kinds"].keys()
    assert sum(found["kinds"].values()) == sum(part[2] for part in parts)
    interpreter = [path for kind, path, _, _ in parts if kind == "interpreter"]
    assert found["executable"] in interpreter
    # By files: as the kernel's own text has them.
    libraries = {path: rss for kind, path, rss, _ in parts if kind == "library"}
    assert any("sqlite3" in path for path in libraries)
    assert "memacct" in found["packages"]
    for path, rss_bytes in libraries.items():
        if "sqlite3" in path:
            assert rss_bytes == file_rss(smaps, path)
    assert "baseline" in found["text"]


UNASKED = """
def parts(timeline):
    found = timeline.baseline
    return [sorted({p.kind for p in found.parts}), found.counter_lag_bytes, found.unexplained_bytes,
            {p.mappings_count for p in found.parts} == {None}]
def forked(timeline):
    pid = os.fork()
    if pid == 0:
        timeline.checkpoint("child")
        report(parts(timeline))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
BLOCK
memacct.checkpoint("implicit")
report(parts(memacct.current_timeline()))
forked(memacct.current_timeline())
with memacct.Timeline() as timeline:
    report(parts(timeline))
    forked(timeline)
    report([timeline.identity().holds, str(timeline)])
"""
KINDS = [["anon", "file", "shmem"], None, 0, True]


def test_nobody_waits_for_a_walk_that_was_not_asked_for() -> None:
    with Child(UNASKED.replace("BLOCK", "block = grow(320 * MIB)")) as child:
        implicit, forked, asked, forked_of_asked, _ = (child.report() for _ in range(5))
        child.end()
    assert implicit == forked == forked_of_asked == KINDS
    assert "library" in asked[0]
    assert asked[2:] == [0, False]


def test_a_small_process_has_its_parts_unasked() -> None:
    with Child(UNASKED.replace("BLOCK", "")) as child:
        found = [child.report() for _ in range(4)]
        holds, _ = child.report()
        child.end()
    for kinds, _, unexplained_bytes, are_counted in found:
        assert {"interpreter", "library", "heap"} <= set(kinds)
        assert unexplained_bytes == 0
        assert not are_counted
    assert holds is True


def file_rss(smaps: str, path: str) -> int:
    total = 0
    inside = False
    for line in smaps.splitlines():
        if line.partition(" ")[0].count("-") == 1:
            inside = line.endswith(path)
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_a_baseline_without_parts_reads_no_mappings() -> None:
    with memacct.Timeline(breakdown=False) as timeline:
        assert timeline.baseline is None
        assert timeline.entries[0].kind == "baseline"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The lines of a timeline that holds: start, baseline, one, two, three, end."""
    path = tmp_path_factory.mktemp("written") / "timeline.jsonl"
    with memacct.Timeline(path) as timeline:
        for name in ("one", "two", "three"):
            timeline.checkpoint(name)
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    assert len(lines) == 6
    return lines


def check_of(lines: list[dict[str, Any]]) -> memacct.IdentityCheck:
    """The check that a reader of ``lines`` makes."""
    (record,), torn_count = parse_timelines([json.dumps(line).encode() for line in lines], "test")
    assert torn_count == 0
    check = record.identity()
    assert check is not None
    assert str(check) in str(record)
    return check


def test_what_was_written_holds(written: list[dict[str, Any]]) -> None:
    assert check_of(written).holds is True
    assert str(check_of(written)).endswith("equal")


@pytest.mark.parametrize("dropped", [{2}, {3}, {4}, {2, 3, 4}], ids=str)
def test_the_check_fails_where_entries_are_lost(
    written: list[dict[str, Any]], dropped: set[int]
) -> None:
    check = check_of([line for number, line in enumerate(written) if number not in dropped])
    assert check.difference_bytes == 0  # sums of increments cannot tell
    assert check.holds is False
    assert f"{len(dropped)} entries are lost" in str(check)


def test_the_check_fails_where_the_baseline_is_lost(written: list[dict[str, Any]]) -> None:
    check = check_of([written[0], *written[2:]])
    assert check.holds is False
    assert "the baseline is lost" in str(check)


def test_the_check_fails_where_a_part_of_the_baseline_is_lost(
    written: list[dict[str, Any]],
) -> None:
    lines = copy.deepcopy(written)
    _, _, rss_bytes, _ = lines[1]["parts"].pop()
    check = check_of(lines)
    assert check.holds is False
    assert f"the baseline's parts are off by {rss_bytes} bytes" in str(check)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("fields", "by_bytes"),
    [
        (["rss_bytes"], -4096),
        (["rss_anon_bytes"], 4096),
        (["rss_file_bytes"], -4096),
        (["rss_shmem_bytes"], 4096),
        (["rss_bytes", "rss_anon_bytes"], 1 << 40),  # more than there ever was
    ],
    ids=str,
)
def test_the_check_fails_where_a_value_is_wrong(
    written: list[dict[str, Any]], number: int, fields: list[str], by_bytes: int
) -> None:
    lines = copy.deepcopy(written)
    for field in fields:
        lines[number]["host"][field] += by_bytes
    check = check_of(lines)
    assert check.holds is False
    assert f"entry {number - 1} contradicts itself" in str(check)


def test_the_check_fails_where_the_sum_is_not_what_statm_says(
    written: list[dict[str, Any]],
) -> None:
    lines = copy.deepcopy(written)
    lines[-1]["now_bytes"] += 4096
    check = check_of(lines)
    assert check.difference_bytes == 4096
    assert check.holds is False
    assert "off by +4 KiB" in str(check)


def test_the_check_counts_what_came_after_the_last_entry() -> None:
    with memacct.Timeline() as timeline:
        timeline.checkpoint("before")
        with mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
            for offset in range(0, len(block), mmap.PAGESIZE):
                block[offset] = 1
            check = timeline.identity()
            assert "since the last entry" in str(timeline)
    bound_bytes = 2 * (timeline.entries[-1].host.rss_error_bound_bytes or 0)
    assert check.since_last_bytes == pytest.approx(32 * MIB, abs=MIB + bound_bytes)
    assert check.holds
    assert check.difference_bytes == 0
