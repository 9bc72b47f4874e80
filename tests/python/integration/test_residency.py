"""The cheap reading of mappings tells the same as smaps, page for page, or says it cannot."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hugepages
import mapped_process
import pytest

import memacct
from memacct import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = [
    "start",
    "end",
    "perms",
    "offset",
    "dev_major",
    "dev_minor",
    "inode",
    "kind",
    "path",
    "deleted",
    "vms_bytes",
    "kernel_page_bytes",
    "rss_bytes",
]
# _IOWR('f', 17, struct procmap_query) and _IOWR('f', 16, struct pm_scan_arg) of linux/fs.h
PROCMAP_QUERY, PROCMAP_QUERY_BYTES = 0xC0686611, 104
PAGEMAP_SCAN, PAGEMAP_SCAN_BYTES = 0xC0606610, 96


def asks(file: str, request: int, argument: bytearray) -> bool:
    with Path(file).open("rb") as opened:
        try:
            fcntl.ioctl(opened, request, argument)
        except OSError:
            return False
    return True


def kernel_offers() -> bool:
    # Asked here by hand: memacct's own answer is what is tested.
    query = struct.pack("=3Q", PROCMAP_QUERY_BYTES, 0x10, 0).ljust(PROCMAP_QUERY_BYTES, b"\0")
    scan = struct.pack("=Q", PAGEMAP_SCAN_BYTES).ljust(PAGEMAP_SCAN_BYTES, b"\0")
    return asks("/proc/self/maps", PROCMAP_QUERY, bytearray(query)) and asks(
        "/proc/self/pagemap", PAGEMAP_SCAN, bytearray(scan)
    )


needs_kernel = pytest.mark.skipif(
    not kernel_offers(), reason="the kernel has no PROCMAP_QUERY (6.11) or no PAGEMAP_SCAN (6.7)"
)


@contextlib.contextmanager
def standing_still(sort: str, folder: Path) -> Iterator[tuple[int, Any]]:
    """Yields the pid of a process that has mapped such memory, and where."""
    with subprocess.Popen(
        [sys.executable, mapped_process.__file__, sort, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "it died"
        wait_until_blocked(process.pid)
        yield process.pid, json.loads(line)


def wait_until_blocked(pid: int) -> None:
    # The line is there a moment before its writer is in read().
    while True:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "S":
            return
        os.sched_yield()


def each(mappings: _core.Mappings) -> list[_core.Mapping]:
    return [mappings[index] for index in range(len(mappings))]


def rows(mappings: _core.Mappings) -> list[tuple[Any, ...]]:
    return [tuple(getattr(row, column) for column in COLUMNS) for row in each(mappings)]


def rss_bytes(mappings: list[_core.Mapping]) -> int:
    return sum(row.rss_bytes or 0 for row in mappings)


def read_residency(pid: int = 0) -> _core.Mappings:
    mappings = _core.read_residency(pid)
    assert mappings is not None
    return mappings


@needs_kernel
@pytest.mark.parametrize("sort", [sort for sort in mapped_process.SORTS if sort != "hugetlb"])
def test_equals_smaps_row_by_row(sort: str, tmp_path: Path) -> None:
    with standing_still(sort, tmp_path) as (pid, regions):
        if regions is None:
            pytest.skip(f"this machine has no {sort}")
        residency, smaps = read_residency(pid), _core.read_mappings(pid)
        again = read_residency(pid)
    assert rows(residency) == rows(smaps)
    assert residency == again
    assert (residency.source, residency.pid) == ("pagemap", pid)
    # Unknown is not zero.
    assert residency[0].pss_bytes is None
    assert residency[0].vm_flags is None
    for start, size, expected in regions:
        inside = [row for row in each(residency) if start <= row.start and row.end <= start + size]
        assert sum(row.vms_bytes or 0 for row in inside) == size
        resident = rss_bytes(inside)
        assert expected is None or resident == expected


@needs_kernel
@pytest.mark.parametrize(
    ("sort", "column"),
    [
        ("huge_pages", "anon_huge_bytes"),
        ("advised", "locked_bytes"),
        ("advised", "lazy_free_bytes"),
    ],
)
def test_the_processes_map_what_they_say(sort: str, column: str, tmp_path: Path) -> None:
    with standing_still(sort, tmp_path) as (pid, _):
        assert sum(getattr(row, column) for row in each(_core.read_mappings(pid))) > 0


@needs_kernel
def test_huge_pages_of_a_pool_are_not_resident(tmp_path: Path) -> None:
    with hugepages.grown(4), standing_still("hugetlb", tmp_path) as (pid, regions):
        if regions is None:
            pytest.skip("the machine has no room for four huge pages")
        residency, smaps = read_residency(pid), _core.read_mappings(pid)
    assert rows(residency) == rows(smaps)
    hugetlb = [row for row in each(residency) if row.kind == "hugetlb"]
    assert len(hugetlb) == len(regions)
    assert all(row.kernel_page_bytes == mapped_process.HUGE for row in hugetlb)
    assert all(row.rss_bytes == 0 for row in hugetlb)


@needs_kernel
def test_reads_this_process() -> None:
    start = mapped_process.small_pages(4 * mapped_process.MIB)
    resident = mapped_process.write(start, 4 * mapped_process.MIB, 2 * mapped_process.PAGE)
    mappings = read_residency()
    [row] = [row for row in each(mappings) if row.start == start]
    assert row.rss_bytes == resident
    assert row.kind == "anon"
    assert mappings.pid == os.getpid()
    # Its own memory for the reading was there before: the whole is what smaps says.
    exact = memacct.snapshot("rollup").host.rss_exact_bytes
    assert exact is not None
    assert rss_bytes(each(mappings)) == pytest.approx(exact, abs=2**20)


@needs_kernel
def test_reads_the_child_after_a_fork() -> None:
    read_residency()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        # 40: whatever else happened.
        status = 40
        with contextlib.suppress(BaseException):
            os.write(writer, str(read_residency().pid).encode())
            status = 0
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as answers:
        told = answers.read()
    assert os.waitpid(pid, 0)[1] == 0
    assert int(told) == pid


def test_a_process_that_is_gone_is_unavailable() -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    with pytest.raises(memacct.SourceUnavailableError) as caught:
        _core.read_residency(process.pid)
    assert caught.value.source == f"/proc/{process.pid}/maps"


@needs_kernel
def test_a_process_that_has_ended_and_was_not_waited_for_is_unavailable() -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(memacct.SourceUnavailableError):
            _core.read_residency(process.pid)


@needs_kernel
def test_a_process_that_ends_while_it_is_read_is_unavailable(tmp_path: Path) -> None:
    with standing_still("holes", tmp_path) as (pid, _):
        maps = os.open(f"/proc/{pid}/maps", os.O_RDONLY)
        pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
        assert _core.read_residency_from(pid, maps, pagemap) == read_residency(pid)
    with pytest.raises(memacct.SourceUnavailableError) as caught:
        _core.read_residency_from(pid, maps, pagemap)
    assert "ended" in caught.value.reason
    os.close(maps)
    os.close(pagemap)


# A file that does not know a question answers as a kernel does that has never heard of it.
@needs_kernel
@pytest.mark.parametrize("files", [("statm", "pagemap"), ("maps", "statm"), ("statm", "statm")])
def test_a_kernel_that_does_not_know_the_questions_is_told_from_a_failure(
    files: tuple[str, str],
) -> None:
    maps, pagemap = (os.open(f"/proc/self/{name}", os.O_RDONLY) for name in files)
    try:
        assert _core.read_residency_from(0, maps, pagemap) is None
    finally:
        os.close(maps)
        os.close(pagemap)


@needs_kernel
def test_a_bad_file_is_an_error_and_not_unknown() -> None:
    with Path("/proc/self/maps").open("rb") as maps, pytest.raises(memacct.SourceReadError):
        _core.read_residency_from(0, maps.fileno(), -1)


@needs_kernel
def test_a_name_that_the_kernel_cannot_tell_is_left_to_smaps(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(24):  # deeper than PATH_MAX, step by step
            os.mkdir("d" * 200, dir_fd=folder)
            deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = deeper
        fd = os.open("file", os.O_RDWR | os.O_CREAT, dir_fd=folder)
        os.truncate(fd, mapped_process.PAGE)
        start = mapped_process.map_memory(mapped_process.PAGE, mapped_process.SHARED, fd)
        os.close(fd)
        assert _core.read_residency() is None
    finally:
        os.close(folder)
    mapped_process.unmap(start, mapped_process.PAGE)
    assert _core.read_residency() is not None
