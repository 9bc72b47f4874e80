"""The live kernel: each kind of mapping is recognised, and its bytes are where they belong."""

from __future__ import annotations

import ctypes
import itertools
import json
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from own_mappings import (
    ANONYMOUS,
    LIBC,
    MADV_FREE,
    MIB,
    PAGE,
    PR_SET_VMA,
    PR_SET_VMA_ANON_NAME,
    address,
    file_of,
    find,
    map_file,
    on_a_disk,
    read,
    read_all,
    touch,
)

import memacct
from memacct import _core

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    # In the working directory: /tmp may be a tmpfs, whose pages are shmem.
    with tempfile.TemporaryDirectory(dir=".") as name:
        yield Path(name).resolve()


# ---------------------------------------------------------------- kinds


def test_anonymous_memory_is_held_to_the_page() -> None:
    with touch(mmap.mmap(-1, 8 * MIB, flags=ANONYMOUS)) as block:
        place = address(block)
        mapping = find(read(), place)
        assert mapping.kind == "anon"
        assert mapping.path is None
        assert mapping.perms == "rw-p"
        assert mapping.rss_bytes is not None
        assert mapping.rss_bytes >= 8 * MIB
        assert mapping.held_bytes == mapping.rss_bytes == mapping.anonymous_bytes


def test_only_what_was_touched_is_resident() -> None:
    with mmap.mmap(-1, 8 * MIB) as block:  # shared, so a mapping of its own
        for offset in range(0, 3 * MIB, PAGE):
            block[offset] = 1
        mapping = find(read(), address(block))
        assert mapping.kind == "shmem"
        assert mapping.vms_bytes == 8 * MIB
        assert mapping.rss_bytes == mapping.held_bytes == 3 * MIB
        assert mapping.reclaimable_bytes == 0


def test_heap_stack_and_the_kernels_own_are_recognised() -> None:
    mappings = read()
    kinds = mappings.by_kind()
    assert {"heap", "stack", "special", "library", "anon"} <= set(kinds)
    named = {m.path: m.kind for m in mappings if m.path and m.path.startswith("[")}
    assert named["[heap]"] == "heap"
    assert named["[stack]"] == "stack"
    assert named["[vdso]"] == "special"


def test_named_anonymous_memory_has_its_name() -> None:
    with touch(mmap.mmap(-1, MIB, flags=ANONYMOUS)) as block:
        place = address(block)
        done = LIBC.prctl(
            PR_SET_VMA,
            ctypes.c_ulong(PR_SET_VMA_ANON_NAME),
            ctypes.c_ulong(place),
            ctypes.c_ulong(MIB),
            b"weights",
        )
        if done != 0:
            pytest.skip("this kernel does not name anonymous memory (CONFIG_ANON_VMA_NAME)")
        mapping = find(read(), place)
        assert (mapping.kind, mapping.path) == ("named_anon", "[anon:weights]")
        assert mapping.rss_bytes == MIB


def test_libraries_and_programs_are_told_from_files(folder: Path) -> None:
    data = file_of(folder, "weights.data")
    with read_all(map_file(data)) as block:
        mappings = read()
        mapping = find(mappings, address(block))
    if not on_a_disk(mapping):
        pytest.skip("the working directory is on a tmpfs")
    assert mapping.kind == "file"
    kinds = {m.path: m.kind for m in mappings if m.path}
    program = os.path.realpath("/proc/self/exe")
    assert kinds[program] == "library"
    core = next(path for path in kinds if "/memacct/_core" in path)
    assert kinds[core] == "library"


def test_shared_memory_by_descriptor_and_by_path() -> None:
    descriptor = os.memfd_create("pool")
    os.truncate(descriptor, MIB)
    path = Path(f"/dev/shm/memacct-test-{os.getpid()}")
    path.write_bytes(bytes(MIB))
    try:
        with touch(mmap.mmap(descriptor, MIB)) as memory, touch(map_file(path)) as file:
            mappings = read()
            by_descriptor = find(mappings, address(memory))
            by_path = find(mappings, address(file))
    finally:
        path.unlink()
        os.close(descriptor)
    assert (by_descriptor.kind, by_descriptor.path) == ("shmem", "/memfd:pool")
    assert (by_path.kind, by_path.path) == ("dev_shm", str(path))
    assert by_descriptor.held_bytes == by_path.held_bytes == MIB


def test_residency_is_read_from_smaps_where_pagemap_is_denied() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give up what makes a process readable")
    script = (
        "import os, memacct; os.setuid(65534);"
        "print(memacct.snapshot(host='residency', devices=None).host.tier)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "mappings\n"


def test_a_device_node_is_a_device() -> None:
    # Private: the kernel gives anonymous pages, and the mapping keeps the node's name.
    descriptor = os.open("/dev/zero", os.O_RDWR)
    with mmap.mmap(descriptor, PAGE, flags=mmap.MAP_PRIVATE) as block:
        block[0] = 1
        mapping = find(read(), address(block))
    os.close(descriptor)
    assert (mapping.kind, mapping.path) == ("anon", "/dev/zero")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "two\nlines",
        "x\nRss:                  99 kB\nSize: 4 kB",
        "VmFlags: rd wr",
        "7f0000000000-7f0000001000 r--p 00000000 00:00 0",
        "trailing ",
        "ünïcode-文",
        os.fsdecode(b"not utf-8 \xff\xfe"),
    ],
)
def test_a_path_comes_back_as_it_is(folder: Path, name: str) -> None:
    path = file_of(folder, name, PAGE)
    with read_all(map_file(path)) as block:
        mappings = read()
        mapping = find(mappings, address(block))
    assert mapping.path == str(path)
    assert not mapping.deleted
    assert mappings.by_file()[str(path)].mappings_count == 1


