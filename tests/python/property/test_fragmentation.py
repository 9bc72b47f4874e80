"""Laws of fragmentation: the sums, the shares, and a page-by-page count of expandable segments."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from memacct._units import MIB
from memacct.accounting.fragmentation import examine

STATES = st.sampled_from(["active_allocated", "inactive", "active_awaiting_free"])
UNIT = 512
PAGE = 2 * MIB


@st.composite
def segments(draw: st.DrawFn) -> dict[str, Any]:
    """A segment of whole pages, in blocks of whole units."""
    total = draw(st.integers(1, 4)) * PAGE
    cuts = draw(st.lists(st.integers(1, total // UNIT - 1), unique=True, max_size=12))
    edges = [0, *(cut * UNIT for cut in sorted(cuts)), total]
    address = draw(st.integers(0, 1000)) * 4 * PAGE
    return {
        "address": address,
        "total_size": total,
        "stream": draw(st.sampled_from([0, 7])),
        "segment_type": "small",
        "segment_pool_id": draw(st.sampled_from([(0, 0), (1, 0), (0, 3)])),
        "is_expandable": draw(st.booleans()),
        "blocks": [
            {"state": draw(STATES), "size": right - left, "requested_size": right - left}
            for left, right in itertools.pairwise(edges)
        ],
    }


LISTS = st.lists(segments(), max_size=6)
TERMS = ("live_bytes", "returnable_bytes", "pinned_bytes", "private_bytes")


def pages_without_live_blocks(segment: dict[str, Any]) -> int:
    touched = set()
    offset = 0
    for block in segment["blocks"]:
        if block["state"] == "active_allocated":
            touched |= set(range(offset // PAGE, -(-(offset + block["size"]) // PAGE)))
        offset += block["size"]
    return segment["total_size"] // PAGE - len(touched)


@given(LISTS)
def test_the_terms_add_up(given_segments: list[dict[str, Any]]) -> None:
    found = examine(given_segments, uuid="GPU-a")
    for part in (found, *found.groups, *found.segments):
        assert sum(getattr(part, term) for term in TERMS) == part.reserved_bytes
        assert min(getattr(part, term) for term in TERMS) >= 0
    for term in (*TERMS, "reserved_bytes", "waiting_bytes"):
        assert getattr(found, term) == sum(getattr(use, term) for use in found.segments)
        assert getattr(found, term) == sum(getattr(group, term) for group in found.groups)


@given(LISTS)
def test_shares_add_up_to_what_is_pinned(given_segments: list[dict[str, Any]]) -> None:
    found = examine(given_segments, uuid="GPU-a", blocks_count=1000)
    assert sum(block.pins_bytes for block in found.pinning_blocks) == found.pinned_bytes
    ranked = [block.pins_bytes for block in found.pinning_blocks]
    assert ranked == sorted(ranked, reverse=True)


@given(segments())
def test_what_can_go_is_what_no_live_block_touches(segment: dict[str, Any]) -> None:
    found = examine([segment], uuid="GPU-a")
    loose = found.segments[0].returnable_bytes + found.segments[0].private_bytes
    if segment["is_expandable"]:
        assert loose == pages_without_live_blocks(segment) * PAGE
    else:
        live = any(block["state"] == "active_allocated" for block in segment["blocks"])
        assert loose == (0 if live else segment["total_size"])


@given(segments())
def test_the_end_of_a_lonely_pinning_block_gives_all_back(segment: dict[str, Any]) -> None:
    found = examine([segment], uuid="GPU-a")
    if [block.beside_count for block in found.pinning_blocks] != [0]:
        return
    freed = segment | {"blocks": [b | {"state": "inactive"} for b in segment["blocks"]]}
    after = examine([freed], uuid="GPU-a")
    assert after.pinned_bytes == 0
    assert (after.returnable_bytes or 0) + (after.private_bytes or 0) == found.reserved_bytes
