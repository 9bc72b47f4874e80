"""Checks of PyTorch's account and of fragmentation(), in a Python with the CUDA build of torch.

``python torch_allocator_checks.py NAME...`` runs them one after the other and prints one JSON
object: by name "ok", or the error's text. test_torch_allocator.py runs each list on a machine
of two devices of 140 GiB with contexts of 400 MiB; a cuBLAS handle takes 8 MiB, a graph 16 MiB.
"""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memacct
from memacct import _allocators, _core
from memacct.accounting.equation import non_torch_rows

if TYPE_CHECKING:
    from memacct import Fragmentation

MIB = 1 << 20
GIB = 1 << 30
CONTEXT_BYTES = 400 * MIB
CUBLAS_BYTES = 8 * MIB
GRAPH_BYTES = 16 * MIB


def take(size_bytes: int, device: int = 0) -> Any:
    import torch

    return torch.empty(size_bytes, dtype=torch.uint8, device=f"cuda:{device}")


def account(device: int = 0) -> _core.AllocatorMemory:
    (found,) = [a for a in memacct.snapshot().torch or () if a.cuda_ordinal == device]
    return found


def reading(device: int = 0) -> _core.DeviceMemory:
    (found,) = [d for d in memacct.snapshot().devices or () if d.cuda_ordinal == device]
    return found


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


def emptied(owned_by: object = None) -> Fragmentation:
    """Checks a report against what empty_cache() gives back, to the byte."""
    import torch

    found = memacct.fragmentation()
    terms = (found.live_bytes, found.returnable_bytes, found.pinned_bytes, found.private_bytes)
    assert sum(term or 0 for term in terms) == found.reserved_bytes == torch.cuda.memory_reserved()
    assert found.live_bytes == torch.cuda.memory_allocated()
    free_bytes = torch.cuda.mem_get_info()[0]
    torch.cuda.empty_cache()
    returned_bytes = found.reserved_bytes - torch.cuda.memory_reserved()
    assert found.returnable_bytes == returned_bytes, (str(found), returned_bytes)
    assert torch.cuda.mem_get_info()[0] - free_bytes == returned_bytes
    del owned_by  # what must live until here
    return found


def mixed() -> list[Any]:
    """Live blocks among free ones: small and large, of two streams."""
    import torch

    sizes = [100, 300 << 10, 900 << 10, 2 * MIB, 5 * MIB, 9 * MIB, 33 * MIB, 70 * MIB, 5 * MIB]
    kept = [take(size + number) for number, size in enumerate(sizes * 3)]
    with torch.cuda.stream(torch.cuda.Stream()):
        kept += [take(size) for size in sizes]
    return [block for number, block in enumerate(kept) if number % 5 in (0, 3)]


def what_could_be_given_back() -> None:
    kept = mixed()
    found = emptied()
    assert found.returnable_bytes
    assert found.pinned_bytes
    assert {group.size_class for group in found.groups} == {"small", "large"}
    assert len({group.stream for group in found.groups}) == 2
    again = emptied()
    assert again.returnable_bytes == 0
    # Of the rest, one block is in the way of each of these: its end gives back all of it.
    lonely = next(block for block in again.pinning_blocks if block.beside_count == 0)
    kept = [block for block in kept if block.data_ptr() != lonely.address]
    expected = lonely.pins_bytes + lonely.size_bytes
    assert emptied().returnable_bytes == expected


def the_largest_request_needs_nothing_more() -> None:
    import torch

    blocks = [take(size * MIB) for size in (3, 12, 5, 40, 22)]
    del blocks[1], blocks[2]
    largest = memacct.fragmentation().largest_request_bytes
    assert largest == 40 * MIB
    reserved_bytes = torch.cuda.memory_reserved()
    block = take(largest)
    assert torch.cuda.memory_reserved() == reserved_bytes
    del block
    block = take(largest + 1)
    assert torch.cuda.memory_reserved() > reserved_bytes
    del block, blocks