def test_a_table_of_any_names_can_be_written(folder: Path) -> None:
    path = file_of(folder, os.fsdecode(b"w\xff\nx\x1b[31m.safetensors"), PAGE)
    before = memacct.snapshot(host="mappings", devices=None)
    with read_all(map_file(path)):
        after = memacct.snapshot(host="mappings", devices=None)
    for text in (str(after.mappings), str(after - before)):
        assert r"w\udcff\nx\x1b[31m.safetensors" in text.encode().decode()


def test_a_deleted_file_and_the_one_that_took_its_name_are_two(folder: Path) -> None:
    path = file_of(folder, "model.safetensors", 2 * MIB)
    with read_all(map_file(path)) as old:
        path.unlink()
        file_of(folder, "model.safetensors", MIB)
        with read_all(map_file(path)) as new:
            mappings = read()
            ghost, fresh = find(mappings, address(old)), find(mappings, address(new))
    assert (ghost.path, ghost.deleted) == (str(path), True)
    assert (fresh.path, fresh.deleted) == (str(path), False)
    files = mappings.by_file()
    assert files[f"{path} (deleted)"].rss_bytes == 2 * MIB
    assert files[str(path)].rss_bytes == MIB


# ---------------------------------------------------------------- held and reclaimable


def test_file_pages_are_reclaimable_until_they_are_dirty_copied_or_locked(folder: Path) -> None:
    path = file_of(folder, "file")
    with read_all(map_file(path)) as block:
        clean = find(read(), address(block))
        if not on_a_disk(clean):
            pytest.skip("the working directory is on a tmpfs")
        for offset in range(0, MIB, PAGE):
            block[offset] = 2
        dirty = find(read(), address(block))
    assert (clean.held_bytes, clean.reclaimable_bytes) == (0, 4 * MIB)
    # The kernel marks whole folios, and may have written some back: it says what is dirty.
    assert dirty.held_bytes is not None
    assert dirty.shared_dirty_bytes is not None
    assert dirty.private_dirty_bytes is not None
    assert dirty.held_bytes == dirty.shared_dirty_bytes + dirty.private_dirty_bytes
    assert 0 < dirty.held_bytes <= 4 * MIB
    assert dirty.reclaimable_bytes == 4 * MIB - dirty.held_bytes

    other = file_of(folder, "other")
    with read_all(map_file(other, flags=mmap.MAP_PRIVATE)) as block:
        for offset in range(0, MIB, PAGE):
            block[offset] = 2
        copied = find(read(), address(block))
        assert LIBC.mlock(ctypes.c_void_p(address(block)), ctypes.c_size_t(4 * MIB)) == 0
        locked = find(read(), address(block))
    assert (copied.anonymous_bytes, copied.held_bytes) == (MIB, MIB)
    # A huge page of the file that is split is mapped anew only where it is touched.
    assert copied.rss_bytes is not None
    assert copied.reclaimable_bytes == copied.rss_bytes - MIB
    assert locked.vm_flags is not None
    assert "lo" in locked.vm_flags
    assert (locked.held_bytes, locked.reclaimable_bytes) == (4 * MIB, 0)


def test_lazily_freed_memory_is_reclaimable() -> None:
    size = 4 * MIB
    with mmap.mmap(-1, size + 2 * PAGE, flags=ANONYMOUS) as block:
        # Guards around it, so that it is a mapping of its own.
        start = address(block)
        for guard in (start, start + PAGE + size):
            LIBC.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), 0)
        ctypes.memset(start + PAGE, 1, size)
        before = find(read(), start + PAGE)
        done = LIBC.madvise(ctypes.c_void_p(start + PAGE), ctypes.c_size_t(size), MADV_FREE)
        assert done == 0, os.strerror(ctypes.get_errno())
        after = find(read(), start + PAGE)
    assert (before.rss_bytes, before.held_bytes) == (size, size)
    # The kernel may have taken some of it already; what is still there it can take. The last
    # few pages wait in a batch (of 31) of their CPU before they are marked.
    assert after.held_bytes is not None
    assert after.held_bytes <= 31 * PAGE
    assert after.reclaimable_bytes == after.lazy_free_bytes == after.rss_bytes - after.held_bytes


