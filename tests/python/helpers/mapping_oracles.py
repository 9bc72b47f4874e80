"""What psutil and pmap say of a process's mappings, compared with what memacct says.

The process is stopped, so its own numbers stand still. How the pages of shared files divide
does not: other processes map and leave them all the time, and the kernel may age what was
referenced. Those columns must agree wherever two of our readings around the oracle's do; the
rest of a reading must be equal, and a reading is repeated until nothing else is in the way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from memacct import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from memacct._core import Mapping, Mappings

    Cells = dict[str, list[object]]  # a column's name -> its value in each mapping

KIB = 1024
DEADLINE_S = 120.0
# What others' doings change in a process that is stopped.
UNSETTLED = frozenset(
    {
        "pss_bytes",
        "pss_dirty_bytes",
        "shared_clean_bytes",
        "shared_dirty_bytes",
        "private_clean_bytes",
        "private_dirty_bytes",
        "referenced_bytes",
    }
)
# A known difference: psutil reads these ten sizes, under its own names.
PSUTIL_COLUMNS = {
    "vms_bytes": "size",
    "rss_bytes": "rss",
    "pss_bytes": "pss",
    "shared_clean_bytes": "shared_clean",
    "shared_dirty_bytes": "shared_dirty",
    "private_clean_bytes": "private_clean",
    "private_dirty_bytes": "private_dirty",
    "referenced_bytes": "referenced",
    "anonymous_bytes": "anonymous",
    "swap_bytes": "swap",
}
PMAP_COLUMNS = {
    "Size": "vms_bytes",
    "KernelPageSize": "kernel_page_bytes",
    "MMUPageSize": "mmu_page_bytes",
    "Rss": "rss_bytes",
    "Pss": "pss_bytes",
    "Pss_Dirty": "pss_dirty_bytes",
    "Shared_Clean": "shared_clean_bytes",
    "Shared_Dirty": "shared_dirty_bytes",
    "Private_Clean": "private_clean_bytes",
    "Private_Dirty": "private_dirty_bytes",
    "Referenced": "referenced_bytes",
    "Anonymous": "anonymous_bytes",
    "KSM": "ksm_bytes",
    "LazyFree": "lazy_free_bytes",
    "AnonHugePages": "anon_huge_bytes",
    "ShmemPmdMapped": "shmem_huge_bytes",
    "FilePmdMapped": "file_huge_bytes",
    "Shared_Hugetlb": "shared_hugetlb_bytes",
    "Private_Hugetlb": "private_hugetlb_bytes",
    "Swap": "swap_bytes",
    "SwapPss": "swap_pss_bytes",
    "Locked": "locked_bytes",
}

# ---------------------------------------------------------------- stopping


def _states(pid: int) -> set[str]:
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            states.add(stat.read_text().rpartition(")")[2].split()[0])
    return states


@contextlib.contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """Stops processes, every thread of them, and lets them go on afterwards."""
    pids = list(pids)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: all(_states(pid) <= {"T"} for pid in pids), "the processes to stop")
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_S) -> None:
    """Polls; fails the test after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.002)


# ---------------------------------------------------------------- our side


def our_cells(mappings: Mappings, columns: Iterable[str]) -> Cells:
    """Our columns, as plain values."""
    rows = mappings.rows
    return {name: rows[name].tolist() for name in columns}


def each(mappings: Mappings) -> list[Mapping]:
    """The mappings as a list."""
    return [mappings[i] for i in range(len(mappings))]


def kernel_name(mappings: Mappings, index: int) -> str:
    """A mapping's name as smaps has it: newlines escaped, deleted ones marked."""
    mapping = mappings[index]
    if mapping.path is None:
        return ""
    return mapping.path.replace("\n", "\\012") + (" (deleted)" if mapping.deleted else "")


def differences(oracle: Cells, first: Cells, second: Cells) -> list[str]:
    """Cells in which the oracle says something else than both of ours, in words."""
    wrong = []
    for name, theirs in oracle.items():
        if len(theirs) != len(first[name]) or len(theirs) != len(second[name]):
            return [f"{name}: {len(theirs)} mappings, not {len(first[name])}"]
        for i, cells in enumerate(zip(theirs, first[name], second[name], strict=True)):
            told, before, after = cells
            settled = before == after or name not in UNSETTLED
            if settled and (told != before or told != after):
                wrong.append(f"{name} of mapping {i}: {told!r}, not {before!r} and {after!r}")
    return wrong