def private_pools_keep_their_cache() -> None:
    import torch

    graph, gone, pool = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph(), torch.cuda.MemPool()
    kept = []
    for captured in (graph, gone):
        with torch.cuda.graph(captured):
            temporary = take(33 * MIB)
            kept.append(take(3 * MIB))
            del temporary
    del captured
    with torch.cuda.use_mem_pool(pool):
        temporary = take(44 * MIB)
        kept.append(take(12 * MIB))
        del temporary
    found = emptied([graph, gone, pool])
    assert found.private_bytes == (34 + 34 + 44) * MIB  # segments of 2 MiB steps
    assert found.returnable_bounds_bytes == (found.returnable_bytes, found.returnable_bytes)
    names = {pool.name for pool in account().private_pools or ()}
    assert names == {group.pool for group in found.groups if group.pool}
    del gone
    gc.collect()
    found = memacct.fragmentation()
    low, high = found.returnable_bounds_bytes
    assert (low, high - low) == (found.returnable_bytes, 34 * MIB)
    torch.cuda.empty_cache()
    assert found.reserved_bytes - torch.cuda.memory_reserved() == high
    del kept


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


def a_block_that_a_stream_still_uses() -> None:
    import torch

    torch.cuda.empty_cache()
    block, stream = take(30 * MIB), torch.cuda.Stream()
    block.record_stream(stream)
    del block
    found = emptied()
    # The simulated stream is done at once; a real one would have it waiting.
    assert found.waiting_bytes in (0, 30 * MIB)
    assert found.returnable_bytes == 30 * MIB


def frames_are_in_the_table() -> None:
    import torch

    torch.cuda.memory._record_memory_history(context="alloc")
    block = take(2 * MIB)
    found = memacct.fragmentation()
    torch.cuda.memory._record_memory_history(enabled=None)
    (pinning,) = [b for b in found.pinning_blocks if b.address == block.data_ptr()]
    assert any("torch_allocator_checks.py" in place for place in pinning.where), pinning.where
    assert pinning.where[0] in str(found)


def each_device_has_its_report() -> None:
    import torch

    blocks = [take(64 * MIB, 0), take(32 * MIB, 1)]
    found = memacct.fragmentation(1)
    assert (found.reserved_bytes, found.uuid) == (32 * MIB, account(1).uuid)
    assert memacct.fragmentation(account(0).uuid).reserved_bytes == 64 * MIB
    try:
        memacct.fragmentation(7)
    except ValueError as error:
        assert str(error) == "7 is none of this process's 2 CUDA devices"  # noqa: PT017
    else:
        raise AssertionError("no error")
    assert torch.cuda.current_device() == 0
    del blocks


def expandable_segments_are_pages() -> None:
    kept = mixed()
    joined = account()
    assert joined.inactive_split_bytes is joined.fragmentation_ratio is None
    assert joined.segments_count == 0
    found = emptied()
    assert found.returnable_bytes
    assert found.pinned_bytes
    assert all(use.expandable for use in found.segments)
    assert reading().non_torch_bytes == CONTEXT_BYTES
    del kept
    assert emptied().live_bytes == 0


def graphs_keep_their_pages() -> None:
    import torch

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        temporary = take(33 * MIB)
        kept = take(3 * MIB)
        del temporary
    found = emptied(graph)
    # Two pages of 20 MiB: what was kept is at 33 to 36, since the first was free behind it.
    assert (found.private_bytes, found.pinned_bytes) == (20 * MIB, 17 * MIB)
    del graph, kept
    gc.collect()
    low, high = memacct.fragmentation().returnable_bounds_bytes
    assert (low, high) == (0, 40 * MIB)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() == 0


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


def main() -> None:
    results = {}
    for name in sys.argv[1:]:
        try:
            globals()[name]()
            results[name] = "ok"
        except Exception:  # noqa: BLE001 (whatever it is, the test shall see it)
            results[name] = traceback.format_exc()
        if torch := sys.modules.get("torch"):
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