def test_the_sums_are_those_of_the_rollup_and_add_up() -> None:
    snapshot = memacct.snapshot(host="mappings", devices=None)
    mappings, host = snapshot.mappings, snapshot.host
    assert mappings is not None
    assert host.tier == "mappings"
    rows = mappings.rows
    for name in ("pss", "shared_clean", "private_dirty", "anonymous", "swap_pss"):
        assert getattr(host, f"{name}_bytes") == rows[f"{name}_bytes"].sum()
    assert host.rss_exact_bytes == rows["rss_bytes"].sum()
    assert host.uss_bytes == (rows["private_clean_bytes"] + rows["private_dirty_bytes"]).sum()
    hugetlb = rows["shared_hugetlb_bytes"] + rows["private_hugetlb_bytes"]
    assert np.array_equal(
        rows["rss_bytes"], rows["held_bytes"] - hugetlb + rows["reclaimable_bytes"]
    )
    assert host.held_bytes == rows["held_bytes"].sum()
    assert host.reclaimable_bytes == rows["reclaimable_bytes"].sum()
    totals = mappings.by_kind().values()
    for name in ("rss_bytes", "held_bytes", "vms_bytes", "pss_bytes"):
        assert sum(getattr(each, name) for each in totals) == rows[name].sum()
    assert sum(each.mappings_count for each in totals) == len(mappings)


# ---------------------------------------------------------------- the array and its surface


def test_rows_are_one_read_only_array_that_outlives_its_snapshot() -> None:
    rows = read().rows
    copy = rows.copy()
    list(itertools.islice((bytes(1000) for _ in itertools.count()), 1000))
    assert np.array_equal(rows, copy)
    with pytest.raises(ValueError, match="read-only"):
        rows["rss_bytes"][0] = 1
    assert (rows["start"][1:] >= rows["end"][:-1]).all()
    assert (rows["vms_bytes"] == rows["end"] - rows["start"]).all()


def test_a_snapshot_with_mappings_survives_pickle_and_json() -> None:
    snapshot = memacct.snapshot(host="mappings", devices=None)
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot  # noqa: S301 (our own)
    assert snapshot.mappings is not None
    assert pickle.loads(pickle.dumps(snapshot.mappings)) == snapshot.mappings  # noqa: S301
    data = json.loads(json.dumps(snapshot.to_dict(), ensure_ascii=True))
    assert data["mappings"]["columns"]["kind"][0] in _core.MAPPING_KINDS
    assert len(data["mappings"]["columns"]["start"]) == len(snapshot.mappings)


def test_top_is_sorted_and_bad_arguments_are_named() -> None:
    mappings = read()
    sizes = [mapping.pss_bytes or 0 for mapping in mappings.top(5, by="pss_bytes")]
    assert sizes == sorted((int(v) for v in mappings.rows["pss_bytes"]), reverse=True)[:5]
    assert len(mappings.top(10**6)) == len(mappings)
    with pytest.raises(ValueError, match="'rss'"):
        mappings.top(by="rss")
    with pytest.raises(ValueError, match="-1"):
        mappings.top(-1)
    with pytest.raises(IndexError):
        mappings[len(mappings)]


def test_pandas_has_a_row_a_mapping_and_text_for_kind_and_path() -> None:
    pandas = pytest.importorskip("pandas")
    mappings = read()
    frame = mappings.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(mappings)
    by_kind = frame.groupby("kind", observed=True)["rss_bytes"].sum()
    assert dict(by_kind) == {name: t.rss_bytes for name, t in mappings.by_kind().items()}
    heap = frame[frame["path"] == "[heap]"]
    assert set(heap["kind"]) == {"heap"}


# ---------------------------------------------------------------- deltas


def test_a_delta_says_what_grew_by_kind_and_by_file(folder: Path) -> None:
    path = file_of(folder, "model-00001-of-00002.safetensors", 8 * MIB)
    before = memacct.snapshot(host="mappings", devices=None)
    with read_all(map_file(path)) as block, touch(mmap.mmap(-1, 32 * MIB)) as pool:
        after = memacct.snapshot(host="mappings", devices=None)
        delta = after - before
        assert delta.mappings is not None
        kinds = {change.name: change for change in delta.mappings.kinds}
        files = {change.name: change for change in delta.mappings.files}
        assert kinds["shmem"].rss_bytes is not None
        assert kinds["shmem"].rss_bytes >= len(pool)
        assert delta.mappings.kinds[0].name == "shmem"
        checkpoint = files[str(path)]
        assert checkpoint.vms_bytes == checkpoint.rss_bytes == len(block)
        assert str(path)[-20:] in str(after.mappings)
    gone = memacct.snapshot(host="mappings", devices=None) - after
    assert gone.mappings is not None
    assert {c.name: c.rss_bytes for c in gone.mappings.files}[str(path)] == -8 * MIB
    whole = delta + gone
    assert whole.mappings is not None
    assert str(path) not in {change.name for change in whole.mappings.files}
    assert "32.00 MiB" in str(delta)


def test_a_delta_needs_mappings_on_both_sides() -> None:
    with_mappings = memacct.snapshot(host="mappings", devices=None)
    without = memacct.snapshot(devices=None)
    assert without.mappings is None
    assert (without - with_mappings).mappings is None
