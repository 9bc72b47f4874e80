"""What could be given back of an allocator's segments: real ones, and made ones with known answers.

tests/data/torch holds what ``torch.cuda.memory_snapshot()`` said before ``empty_cache()``, and
what that gave back. In "pools" one of two graphs, and no MemPool, was gone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import memacct
from memacct._units import GIB, KIB, MIB
from memacct.accounting.fragmentation import examine, without_segments

DATA = Path(__file__).parents[2] / "data" / "torch"


def segment(
    *blocks: tuple[str, int],
    kind: str = "large",
    expandable: bool = False,
    pool: tuple[int, int] = (0, 0),
    address: int = 16 * GIB,
    stream: int = 0,
) -> dict[str, Any]:
    return {
        "device": 0,
        "address": address,
        "total_size": sum(size for _, size in blocks),
        "stream": stream,
        "segment_type": kind,
        "segment_pool_id": pool,
        "is_expandable": expandable,
        "blocks": [{"state": s, "size": n, "requested_size": n} for s, n in blocks],
    }


LIVE, FREE, WAITING = "active_allocated", "inactive", "active_awaiting_free"


@pytest.mark.parametrize("name", ["native", "expandable", "pools"])
def test_what_empty_cache_gave_back(name: str) -> None:
    recorded = json.loads((DATA / f"2.14-{name}.json").read_text())
    found = examine(recorded["segments"], uuid="GPU-a", owned_pools=recorded["owned_pools"])
    low, high = found.returnable_bounds_bytes
    assert high == recorded["returned_bytes"]
    assert low == found.returnable_bytes
    assert (low == high) == (name != "pools")
    if name != "expandable":  # which the allocator's own counter leaves out
        assert found.pinned_bytes == recorded["inactive_split_bytes"]


def test_a_live_block_pins_the_rest_of_its_segment() -> None:
    found = examine(
        [segment((LIVE, 2 * MIB), (FREE, 18 * MIB)), segment((FREE, 40 * MIB))], uuid="GPU-a"
    )
    assert (found.reserved_bytes, found.live_bytes) == (60 * MIB, 2 * MIB)
    assert (found.returnable_bytes, found.pinned_bytes) == (40 * MIB, 18 * MIB)
    assert found.fragmentation_ratio == 18 / 58
    assert [use.reason for use in found.segments] == ["live blocks", ""]
    (block,) = found.pinning_blocks
    assert (block.size_bytes, block.pins_bytes, block.beside_count) == (2 * MIB, 18 * MIB, 0)


def test_pinned_bytes_are_shared_by_the_blocks_that_pin_them() -> None:
    found = examine([segment((LIVE, MIB), (FREE, 3 * MIB + 1), (LIVE, MIB))], uuid="GPU-a")
    assert sorted(block.pins_bytes for block in found.pinning_blocks) == [
        3 * MIB // 2,
        3 * MIB // 2 + 1,
    ]
    assert {block.beside_count for block in found.pinning_blocks} == {1}


def test_whole_pages_of_an_expandable_segment_are_returnable() -> None:
    blocks = (LIVE, 5 * MIB), (FREE, 40 * MIB), (LIVE, 15 * MIB), (FREE, 20 * MIB)
    found = examine([segment(*blocks, expandable=True)], uuid="GPU-a")
    # Pages of 20 MiB: the free run of 5..45 has 20..40, and the last is free altogether.
    assert found.returnable_bytes == 40 * MIB
    assert found.pinned_bytes == 20 * MIB
    assert [use.reason for use in found.segments] == ["shared pages"]
    assert [(b.size_bytes, b.pins_bytes) for b in found.pinning_blocks] == [
        (5 * MIB, 15 * MIB),
        (15 * MIB, 5 * MIB),
    ]


def test_small_pages_of_an_expandable_segment() -> None:
    blocks = (FREE, 2 * MIB), (LIVE, 512), (FREE, 4 * MIB - 512)
    found = examine([segment(*blocks, kind="small", expandable=True)], uuid="GPU-a")
    assert found.returnable_bytes == 4 * MIB
    assert found.pinned_bytes == 2 * MIB - 512


def test_a_private_pool_keeps_what_is_free_in_it() -> None:
    segments = [
        segment((FREE, 30 * MIB), pool=(1, 0)),
        segment((LIVE, MIB), (FREE, 19 * MIB), pool=(1, 0)),
        segment((FREE, 50 * MIB), pool=(0, 2)),
    ]
    found = examine(segments, uuid="GPU-a", owned_pools=["1_0"])
    assert found.private_bytes == 80 * MIB
    assert found.pinned_bytes == 19 * MIB
    # Of pool 0_2 no owner was found: it may be gone.
    assert found.returnable_bounds_bytes == (0, 50 * MIB)
    assert [use.reason for use in found.segments] == ["private pool", "live blocks", "private pool"]
    assert found.largest_request_bytes == 0  # of the default pool
    assert {g.pool: g.largest_request_bytes for g in found.groups} == {
        "1_0": 30 * MIB,
        "0_2": 50 * MIB,
    }


def test_what_a_stream_still_uses_can_go_but_serves_no_request() -> None:
    found = examine([segment((WAITING, 30 * MIB)), segment((FREE, 22 * MIB))], uuid="GPU-a")
    assert found.live_bytes == 0
    assert found.returnable_bytes == 52 * MIB  # empty_cache() waits for the stream
    assert found.waiting_bytes == 30 * MIB
    assert found.largest_request_bytes == 22 * MIB
    assert "still in use by a stream" in str(found)


@pytest.mark.parametrize(
    ("kind", "free_bytes", "largest"),
    [
        ("small", 600 * KIB, 600 * KIB),
        ("small", 2 * MIB, MIB),  # larger ones are served by large segments
        ("large", 3 * MIB, 3 * MIB),
        ("large", MIB, 0),  # smaller ones by small segments
    ],
)
def test_the_largest_request(kind: str, free_bytes: int, largest: int) -> None:
    found = examine([segment((LIVE, 512), (FREE, free_bytes), kind=kind)], uuid="GPU-a")
    assert found.largest_request_bytes == largest


def test_groups_are_pool_stream_and_size_class() -> None:
    segments = [
        segment((FREE, 2 * MIB), kind="small"),
        segment((FREE, 20 * MIB)),
        segment((FREE, 30 * MIB), stream=7),
        segment((LIVE, 20 * MIB), stream=7),
    ]
    groups = examine(segments, uuid="GPU-a").groups
    assert [(g.stream, g.size_class, g.segments_count, g.reserved_bytes) for g in groups] == [
        (7, "large", 2, 50 * MIB),
        (0, "large", 1, 20 * MIB),
        (0, "small", 1, 2 * MIB),
    ]


def test_a_sleeping_segment_has_no_memory_to_give() -> None:
    segments = [segment((LIVE, 60 * MIB), (FREE, 4 * MIB), pool=(0, 1), address=4096)]
    found = examine(segments, uuid="GPU-a", asleep={4096})
    assert found.asleep_bytes == 64 * MIB
    assert found.groups[0].largest_request_bytes == 0
    assert "no memory is behind them" in str(found)


def test_frames_tell_where_a_block_comes_from() -> None:
    piece = segment((LIVE, 512), (FREE, 2 * MIB - 512), kind="small")
    piece["blocks"][0]["frames"] = [{"filename": "model.py", "line": 7, "name": "forward"}]
    found = examine([piece], uuid="GPU-a")
    assert found.pinning_blocks[0].where == ("model.py:7 forward",)
    assert "model.py:7 forward" in str(found)


def test_nothing_reserved() -> None:
    found = examine([], uuid="GPU-a")
    assert found.reserved_bytes == found.returnable_bytes == found.largest_request_bytes == 0
    assert found.fragmentation_ratio is None


def test_a_backend_without_blocks_leaves_the_parts_unknown() -> None:
    found = without_segments(
        uuid="GPU-a", backend="cudaMallocAsync", reserved_bytes=GIB, live_bytes=GIB // 4
    )
    assert found.returnable_bytes is None
    assert found.returnable_bounds_bytes == (0, GIB * 3 // 4)
    assert "keeps no blocks" in str(found)


def test_the_report_is_plain_data_and_text() -> None:
    found = examine([segment((LIVE, 2 * MIB), (FREE, 18 * MIB))], uuid="GPU-a")
    data = json.loads(json.dumps(found.to_dict()))
    assert data["segments"][0]["pinned_bytes"] == 18 * MIB
    assert data["returnable_bounds_bytes"] == [0, 0]
    lines = str(found).splitlines()
    assert lines[0] == "GPU-a, PyTorch's allocator (native)"
    assert "  pinned      18.00 MiB  free, in segments or pages of live blocks" in lines


def test_without_torch_there_is_nothing_to_ask() -> None:
    assert "torch" not in sys.modules
    with pytest.raises(memacct.SourceUnavailableError, match="has not imported it"):
        memacct.fragmentation()
