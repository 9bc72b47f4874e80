"""Checks of PyTorch's account in a snapshot; see torch_allocator_checks.py."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from torch_checks_common import (
    CONTEXT_BYTES,
    CUBLAS_BYTES,
    GIB,
    GRAPH_BYTES,
    MIB,
    account,
    reading,
    take,
)

import memacct
from memacct import _allocators, _core
from memacct.accounting.equation import non_torch_rows


def unused_torch_is_not_asked() -> None:
    assert memacct.snapshot().torch is None
    import torch

    assert memacct.snapshot().torch is None
    assert not torch.cuda.is_initialized()
    assert _core.driver_state() != "initialised"
    assert "memacct.integrations.torch" not in sys.modules


def account_is_joined() -> None:
    import torch

    block = take(64 * MIB)
    before = memacct.snapshot()
    (joined,) = before.torch or ()
    (device,) = before.devices or ()
    assert joined.uuid == device.uuid
    assert joined.backend == "native"
    assert joined.reserved_bytes == torch.cuda.memory_reserved() == 64 * MIB
    assert joined.allocated_bytes == joined.active_bytes == joined.backed_bytes == 64 * MIB
    assert joined.cached_bytes == joined.inactive_split_bytes == joined.unmapped_bytes == 0
    assert device.allocator_reserved_bytes == 64 * MIB
    assert device.own_bytes == CONTEXT_BYTES + 64 * MIB
    assert device.non_torch_bytes == CONTEXT_BYTES
    assert device.allocator_inconsistent is False
    more = take(30 * MIB - 100)
    del block
    delta = memacct.snapshot() - before
    (change,) = delta.torch or ()
    assert change.reserved_bytes == 30 * MIB
    assert change.allocated_bytes == -34 * MIB
    assert change.requested_bytes == -34 * MIB - 100
    assert change.cached_bytes == 64 * MIB
    (moved,) = delta.devices or ()
    assert (moved.own_bytes, moved.non_torch_bytes) == (30 * MIB, 0)
    assert "torch GPU-" in str(delta)
    del more


def split_blocks_are_in_the_ratio() -> None:
    small = take(100)
    blocks = [take(6 * MIB) for _ in range(3)]  # one segment of 20 MiB
    del blocks[1]
    found = account()
    assert found.reserved_bytes == 22 * MIB
    assert found.allocated_bytes == 12 * MIB + 512
    assert found.requested_bytes == 12 * MIB + 100
    assert found.inactive_split_bytes == found.cached_bytes == 10 * MIB - 512
    assert found.fragmentation_ratio == 1
    cached = take(40 * MIB)
    del cached
    assert account().fragmentation_ratio == (10 * MIB - 512) / (50 * MIB - 512)
    pools = {pool.name: pool for pool in account().pools or ()}
    assert (pools["small"].reserved_bytes, pools["large"].reserved_bytes) == (2 * MIB, 60 * MIB)
    assert pools["small"].requested_bytes == 100
    del small


def every_device_has_its_account() -> None:
    blocks = [take(64 * MIB, 0), take(32 * MIB, 1)]
    snapshot = memacct.snapshot()
    reserved = {a.uuid: a.reserved_bytes for a in snapshot.torch or ()}
    assert sorted(reserved.values()) == [32 * MIB, 64 * MIB]
    for device in snapshot.devices or ():
        assert device.allocator_reserved_bytes == reserved[device.uuid]
        assert device.non_torch_bytes == CONTEXT_BYTES
    (only,) = memacct.snapshot(devices=[1]).devices or ()
    assert only.allocator_reserved_bytes == 32 * MIB
    del blocks


def steps_tell_apart_what_is_not_torchs() -> None:
    import torch

    square = torch.ones(64, 64, dtype=torch.float16, device="cuda")
    readings = {"before": reading()}
    torch.mm(square, square)
    readings["cuBLAS"] = reading()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        square + 1
    readings["graph"] = reading()
    rows = {row.name: row.now_bytes for row in non_torch_rows(readings)}
    # Its workspace is torch's own.
    assert rows["cuBLAS"] == CUBLAS_BYTES
    assert account().reserved_bytes > square.nbytes + 2 * MIB
    assert rows["graph"] == GRAPH_BYTES
    assert sum(value or 0 for value in rows.values()) == readings["graph"].non_torch_bytes
    del graph


def the_drivers_pool_is_the_account() -> None:
    """backend:cudaMallocAsync: torch keeps no blocks, and reports the driver's pool."""
    import torch

    blocks = [take(64 * MIB), take(31 * MIB)]
    del blocks[0]
    torch.cuda.synchronize()
    device, joined = reading(), account()
    assert joined.backend == "cudaMallocAsync"
    assert joined.allocated_bytes == 31 * MIB
    assert joined.reserved_bytes == (64 + 32) * MIB  # whole pages
    assert joined.cached_bytes == 65 * MIB
    assert joined.active_bytes is joined.fragmentation_ratio is joined.pools is None
    assert device.own_bytes == CONTEXT_BYTES + joined.reserved_bytes
    assert device.non_torch_bytes == CONTEXT_BYTES
    found = memacct.fragmentation()
    assert (found.live_bytes, found.returnable_bytes) == (31 * MIB, None)
    assert found.returnable_bounds_bytes == (0, 65 * MIB)
    torch.cuda.empty_cache()
    assert account().reserved_bytes == 32 * MIB
    del blocks


