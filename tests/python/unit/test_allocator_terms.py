"""The terms of PyTorch's counters, as its versions and backends have them."""

from __future__ import annotations

from typing import Any

import pytest

from memacct._units import GIB, MIB
from memacct.accounting.allocator import SleepingPools, account_terms, backing_terms


def counters(**current: int) -> dict[str, Any]:
    names = ("reserved_bytes", "allocated_bytes", "active_bytes", "inactive_split_bytes")
    sizes = ("all", "small_pool", "large_pool")
    return {
        name: {size: {"current": current.get(name, 0), "peak": 9 * GIB} for size in sizes}
        for name in (*names, "requested_bytes", "segment")
    }


STATS = counters(
    reserved_bytes=10 * MIB, allocated_bytes=3 * MIB, active_bytes=4 * MIB,
    inactive_split_bytes=3 * MIB, requested_bytes=MIB, segment=2,
)  # fmt: skip


def test_reserved_is_active_and_cached() -> None:
    terms = account_terms(STATS, "native", expandable=False)
    assert terms["cached_bytes"] == 6 * MIB
    assert terms["fragmentation_ratio"] == 0.5
    assert [pool.name for pool in terms["pools"]] == ["small", "large"]
    assert terms["private_pools"] is None  # this torch does not tell


def test_of_expandable_segments_the_split_is_not_counted() -> None:
    terms = account_terms(STATS, "native", expandable=True)
    assert terms["inactive_split_bytes"] is terms["fragmentation_ratio"] is None
    no_segment = {**STATS, "segment": counters()["segment"]}
    assert account_terms(no_segment, "native", expandable=False)["fragmentation_ratio"] is None


def test_other_backends_count_reserved_and_allocated_only() -> None:
    terms = account_terms(STATS, "cudaMallocAsync", expandable=False)
    assert terms["cached_bytes"] == 7 * MIB
    for name in ("active_bytes", "requested_bytes", "inactive_split_bytes", "pools"):
        assert terms[name] is None


def test_nothing_cached_has_no_ratio() -> None:
    terms = account_terms(counters(), "native", expandable=False)
    assert terms["inactive_split_bytes"] == 0
    assert terms["fragmentation_ratio"] is None


def private(**pools: int) -> dict[str, Any]:
    named = {tuple(map(int, name[1:].split("_"))): size for name, size in pools.items()}
    return {
        **counters(reserved_bytes=10 * GIB),
        "reserved_bytes_by_private_pools": {
            key: {"all": {"current": size}} for key, size in named.items()
        },
    }


@pytest.mark.parametrize(
    ("stats", "sleeping", "unmapped", "backed"),
    [
        (private(), None, 0, 10 * GIB),
        (private(_1_0=GIB), None, 0, 10 * GIB),  # a graph's: no allocator of its own
        (private(_0_1=4 * GIB), None, None, 6 * GIB),
        (private(_0_1=4 * GIB), SleepingPools(claimed_bytes=4 * GIB, unmapped_bytes=7), 7, 6 * GIB),
        (private(), SleepingPools(claimed_bytes=4 * GIB, unmapped_bytes=None), None, 6 * GIB),
        (counters(reserved_bytes=10 * GIB), None, None, 10 * GIB),  # an older torch
    ],
)  # fmt: skip
def test_what_is_certainly_backed(
    stats: dict[str, Any], sleeping: SleepingPools | None, unmapped: int | None, backed: int
) -> None:
    assert backing_terms(stats, sleeping) == {"unmapped_bytes": unmapped, "backed_bytes": backed}
