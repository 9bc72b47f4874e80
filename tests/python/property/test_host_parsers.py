"""Laws of the parsers: they undo the kernel's formatting, and no text makes them crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memacct import SourceFormatError, _core

if TYPE_CHECKING:
    from collections.abc import Callable

PARSERS: dict[str, Callable[[bytes], object]] = {
    "statm": lambda text: _core.parse_statm(text, 4096),
    "status": _core.parse_status,
    "smaps_rollup": _core.parse_smaps_rollup,
    "meminfo": _core.parse_meminfo,
    "cgroup": lambda text: _core.parse_cgroup_number(text, "file"),
    "cgroup_events": lambda text: _core.parse_cgroup_events(text, "file"),
    "node_meminfo": lambda text: _core.parse_node_meminfo(text, 0, "file"),
    "pressure": lambda text: _core.parse_pressure(text, "file"),
    "number_list": lambda text: _core.parse_number_list(text, "file"),
    "hugepages_name": lambda text: _core.parse_hugepages_name(text, "file"),
}
# What the texts are made of: pieces of them come closer to right than arbitrary bytes.
PIECES = [
    *("some ", "full ", "avg10=", "avg60=", "avg300=", "total=", "0.00", "100.01", "1", " ", "\n"),
    *("Node 0 ", "Node 1 ", "MemTotal:", "MemFree:", "AnonPages:", " kB", "18446744073709551616"),
    *("oom_kill ", "max ", "-", ",", "hugepages-", "kB", "65536", "\0"),
]
STATUS_KEYS = {
    "vms_bytes": "VmSize",
    "rss_bytes": "VmRSS",
    "rss_anon_bytes": "RssAnon",
    "rss_file_bytes": "RssFile",
    "rss_shmem_bytes": "RssShmem",
    "swap_bytes": "VmSwap",
    "hugetlb_bytes": "HugetlbPages",
    "locked_bytes": "VmLck",
    "pinned_bytes": "VmPin",
    "peak_rss_bytes": "VmHWM",
    "peak_vms_bytes": "VmPeak",
    "page_tables_bytes": "VmPTE",
}
KIB_SIZES = st.integers(min_value=0, max_value=2**54 - 1)
OTHER_LINES = st.sampled_from(
    ["Name:\tVmRSS: 9 kB\n", "Threads:\t12\n", "VmRSSX: 1 kB\n", "Groups:\t \n", "no colon\n"]
)


@pytest.mark.parametrize("parser", PARSERS)
@given(text=st.binary(max_size=300))
def test_arbitrary_bytes_raise_a_format_error_only(parser: str, text: bytes) -> None:
    try:
        PARSERS[parser](text)
    except SourceFormatError as error:
        assert error.args == (error.source, error.reason, error.line)  # noqa: PT017 (or nothing is raised)


@given(
    text=st.lists(
        st.sampled_from(["VmSize:", "VmRSS:", "VmSwap:", " ", "\t", "1", "18446744073709551616"])
        | st.sampled_from([" kB", "\n", "\r\n", "kB", "-", ":", "\0", "RssAnon"])
    ).map("".join)
)
def test_texts_nearly_right_raise_a_format_error_only(text: str) -> None:
    try:
        _core.parse_status(text.encode())
    except SourceFormatError as error:
        assert error.source == "/proc/self/status"  # noqa: PT017 (or nothing is raised)


@pytest.mark.parametrize("parser", PARSERS)
@given(text=st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
def test_pieces_of_texts_raise_a_format_error_only(parser: str, text: str) -> None:
    try:
        PARSERS[parser](text.encode())
    except SourceFormatError as error:
        assert error.args == (error.source, error.reason, error.line)  # noqa: PT017 (or nothing is raised)


PERCENT = st.integers(min_value=0, max_value=10000)
MICROSECONDS = st.integers(min_value=0, max_value=2**54)


@given(
    lines=st.lists(st.tuples(PERCENT, PERCENT, PERCENT, MICROSECONDS), min_size=1, max_size=2),
)
def test_pressure_parse_undoes_format(lines: list[tuple[int, int, int, int]]) -> None:
    text = "".join(
        f"{kind} avg10={a // 100}.{a % 100:02} avg60={b // 100}.{b % 100:02}"
        f" avg300={c // 100}.{c % 100:02} total={total}\n"
        for kind, (a, b, c, total) in zip(("some", "full"), lines, strict=False)
    )
    pressure = _core.parse_pressure(text.encode(), "file")
    expected: list[float | None] = []
    for a, b, c, total in lines:
        expected += [a / 10000, b / 10000, c / 10000, total * 1000]
    expected += [None] * (8 - len(expected))
    assert list(pressure.to_dict().values()) == expected


@given(numbers=st.sets(st.integers(min_value=0, max_value=300)))
def test_number_list_parse_undoes_format(numbers: set[int]) -> None:
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    text = ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges) + "\n"
    assert _core.parse_number_list(text.encode(), "file") == sorted(numbers)


@given(
    data=st.data(), sizes=st.fixed_dictionaries({}, optional=dict.fromkeys(STATUS_KEYS, KIB_SIZES))
)
def test_status_parse_undoes_format(data: st.DataObject, sizes: dict[str, int]) -> None:
    sizes = {"vms_bytes": 1, "rss_bytes": 2, **sizes}
    lines = [f"{STATUS_KEYS[name]}:\t{size:8} kB\n" for name, size in sizes.items()]
    lines += data.draw(st.lists(OTHER_LINES))
    text = "".join(data.draw(st.permutations(lines)))
    status = _core.parse_status(text.encode())
    expected = {name: None if name not in sizes else sizes[name] * 1024 for name in STATUS_KEYS}
    expected["thread_count"] = 12 if "Threads:\t12\n" in lines else None
    assert status.to_dict() == expected


@given(
    pages=st.lists(st.integers(min_value=0, max_value=2**40), min_size=7, max_size=7),
    page_bytes=st.sampled_from([4096, 16384, 65536]),
)
def test_statm_parse_undoes_format(pages: list[int], page_bytes: int) -> None:
    pages[0] += 1
    statm = _core.parse_statm((" ".join(map(str, pages)) + "\n").encode(), page_bytes)
    values = (statm.vms_bytes, statm.rss_bytes, statm.shared_bytes)
    assert values == tuple(count * page_bytes for count in pages[:3])


@given(value=st.integers(min_value=0, max_value=2**62))
def test_cgroup_number_parse_undoes_format(value: int) -> None:
    assert _core.parse_cgroup_number(f"{value}\n".encode(), "file") == value


@given(text=st.binary(max_size=80))
def test_a_parse_that_succeeds_read_the_whole_line(text: bytes) -> None:
    try:
        value = _core.parse_cgroup_number(text, "file")
    except SourceFormatError:
        return
    assert text == b"max\n" or int(text.removesuffix(b"\n")) == value or value is None
    assert text.endswith(b"\n")


@given(
    anon=KIB_SIZES.filter(lambda v: v < 2**40),
    file=KIB_SIZES.filter(lambda v: v < 2**40),
    shmem=st.integers(0, 2**40),
    dirty=st.integers(0, 2**41),
    anonymous=st.integers(0, 2**41),
)
def test_held_and_reclaimable_split_rss_whatever_the_rollup_says(
    anon: int, file: int, shmem: int, dirty: int, anonymous: int
) -> None:
    status = _core.parse_status(
        f"VmSize: 1 kB\nVmRSS: {anon + file + shmem} kB\nRssAnon: {anon} kB\n"
        f"RssFile: {file} kB\nRssShmem: {shmem} kB\nHugetlbPages: 6 kB\n".encode()
    )
    rollup = _core.parse_smaps_rollup(
        f"Rss: {dirty} kB\nPss: {dirty} kB\nShared_Clean: 0 kB\nShared_Dirty: 0 kB\n"
        f"Private_Clean: 0 kB\nPrivate_Dirty: {dirty} kB\nAnonymous: {anonymous} kB\n".encode()
    )
    for host in (_core.host_from_status(status), _core.host_from_rollup(status, rollup)):
        assert host.held_bytes is not None
        assert host.reclaimable_bytes is not None
        assert host.reclaimable_bytes >= 0
        assert host.held_bytes >= (anon + shmem + 6) * 1024
        assert host.rss_bytes == host.held_bytes - 6 * 1024 + host.reclaimable_bytes