PLUGGABLE = """
#include <stddef.h>
#include <sys/mman.h>
void* memacct_test_alloc(size_t size, int device, void* stream) {
  return mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}
void memacct_test_free(void* pointer, size_t size, int device, void* stream) {
  munmap(pointer, size);
}
"""


def a_pluggable_allocator_lies() -> None:
    """One that hands out addresses without memory, as pools that sleep are."""
    import torch

    claim_bytes = 185 * GIB  # of 140 GiB
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "liar.so")
        compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library]
        subprocess.run(compiler, input=PLUGGABLE, text=True, check=True)
        liar = torch.cuda.memory.CUDAPluggableAllocator(
            str(library), "memacct_test_alloc", "memacct_test_free"
        )
        pool = torch.cuda.MemPool(liar.allocator())
        honest = take(64 * MIB)
        with torch.cuda.use_mem_pool(pool):
            claimed = take(claim_bytes)
        device, joined = reading(), account()
        assert joined.reserved_bytes == claim_bytes + 64 * MIB
        assert joined.backed_bytes == 64 * MIB
        assert joined.unmapped_bytes is None
        assert device.allocator_inconsistent is True
        assert device.own_bytes == CONTEXT_BYTES + 64 * MIB
        assert device.attribution.own_bounds_bytes == (device.own_bytes, device.own_bytes)
        assert device.non_torch_bytes == CONTEXT_BYTES - claim_bytes
        sleeping_pools_are_told(claimed.data_ptr(), claim_bytes)
        del claimed, honest
        del pool


def sleeping_pools_are_told(address: int, size_bytes: int) -> None:
    """What vLLM's allocator would say of that piece."""
    cumem: Any = types.ModuleType("vllm.device_allocator.cumem")
    piece = types.SimpleNamespace(handle=(0, size_bytes, address, 0), is_asleep=True)
    cumem.CuMemAllocator = types.SimpleNamespace(
        instance=types.SimpleNamespace(pointer_to_data={address: piece})
    )
    sys.modules[cumem.__name__] = cumem
    try:
        assert account().unmapped_bytes == size_bytes
        assert reading().non_torch_bytes == CONTEXT_BYTES - size_bytes
        assert memacct.fragmentation().asleep_bytes == size_bytes
        piece.is_asleep = False
        assert account().unmapped_bytes == 0
    finally:
        del sys.modules[cumem.__name__]


def an_error_in_torch_is_noted_once() -> None:
    import torch

    class Lines(logging.Handler):
        said: list[str] = []  # noqa: RUF012 (one test)

        def emit(self, record: logging.LogRecord) -> None:
            self.said.append(record.getMessage())

    logging.getLogger("memacct").addHandler(Lines())
    read = torch.cuda.memory_stats_as_nested_dict
    torch.cuda.memory_stats_as_nested_dict = lambda _: 1 / 0
    try:
        for _ in range(3):
            snapshot = memacct.snapshot()
            assert snapshot.torch is None
            assert snapshot.devices
            assert snapshot.devices[0].non_torch_bytes is None
    finally:
        torch.cuda.memory_stats_as_nested_dict = read
    (said,) = Lines.said
    assert "ZeroDivisionError" in said
    assert _allocators.notes == [said]
    assert memacct.snapshot().torch
