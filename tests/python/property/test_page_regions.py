"""Laws of the join between mappings and the runs of pages that lie in them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from memacct import _core

Range = tuple[int, int]


def ranges(*, apart: int) -> st.SearchStrategy[list[Range]]:
    """Ranges by address, at least so far apart; a length is never 0."""

    def lay(parts: list[tuple[int, int]]) -> list[Range]:
        at, result = 0, []
        for gap, size in parts:
            result.append((at + gap, at + gap + size))
            at += gap + size
        return result

    return st.lists(st.tuples(st.integers(apart, 5), st.integers(1, 6)), max_size=12).map(lay)


def pages(of: list[Range]) -> set[int]:
    return {page for start, end in of for page in range(start, end)}


@given(mappings=ranges(apart=0), regions=ranges(apart=0))
def test_each_mapping_has_the_pages_that_lie_in_it(
    mappings: list[Range], regions: list[Range]
) -> None:
    present = pages(regions)
    expected = [len(present & set(range(*mapping))) for mapping in mappings]
    assert _core.join_regions(mappings, [regions]) == expected


@given(mappings=ranges(apart=0), regions=ranges(apart=0), data=st.data())
def test_pieces_of_a_scan_join_as_the_whole(
    mappings: list[Range], regions: list[Range], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(regions)), max_size=4)))
    edges = [0, *cuts, len(regions)]
    pieces = [regions[a:b] for a, b in pairwise(edges)]
    assert _core.join_regions(mappings, pieces) == _core.join_regions(mappings, [regions])


@given(mappings=ranges(apart=0), regions=ranges(apart=1))
def test_nothing_is_lost_or_counted_twice(mappings: list[Range], regions: list[Range]) -> None:
    counted = sum(_core.join_regions(mappings, [regions]))
    assert counted == len(pages(regions) & pages(mappings))