def agree(compare: Callable[[], list[str]]) -> None:
    """Compares until there is no difference: what others do comes and goes, a defect stays."""
    deadline = time.monotonic() + DEADLINE_S
    attempts_count = 0
    while wrong := compare():
        attempts_count += 1
        assert attempts_count < 3 or time.monotonic() < deadline, "\n".join(wrong[:20])


# ---------------------------------------------------------------- psutil


def psutil_name(name: str) -> str:
    """What psutil makes of a name in smaps.

    Known differences: it has a word for no name, takes blanks off both ends, leaves newlines
    escaped, and drops " (deleted)" unless a file of that very name exists.
    """
    name = name.strip()
    if name.endswith(" (deleted)") and not Path(name).exists():
        return name.removesuffix(" (deleted)")
    return name or "[anon]"


def _psutil_cells(process: psutil.Process) -> Cells:
    maps = process.memory_maps(grouped=False)
    cells: Cells = {
        ours: [getattr(row, theirs) for row in maps] for ours, theirs in PSUTIL_COLUMNS.items()
    }
    return cells | {
        "range": [row.addr for row in maps],
        "perms": [row.perms for row in maps],
        "name": [row.path for row in maps],
    }


def _our_psutil_cells(pid: int) -> Cells:
    mappings = _core.read_mappings(pid)
    cells = our_cells(mappings, PSUTIL_COLUMNS)
    return cells | {
        "range": [f"{mapping.start:08x}-{mapping.end:08x}" for mapping in each(mappings)],
        "perms": [mapping.perms for mapping in each(mappings)],
        "name": [psutil_name(kernel_name(mappings, i)) for i in range(len(mappings))],
    }


def assert_equals_memory_maps(pid: int) -> None:
    """``psutil.Process.memory_maps(grouped=False)`` says the same, mapping by mapping."""
    process = psutil.Process(pid)

    def compare() -> list[str]:
        before = _our_psutil_cells(pid)
        oracle = _psutil_cells(process)
        return differences(oracle, before, _our_psutil_cells(pid))

    agree(compare)


def assert_equals_memory_full_info(pid: int) -> None:
    """``psutil.Process.memory_full_info()`` says the same in sum.

    Known differences: its uss includes Private_Hugetlb, which is in neither rss nor pss. Its
    pss comes from smaps_rollup, which rounds down to a KiB once where smaps does so in each
    mapping. Its rss is the counter of statm, which may lag by what the processors hold back;
    its vms leaves out the vsyscall page, which is the kernel's and not the process's.
    """
    process = psutil.Process(pid)

    def compare() -> list[str]:
        before, info, after = _sums(pid), process.memory_full_info(), _sums(pid)
        batches_bytes = 3 * 64 * os.sysconf("SC_PAGE_SIZE") * (os.cpu_count() or 1)
        bounds = {
            "vms": (before["vms"], after["vms"]),
            "rss": (before["rss"] - batches_bytes, after["rss"] + batches_bytes),
            "uss": _between(before["uss"], after["uss"]),
            "swap": (before["swap"], after["swap"]),
            "pss": _between(before["pss"], after["pss"] + KIB * before["mappings"]),
        }
        told = info._asdict()
        return [
            f"{name}: {told[name]} is not in [{low}, {high}]"
            for name, (low, high) in bounds.items()
            if not low <= told[name] <= high
        ]

    agree(compare)


def _between(first: int, second: int) -> tuple[int, int]:
    return min(first, second), max(first, second)


def _sums(pid: int) -> dict[str, int]:
    mappings = _core.read_mappings(pid)
    rows = mappings.rows
    private = ("private_clean_bytes", "private_dirty_bytes", "private_hugetlb_bytes")
    vsyscall = sum(m.end - m.start for m in each(mappings) if m.path == "[vsyscall]")
    return {
        "mappings": len(mappings),
        "vms": int(rows["vms_bytes"].sum()) - vsyscall,
        "rss": int(rows["rss_bytes"].sum()),
        "pss": int(rows["pss_bytes"].sum()),
        "uss": sum(int(rows[name].sum()) for name in private),
        "swap": int(rows["swap_bytes"].sum()),
    }


# ---------------------------------------------------------------- pmap


def pmap_program() -> str:
    """The path of procps' pmap; skips the test where there is none."""
    program = shutil.which("pmap")
    if program is None:
        pytest.skip("no pmap (Debian: apt-get install procps)")
    return program


