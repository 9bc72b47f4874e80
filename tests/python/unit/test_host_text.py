"""The parsers of /proc text: captured files, and each way in which a line can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from memacct import SourceFormatError, _core

DATA = Path(__file__).parents[2] / "data" / "proc"
KIB = 1024
STATUS = "VmSize:\t    3060 kB\nVmRSS:\t    1692 kB\n"


def read(case: str, name: str) -> bytes:
    return (DATA / case / name).read_bytes()


def test_statm_of_6_18() -> None:
    statm = _core.parse_statm(read("6.18-python", "statm"), 4096)
    assert statm.vms_bytes == 3201 * 4096
    assert statm.rss_bytes == 2453 * 4096
    assert statm.shared_bytes == 1485 * 4096


def test_status_of_6_18() -> None:
    status = _core.parse_status(read("6.18-python", "status"))
    assert status.to_dict() == {
        "vms_bytes": 12804 * KIB,
        "rss_bytes": 9812 * KIB,
        "rss_anon_bytes": 3872 * KIB,
        "rss_file_bytes": 5940 * KIB,
        "rss_shmem_bytes": 0,
        "swap_bytes": 0,
        "hugetlb_bytes": 0,
        "locked_bytes": 0,
        "pinned_bytes": 0,
        "peak_rss_bytes": 9812 * KIB,
        "peak_vms_bytes": 12804 * KIB,
        "page_tables_bytes": 64 * KIB,
        "thread_count": 1,
    }


def test_status_of_4_4_leaves_unknown_what_the_kernel_does_not_write() -> None:
    status = _core.parse_status(read("4.4-no-rss-kinds", "status"))
    assert status.rss_bytes == 9812 * KIB
    assert status.rss_anon_bytes is None
    assert status.hugetlb_bytes is None
    host = _core.host_from_status(status)
    assert host.held_bytes is None
    assert host.reclaimable_bytes is None
    assert host.shared_bytes is None


def test_rollup_of_6_18() -> None:
    rollup = _core.parse_smaps_rollup(read("6.18-python", "smaps_rollup"))
    assert rollup.rss_bytes == 9812 * KIB
    assert rollup.pss_bytes == 4504 * KIB
    assert rollup.shared_clean_bytes == 5940 * KIB
    assert rollup.private_dirty_bytes == 3872 * KIB
    assert rollup.private_hugetlb_bytes == 0
    assert rollup.anonymous_bytes == 3872 * KIB
    assert rollup.swap_pss_bytes == 0


def test_meminfo_of_6_18() -> None:
    system = _core.parse_meminfo(read("6.18-python", "meminfo"))
    assert system.total_bytes == 24684092 * KIB
    assert system.free_bytes == 18202012 * KIB
    assert system.available_bytes == 22083128 * KIB


def test_swap_of_zero_is_not_swap_unknown() -> None:
    assert _core.parse_status(STATUS.encode()).swap_bytes is None
    assert _core.parse_status((STATUS + "VmSwap:\t0 kB\n").encode()).swap_bytes == 0


def test_a_process_named_like_a_field_does_not_pass_for_it() -> None:
    status = _core.parse_status(("Name:\tVmSwap: 7 kB\n" + STATUS).encode())
    assert status.swap_bytes is None


@pytest.mark.parametrize(
    "line",
    [
        "VmSwap:\t7 MB\n",
        "VmSwap:\t7kB\n",
        "VmSwap:\tkB\n",
        "VmSwap:\t kB\n",
        "VmSwap:\n",
        "VmSwap: -7 kB\n",
        "VmSwap: +7 kB\n",
        "VmSwap: 0x7 kB\n",
        "VmSwap: 7 8 kB\n",
        "VmSwap: 7 kB \n",
        "VmSwap:\t7 kB\r\n",
        "VmSwap: 18014398509481984 kB\n",  # 2**64 bytes
        "VmSwap: 99999999999999999999999999 kB\n",
    ],
)
def test_status_line_that_is_not_understood_is_reported(line: str) -> None:
    with pytest.raises(SourceFormatError, match="not a size in kB") as caught:
        _core.parse_status((STATUS + line).encode())
    assert caught.value.source == "/proc/self/status"
    assert caught.value.line == line.removesuffix("\n")


@pytest.mark.parametrize("text", [b"", b"VmRSS:\t1 kB\n", b"VmSize:\t1 kB\n", b"\n\n\n"])
def test_status_without_its_totals_is_not_a_status(text: bytes) -> None:
    with pytest.raises(SourceFormatError, match="a line is missing"):
        _core.parse_status(text)


def test_status_cut_off_in_a_line_is_reported() -> None:
    with pytest.raises(SourceFormatError, match="cut off") as caught:
        _core.parse_status((STATUS + "VmSwap:\t12").encode())
    assert caught.value.line == "VmSwap:\t12"


def test_status_line_twice_is_reported() -> None:
    with pytest.raises(SourceFormatError, match="second line"):
        _core.parse_status((STATUS + "VmRSS:\t1 kB\n").encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 2 3 4 5 6 7",
        "1 2 3 4 5 6\n",
        "1 2 3 4 5 6 7 8\n",
        "1 2 3 4 5 6 7\n\n",
        "1 2 3 4 5 6 7\r\n",
        "1  2 3 4 5 6 7\n",
        "-1 2 3 4 5 6 7\n",
        "1 2 3 4 5 6 99999999999999999999\n",
        "4503599627370496 2 3 4 5 6 7\n",  # 2**52 pages: 2**64 bytes
        "0 0 0 0 0 0 0\n",  # its main thread has ended: nothing is known, and nothing is not 0
    ],
)
def test_statm_that_is_not_understood_is_reported(text: str) -> None:
    with pytest.raises(SourceFormatError) as caught:
        _core.parse_statm(text.encode(), 4096)
    assert caught.value.source == "/proc/self/statm"


def test_a_line_of_binary_rubbish_still_makes_an_error() -> None:
    with pytest.raises(SourceFormatError) as caught:
        _core.parse_statm(b"\xff\x00\n", 4096)
    assert caught.value.line == "\\xff\x00"


@pytest.mark.parametrize("text", ["1 2 3", bytearray(b"1"), None])
def test_parsers_take_bytes_only(text: object) -> None:
    with pytest.raises(TypeError):
        _core.parse_statm(text, 4096)  # type: ignore[arg-type]


def make_rollup(*, dirty: int, anonymous: int, clean: int = 0) -> _core.SmapsRollup:
    lines = {
        "Rss": dirty + clean,
        "Pss": dirty + clean,
        "Shared_Clean": 0,
        "Shared_Dirty": dirty // 2,
        "Private_Clean": clean,
        "Private_Dirty": dirty - dirty // 2,
        "Anonymous": anonymous,
    }
    return _core.parse_smaps_rollup("".join(f"{k}: {v} kB\n" for k, v in lines.items()).encode())


def make_status(*, anon: int, file: int, shmem: int, hugetlb: int | None) -> _core.Status:
    text = f"VmSize: 1 kB\nVmRSS: {anon + file + shmem} kB\nRssAnon: {anon} kB\n"
    text += f"RssFile: {file} kB\nRssShmem: {shmem} kB\n"
    text += "" if hugetlb is None else f"HugetlbPages: {hugetlb} kB\n"
    return _core.parse_status(text.encode())


def test_held_is_anonymous_shmem_and_hugetlb() -> None:
    host = _core.host_from_status(make_status(anon=100, file=70, shmem=30, hugetlb=2048))
    assert host.held_bytes == (100 + 30 + 2048) * KIB
    assert host.reclaimable_bytes == 70 * KIB


def test_held_on_a_kernel_without_hugetlb_is_known() -> None:
    host = _core.host_from_status(make_status(anon=100, file=70, shmem=30, hugetlb=None))
    assert host.hugetlb_bytes is None
    assert host.held_bytes == 130 * KIB


def test_rollup_holds_the_file_pages_that_are_surely_dirty() -> None:
    status = make_status(anon=100, file=70, shmem=30, hugetlb=0)
    host = _core.host_from_rollup(status, make_rollup(dirty=150, anonymous=100, clean=50))
    assert host.held_bytes == 150 * KIB  # 20 of the 150 dirty are neither anonymous nor shmem
    assert host.reclaimable_bytes == 50 * KIB


@pytest.mark.parametrize("dirty", [0, 5, 130])
def test_dirty_pages_that_may_all_be_anonymous_add_nothing(dirty: int) -> None:
    status = make_status(anon=100, file=70, shmem=30, hugetlb=0)
    host = _core.host_from_rollup(status, make_rollup(dirty=dirty, anonymous=100))
    assert host.held_bytes == 130 * KIB
    assert host.reclaimable_bytes == 70 * KIB


def test_reclaimable_is_never_negative_when_the_files_disagree() -> None:
    status = make_status(anon=100, file=70, shmem=30, hugetlb=0)
    host = _core.host_from_rollup(status, make_rollup(dirty=5000, anonymous=100))
    assert host.reclaimable_bytes == 0
    assert host.held_bytes == 200 * KIB
