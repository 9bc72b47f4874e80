"""Checks of fragmentation() against what empty_cache() gives; see torch_allocator_checks.py."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from torch_checks_common import CONTEXT_BYTES, MIB, account, reading, take

import memacct

if TYPE_CHECKING:
    from memacct import Fragmentation


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
    assert any("torch_fragmentation_checks.py" in place for place in pinning.where), pinning.where
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
