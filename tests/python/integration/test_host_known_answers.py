"""The live kernel: memory of a known kind and size appears where it should."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import pytest

import memacct
from memacct import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
PAGE = mmap.PAGESIZE
# The kernel counts pages in batches per CPU: up to 64 (or twice the CPUs) on each.
MARGIN = 2 * MIB
LIBRARIES = 16 * MIB


def touch(block: mmap.mmap) -> None:
    for offset in range(0, len(block), PAGE):
        block[offset] = 1


@pytest.fixture
def private() -> Iterator[mmap.mmap]:
    # MAP_PRIVATE: Python's default is MAP_SHARED, which the kernel counts as shmem.
    with mmap.mmap(-1, 256 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        yield block


def test_touched_private_pages_appear_in_rss_anon(private: mmap.mmap) -> None:
    before = memacct.snapshot()
    touch(private)
    delta = (memacct.snapshot() - before).host
    assert delta.rss_anon_bytes == pytest.approx(256 * MIB, abs=MARGIN)
    assert delta.rss_bytes == pytest.approx(256 * MIB, abs=MARGIN)
    assert delta.held_bytes == pytest.approx(256 * MIB, abs=MARGIN)
    assert delta.rss_shmem_bytes == pytest.approx(0, abs=MARGIN)
    assert delta.reclaimable_bytes == pytest.approx(0, abs=MARGIN)


def test_touched_private_pages_appear_in_the_counters(private: mmap.mmap) -> None:
    before = memacct.snapshot("counters")
    touch(private)
    delta = (memacct.snapshot("counters") - before).host
    assert delta.rss_bytes == pytest.approx(256 * MIB, abs=MARGIN)
    assert delta.shared_bytes == pytest.approx(0, abs=MARGIN)
    assert delta.vms_bytes == pytest.approx(0, abs=MARGIN)
    assert delta.held_bytes is None


def test_touched_private_pages_are_unique_in_the_rollup(private: mmap.mmap) -> None:
    before = memacct.snapshot("rollup")
    touch(private)
    delta = (memacct.snapshot("rollup") - before).host
    # Pages of libraries become unique, or cease to be, as others that map them end and start.
    assert delta.uss_bytes == pytest.approx(256 * MIB, abs=LIBRARIES)
    assert delta.pss_anon_bytes == pytest.approx(256 * MIB, abs=MARGIN)
    assert delta.held_bytes == pytest.approx(256 * MIB, abs=MARGIN)


def test_shared_pages_appear_in_rss_shmem() -> None:
    before = memacct.snapshot()
    with mmap.mmap(-1, 64 * MIB) as block:
        touch(block)
        delta = (memacct.snapshot() - before).host
    assert delta.rss_shmem_bytes == pytest.approx(64 * MIB, abs=MARGIN)
    assert delta.rss_anon_bytes == pytest.approx(0, abs=MARGIN)
    assert delta.shared_bytes == pytest.approx(64 * MIB, abs=MARGIN)
    assert delta.held_bytes == pytest.approx(64 * MIB, abs=MARGIN)


@pytest.fixture
def disk_file() -> Iterator[int]:
    # In the working directory: /tmp may be a tmpfs, whose pages are shmem.
    with tempfile.TemporaryFile(dir=".") as file:
        file.write(b"x" * (32 * MIB))
        file.flush()
        os.fsync(file.fileno())
        yield file.fileno()


def test_a_mapped_file_is_reclaimable(disk_file: int) -> None:
    before = memacct.snapshot("rollup")
    with mmap.mmap(disk_file, 32 * MIB, prot=mmap.PROT_READ) as block:
        sum(block[offset] for offset in range(0, len(block), PAGE))
        delta = (memacct.snapshot("rollup") - before).host
    if delta.rss_shmem_bytes:
        pytest.skip("the working directory is on a tmpfs")
    assert delta.rss_file_bytes == pytest.approx(32 * MIB, abs=MARGIN)
    assert delta.reclaimable_bytes == pytest.approx(32 * MIB, abs=MARGIN)
    assert delta.held_bytes == pytest.approx(0, abs=MARGIN)


def test_a_file_dirtied_through_its_mapping_is_held(disk_file: int) -> None:
    before = memacct.snapshot("rollup")
    with mmap.mmap(disk_file, 32 * MIB) as block:
        touch(block)
        delta = (memacct.snapshot("rollup") - before).host
    if delta.rss_shmem_bytes:
        pytest.skip("the working directory is on a tmpfs")
    # A lower bound, less what is anonymous or shmem and clean (and what was written back).
    assert delta.held_bytes is not None
    assert 16 * MIB < delta.held_bytes < 32 * MIB + MARGIN


def test_peak_stays_after_the_memory_is_free() -> None:
    before = memacct.snapshot().host
    with mmap.mmap(-1, 256 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        touch(block)
        during = memacct.snapshot().host
    after = memacct.snapshot().host
    assert after.rss_bytes == pytest.approx(before.rss_bytes, abs=MARGIN)
    assert after.peak_rss_bytes is not None
    assert after.peak_rss_bytes >= during.rss_bytes - MARGIN


def test_locked_pages_appear_in_locked() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(-1, 4 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        pages = (ctypes.c_char * len(block)).from_buffer(block)
        before = memacct.snapshot()
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        failed = libc.mlock(pages, ctypes.c_size_t(len(block)))
        delta = (memacct.snapshot() - before).host
        del pages
    if failed and soft_limit != resource.RLIM_INFINITY:
        pytest.skip(f"mlock of 4 MiB is not permitted (limit {soft_limit})")
    assert delta.locked_bytes == 4 * MIB


def test_rss_is_the_sum_of_its_kinds() -> None:
    host = memacct.snapshot().host
    if host.rss_anon_bytes is None:
        pytest.skip("a kernel older than 4.5")
    assert host.rss_file_bytes is not None
    assert host.rss_shmem_bytes is not None
    assert host.rss_bytes == host.rss_anon_bytes + host.rss_file_bytes + host.rss_shmem_bytes


def test_unique_proportional_and_resident_are_ordered(private: mmap.mmap) -> None:
    touch(private)
    host = memacct.snapshot("rollup").host
    assert host.uss_bytes is not None
    assert host.pss_bytes is not None
    assert host.rss_exact_bytes is not None
    assert host.uss_bytes <= host.pss_bytes <= host.rss_exact_bytes


def test_tiers_agree_within_the_batches_of_the_counters(private: mmap.mmap) -> None:
    touch(private)
    batches = 64 * PAGE * (os.cpu_count() or 1) * 3
    margin = max(MARGIN, batches)
    counters, breakdown, rollup = (
        _core.read_host(tier) for tier in ("counters", "breakdown", "rollup")
    )
    assert counters.rss_bytes == pytest.approx(breakdown.rss_bytes, abs=margin)
    assert counters.shared_bytes == pytest.approx(breakdown.shared_bytes, abs=margin)
    assert rollup.rss_exact_bytes == pytest.approx(breakdown.rss_bytes, abs=margin)
    assert rollup.anonymous_bytes == pytest.approx(breakdown.rss_anon_bytes, abs=margin)


def test_each_tier_knows_what_it_should_and_no_more() -> None:
    counters = _core.read_host("counters")
    known = {name for name, value in counters.to_dict().items() if value is not None}
    known -= {"rss_error_bound_bytes"}  # which depends on the kernel
    assert known == {"tier", "pid", "vms_bytes", "rss_bytes", "shared_bytes"}
    assert counters.pid == os.getpid()
    assert _core.read_host("breakdown").pss_bytes is None
    rollup = _core.read_host("rollup").to_dict()
    assert [name for name, value in rollup.items() if value is None] == []


def test_the_machine_is_as_sysconf_says() -> None:
    system = _core.read_system()
    pages = os.sysconf("SC_PHYS_PAGES")
    assert system.total_bytes == pages * os.sysconf("SC_PAGE_SIZE")
    assert 0 < system.free_bytes < system.total_bytes


def test_the_control_group_counts_what_we_touch(private: mmap.mmap) -> None:
    before = _core.read_cgroup()
    if before is None or before.usage_bytes is None:
        pytest.skip("no memory control group with usage")
    touch(private)
    after = _core.read_cgroup()
    assert after is not None
    assert after.usage_bytes is not None
    # Other processes of the group move too: that it grew by most of ours must do.
    assert after.usage_bytes - before.usage_bytes > 128 * MIB


def test_a_snapshot_is_stamped_around_its_readings() -> None:
    start = time.monotonic_ns()
    snapshot = memacct.snapshot("rollup")
    end = time.monotonic_ns()
    assert start <= snapshot.taken_ns
    assert snapshot.taken_ns + snapshot.span_ns <= end
    assert snapshot.span_ns > 0
    assert snapshot.pid == os.getpid()


def test_many_threads_at_once_read_whole_and_right() -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    def read(tier: _core.HostTier) -> None:
        try:
            barrier.wait(timeout=30)
            for _ in range(200):
                snapshot = memacct.snapshot(tier)
                assert snapshot.pid == os.getpid()
                assert snapshot.host.tier == tier
                assert MIB < snapshot.host.rss_bytes < snapshot.host.vms_bytes
        except BaseException as error:  # noqa: BLE001 (reported by the main thread)
            errors.append(error)

    tiers: tuple[_core.HostTier, ...] = ("counters", "breakdown", "rollup", "counters")
    threads = [threading.Thread(target=read, args=(tier,)) for tier in tiers * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert errors == []