def _table(text: str) -> Cells:
    """pmap's table. Its columns are as wide as their widest cell, all but the last flush right."""
    lines = text.splitlines()
    title = lines[1]
    names = title.split()
    ends = [len(title[: title.index(f" {name} ")]) + 1 + len(name) for name in names[:-1]]
    starts = [0, *(end + 1 for end in ends)]
    cells: Cells = {name: [] for name in names}
    for line in lines[2:]:
        if line.strip().startswith("="):
            break
        for name, start, end in zip(names, starts, [*ends, len(line)], strict=True):
            cell = line[start:end]
            cells[name].append(cell if name == names[-1] else cell.strip())
    return cells


@contextlib.contextmanager
def _pmap_holding_still(pid: int, flag: str) -> Iterator[subprocess.Popen[bytes]]:
    """pmap, once it has read all and waits to be read: it maps libraries that others map too."""
    command = [pmap_program(), flag, "-p", str(pid)]
    # Small before it starts: a pipe that holds more than a page by then cannot be made one.
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    environ = {"LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environ, pipesize=page_bytes
    ) as pmap:
        assert pmap.stdout is not None
        pipe = pmap.stdout.fileno()
        capacity = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
        assert capacity == page_bytes

        def waits() -> bool:
            held = fcntl.ioctl(pipe, termios.FIONREAD, struct.pack("i", 0))
            full: bool = struct.unpack("i", held)[0] >= capacity
            return full or pmap.poll() is not None

        wait_until(waits, "pmap to fill its pipe")
        yield pmap


def _pmap_cells(text: str) -> Cells:
    table = _table(text)
    cells: Cells = {
        ours: [int(str(cell)) * KIB for cell in table[theirs]]
        for theirs, ours in PMAP_COLUMNS.items()
        if theirs in table
    }
    cells |= {
        "start": [int(str(cell), 16) for cell in table["Address"]],
        "perms": table["Perm"],
        "offset": [int(str(cell), 16) for cell in table["Offset"]],
        "device": table["Device"],
        "inode": [int(str(cell)) for cell in table["Inode"]],
        "name": table["Mapping"],
    }
    if "VmFlags" in table:
        cells["vm_flags"] = [tuple(sorted(str(cell).split())) for cell in table["VmFlags"]]
    return cells


def _our_pmap_cells(pid: int) -> Cells:
    mappings = _core.read_mappings(pid)
    known = set(PMAP_COLUMNS.values()) & set(mappings.rows.dtype.names or ())
    cells = our_cells(mappings, [*known, "start", "offset", "inode"])
    return cells | {
        "perms": [mapping.perms for mapping in each(mappings)],
        "device": [f"{m.dev_major:02x}:{m.dev_minor:02x}" for m in each(mappings)],
        "name": [kernel_name(mappings, i) for i in range(len(mappings))],
        "vm_flags": [tuple(sorted(mapping.vm_flags or ())) for mapping in each(mappings)],
    }


def assert_equals_pmap(pid: int, flag: str) -> None:
    """``pmap -X`` (or ``-XX``: every field) says the same, cell by cell, in KiB."""

    def compare() -> list[str]:
        with _pmap_holding_still(pid, flag) as pmap:
            first, second = _our_pmap_cells(pid), _our_pmap_cells(pid)
            text, _ = pmap.communicate(timeout=DEADLINE_S)
        oracle = _pmap_cells(text.decode(errors="surrogateescape"))
        assert len(oracle["start"]) > 0, text
        return differences(oracle, first, second)

    agree(compare)


def assert_all_equal(pid: int, *, pmap_flags: Iterable[str] = ("-X", "-XX")) -> None:
    """Every oracle, of a process that stands still."""
    rows = _core.read_mappings(pid).rows
    assert np.all(rows["start"][1:] >= rows["end"][:-1])
    assert_equals_memory_maps(pid)
    assert_equals_memory_full_info(pid)
    for flag in pmap_flags:
        assert_equals_pmap(pid, flag)


# ---------------------------------------------------------------- a process that stands still


@contextlib.contextmanager
def still_child(script: str, *, python: str | Path = sys.executable) -> Iterator[int]:
    """A Python that has run ``script``, stopped; its pid.

    The script finds in ``folder`` the path of an empty folder.
    """
    # In the working directory: /tmp may be a tmpfs, whose pages are shmem.
    with tempfile.TemporaryDirectory(dir=".") as folder:
        lines = [f"folder = {str(Path(folder).resolve())!r}", script]
        text = "\n".join([*lines, "print('ready', flush=True)", "input()"])
        command = [python, "-c", text]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            try:
                assert child.stdout.readline() == "ready\n"
                with stopped([child.pid]):
                    yield child.pid
            finally:
                child.kill()
