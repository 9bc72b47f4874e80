"""What a process's end frees lies within the bounds, whatever its pages are and who maps them."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from memacct import _core

PAGE_KB = 4
# A page: its kind, and how many mappings it has in all, of which one is this process's.
PAGES = st.lists(
    st.tuples(st.sampled_from(["anon", "file", "shmem"]), st.sampled_from([1, 1, 2, 3, 7])),
    max_size=60,
)


def pss_kb(pages: list[tuple[str, int]], kinds: set[str]) -> int:
    return int(sum(Fraction(PAGE_KB, count) for kind, count in pages if kind in kinds))


def host_of(pages: list[tuple[str, int]], *, kinds_known: bool) -> _core.HostMemory:
    """The host part as the kernel would write it for these pages."""
    private = PAGE_KB * sum(count == 1 for _, count in pages)
    lines = {
        "Rss": PAGE_KB * len(pages),
        "Pss": pss_kb(pages, {"anon", "file", "shmem"}),
        "Shared_Clean": PAGE_KB * len(pages) - private,
        "Shared_Dirty": 0,
        "Private_Clean": 0,
        "Private_Dirty": private,
        "Anonymous": PAGE_KB * sum(kind == "anon" for kind, _ in pages),
    }
    if kinds_known:  # Linux 5.1
        lines["Pss_Anon"] = pss_kb(pages, {"anon"})
    text = "".join(f"{key}: {value} kB\n" for key, value in lines.items())
    rollup = _core.parse_smaps_rollup(text.encode())
    return _core.host_from_rollup(_core.parse_status(b"VmSize: 1 kB\nVmRSS: 1 kB\n"), rollup)


@given(PAGES, st.booleans())
def test_private_anonymous_pages_lie_within_the_bounds(
    pages: list[tuple[str, int]], kinds_known: bool
) -> None:
    host = host_of(pages, kinds_known=kinds_known)
    bounds = _core._freed_bounds(host)
    assert bounds is not None
    low, high = bounds
    assert low is not None
    assert high is not None
    freed = 1024 * PAGE_KB * pages.count(("anon", 1))
    private = 1024 * PAGE_KB * sum(count == 1 for _, count in pages)
    assert low <= freed <= private <= high
    if kinds_known and all(count == 1 for kind, count in pages if kind == "anon"):
        assert low == freed  # nothing anonymous is shared: no doubt is left


def test_without_the_rollup_nothing_is_known() -> None:
    host = _core.host_from_status(_core.parse_status(b"VmSize: 1 kB\nVmRSS: 1 kB\n"))
    assert _core._freed_bounds(host) is None
