"""Our mappings are what psutil and pmap say, of real processes that stand still."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hugepages
import numpy as np
import psutil
import pytest
from mapping_oracles import (
    assert_all_equal,
    assert_equals_memory_full_info,
    assert_equals_memory_maps,
    kernel_name,
    still_child,
    wait_until,
)

from memacct import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20

VARIED = """
import ctypes, mmap, os, threading
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
PAGE = mmap.PAGESIZE
keep = []
def touched(block, step=PAGE):
    for at in range(0, len(block), step):
        block[at] = 1
    keep.append(block)
def opened(name, size=16 * PAGE, deleted=False):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(b"x" * size)
    file = open(path, "rb+")
    if deleted:
        os.unlink(path)
    keep.append(file)
    return file.fileno()
touched(mmap.mmap(-1, 4 << 20, flags=ANONYMOUS), 3 * PAGE)
touched(mmap.mmap(-1, 1 << 20))
memory = os.memfd_create("a buffer")
os.ftruncate(memory, 1 << 20)
touched(mmap.mmap(memory, 1 << 20))
for name in ("a b  c", "new\\nline", "Rss:                   8 kB", "VmFlags: rd", "x (deleted)",
             "blank at the end ", "w.safetensors", "lib.so.1", "\\u4e2d"):
    touched(mmap.mmap(opened(name), 0))
    keep.append(mmap.mmap(opened(name + "2"), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))
touched(mmap.mmap(opened("gone", deleted=True), 0))
touched(mmap.mmap(opened("gone\\ntoo", deleted=True), 0, flags=mmap.MAP_PRIVATE))
locked = mmap.mmap(-1, 8 * PAGE, flags=ANONYMOUS)
touched(locked)
ctypes.CDLL(None).mlock((ctypes.c_char * len(locked)).from_buffer(locked), len(locked))
huge = mmap.mmap(-1, 8 << 20, flags=ANONYMOUS)
huge.madvise(mmap.MADV_HUGEPAGE)
touched(huge)
free = mmap.mmap(-1, 1 << 20, flags=ANONYMOUS)
touched(free)
free.madvise(getattr(mmap, "MADV_FREE", 8))
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
MANY = """
import ctypes, mmap
COUNT = 60_000
libc = ctypes.CDLL(None, use_errno=True)
block = mmap.mmap(-1, COUNT * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
start = ctypes.addressof(ctypes.c_char.from_buffer(block))
for at in range(0, COUNT, 2):
    block[at * mmap.PAGESIZE] = 1
    page = ctypes.c_void_p(start + at * mmap.PAGESIZE)
    if libc.mprotect(page, mmap.PAGESIZE, mmap.PROT_READ):
        raise OSError(ctypes.get_errno(), "mprotect")
"""
HUGETLB = """
import mmap
MAP_HUGETLB = 0x40000
private = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
shared = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
private[0] = private[2 << 20] = shared[0] = 1
"""


def test_a_python_with_mappings_of_every_kind() -> None:
    with still_child(VARIED) as pid:
        assert_all_equal(pid)
        mappings = _core.read_mappings(pid)
        kinds = set(mappings.by_kind())
        assert {"heap", "stack", "anon", "file", "library", "shmem", "special"} <= kinds
        names = [kernel_name(mappings, i) for i in range(len(mappings))]
        assert sum("new\\012line" in name for name in names) == 2
        assert sum(name.endswith("/gone (deleted)") for name in names) == 1


def test_a_process_with_sixty_thousand_mappings() -> None:
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit < 61_000:
        pytest.skip(f"vm.max_map_count is {limit}")
    with still_child(MANY) as pid:
        # pmap -XX has nothing that the other test does not see, and takes half a minute.
        assert_all_equal(pid, pmap_flags=("-X",))
        mappings = _core.read_mappings(pid)
        assert len(mappings) > 60_000
        # Known answer: every second page was touched, and no other.
        single = mappings.rows[mappings.rows["vms_bytes"] == 4096]
        assert np.count_nonzero(single["rss_bytes"]) >= 30_000


@pytest.fixture
def hugetlb_pool() -> Iterator[None]:
    """Three free huge pages of 2 MiB; gives back what it took."""
    with hugepages.grown(3):
        yield


@pytest.mark.usefixtures("hugetlb_pool")
def test_psutil_counts_hugetlb_as_unique_and_we_keep_it_apart() -> None:
    with still_child(HUGETLB) as pid:
        assert_equals_memory_maps(pid)
        assert_equals_memory_full_info(pid)
        huge = _core.read_mappings(pid).by_kind()["hugetlb"]
        assert (huge.rss_bytes, huge.pss_bytes) == (0, 0)
        assert huge.mappings_count == 2
        assert huge.private_hugetlb_bytes is not None
        assert huge.shared_hugetlb_bytes is not None
        assert huge.private_hugetlb_bytes + huge.shared_hugetlb_bytes == 6 * MIB
        assert huge.held_bytes == 6 * MIB


# ---------------------------------------------------------------- a browser

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",  # says on stderr when it is there
)


@pytest.fixture
def chromium() -> Iterator[list[psutil.Process]]:
    """The processes of a headless browser that shows a page, stopped."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen(
            [program, *CHROMIUM_FLAGS, f"--user-data-dir={profile}", "data:text/html,<p>still"],
            stderr=subprocess.PIPE,
            text=True,
        ) as browser,
    ):
        root = psutil.Process(browser.pid)
        family: list[psutil.Process] = []
        try:
            assert browser.stderr is not None
            assert any(re.search("DevTools listening", line) for line in browser.stderr)
            wait_until(lambda: has_renderer(root), "a renderer")
            family = stopped_family(root)
            yield family
        finally:
            for process in family or [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def has_renderer(root: psutil.Process) -> bool:
    for process in root.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "--type=renderer" in process.cmdline():
                return True
    return False


def stopped_family(root: psutil.Process) -> list[psutil.Process]:
    """All processes below and with ``root``, stopped; parents first, so that no child is new."""
    family: list[psutil.Process] = []
    while new := [p for p in [root, *root.children(recursive=True)] if p not in family]:
        for process in new:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
            family.append(process)
    wait_until(
        lambda: all(not p.is_running() or p.status() in {"stopped", "zombie"} for p in family),
        "the browser to stop",
    )
    return [p for p in family if p.is_running() and p.status() == "stopped"]


def test_headless_chromium(chromium: list[psutil.Process]) -> None:
    assert len(chromium) >= 3, chromium
    for process in chromium:
        assert_all_equal(process.pid)
