"""What a mapping is and what of it is held, from text as kernels write it."""

from __future__ import annotations

import pytest

from memacct import SourceFormatError, _core

KIB = 1024
# A tmpfs, a hugetlbfs and an overlay, whose devices have no disk; a disk.
MOUNTINFO = b"""\
24 22 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:40 / /tmp rw shared:1 - tmpfs tmpfs rw
41 27 0:41 / /mnt/huge rw - hugetlbfs hugetlbfs rw
42 27 0:42 / /mnt/with\\040space rw master:7 propagate_from:2 - overlay overlay rw
"""


def record(header: str, **sizes: int) -> str:
    """A mapping with the lines of Linux 5.4 that matter here, in kB."""
    flags = sizes.pop("flags", "rd wr mr mw me")
    known = ["Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss", "Shared_Clean", "Shared_Dirty"]
    known += ["Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "LazyFree"]
    known += ["Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss", "Locked"]
    lines = [f"{key + ':':<16}{sizes.pop(key, 0):8d} kB\n" for key in known]
    assert not sizes
    return f"{header}\n{''.join(lines)}VmFlags: {flags} \n"


def parse(*records: str, mountinfo: bytes = MOUNTINFO) -> _core.Mappings:
    return _core.parse_smaps("".join(records).encode(), mountinfo=mountinfo)


def header(name: str, *, perms: str = "rw-p", device: str = "fe:00", inode: int = 7) -> str:
    return f"7f0000000000-7f0000010000 {perms} 00000000 {device} {inode}".ljust(73) + name


NO_FILE = {"device": "00:00", "inode": 0}


@pytest.mark.parametrize(
    ("name", "where", "kind"),
    [
        ("", NO_FILE, "anon"),
        ("[heap]", NO_FILE, "heap"),
        ("[stack]", NO_FILE, "stack"),
        ("[stack:4711]", NO_FILE, "stack"),
        ("[anon:glibc: malloc]", NO_FILE, "named_anon"),
        ("[anon_shmem:pool]", {"device": "00:01", "inode": 9}, "shmem"),
        ("[vdso]", NO_FILE, "special"),
        ("[vvar_vclock]", NO_FILE, "special"),
        ("[uprobes]", NO_FILE, "special"),
        ("/usr/lib/libc.so.6", {}, "library"),
        ("/opt/x/_core.cpython-311-x86_64-linux-gnu.so", {}, "library"),
        ("/opt/x/libcudart.so.12.8.90 (deleted)", {}, "library"),
        ("/opt/data.sorted", {}, "file"),
        ("/opt/.so", {}, "file"),
        ("/opt/so", {}, "file"),
        ("/opt/libs.so.d/data", {}, "file"),
        ("/models/model.safetensors", {}, "file"),
        ("/models/model.safetensors", {"device": "00:2a"}, "file"),
        ("/tmp/model.safetensors", {"device": "00:28"}, "shmem"),
        ("/memfd:doublemapper (deleted)", {"device": "00:01"}, "shmem"),
        ("/SYSV00000000 (deleted)", {"device": "00:01"}, "shmem"),
        ("/dev/zero (deleted)", {"device": "00:01", "perms": "rw-s"}, "shmem"),
        ("/dev/zero", {"device": "00:05"}, "anon"),
        ("/dev/shm/psm_1234", {"device": "00:17"}, "dev_shm"),
        ("/dev/shm/libx.so", {"device": "00:17", "perms": "r-xp"}, "dev_shm"),
        ("/anon_hugepage (deleted)", {"device": "00:0f"}, "hugetlb"),
        ("/mnt/huge/pool", {"device": "00:29"}, "hugetlb"),
        ("/dev/nvidia0", {"device": "00:05", "perms": "rw-s"}, "device"),
        ("/dev/nvidiactl", {"device": "00:05", "perms": "rw-s"}, "device"),
        ("/dev/nvidia-uvm", {"device": "00:05", "perms": "rw-s"}, "device"),
        ("/dev/infiniband/uverbs0", {"device": "00:05", "perms": "rw-s"}, "device"),
        ("anon_inode:[io_uring]", {"device": "00:0d", "perms": "rw-s"}, "device"),
        # a container's volumes: regular files of a disk or of an image
        ("/dev/termination-log", {}, "file"),
        ("/dev/shm/on-a-volume", {}, "file"),
        ("/dev/shm/on-an-image", {"device": "00:2a"}, "file"),
        # on what is mounted nowhere that we can see
        ("/unmounted/pool", {"device": "00:63"}, "shmem"),
        ("/unmounted/libx.so", {"device": "00:63"}, "library"),
        ("socket:[12345]", {"device": "00:08", "perms": "rw-s"}, "device"),
    ],
)
def test_a_kind_is_told_by_name_and_device(name: str, where: dict[str, str], kind: str) -> None:
    (mapping,) = parse(record(header(name, **where), Rss=64))
    assert mapping.kind == kind


def test_the_flag_of_huge_pages_counts_more_than_the_name() -> None:
    flags = "rd wr mr mw me de ht sd"
    (mapping,) = parse(record(header("/data/pool"), flags=flags, Private_Hugetlb=2048))
    assert mapping.kind == "hugetlb"
    assert (mapping.held_bytes, mapping.reclaimable_bytes) == (2048 * KIB, 0)


def test_a_file_is_a_program_if_any_part_of_it_can_run() -> None:
    text = "7f0000010000-7f0000020000 r-xp 00010000 fe:00 7".ljust(73) + "/usr/bin/python3"
    mappings = parse(record(header("/usr/bin/python3", perms="r--p")), record(text))
    assert [mapping.kind for mapping in mappings] == ["library", "library"]


@pytest.mark.parametrize(
    ("name", "where", "sizes", "held"),
    [
        # anonymous memory: all but what was freed lazily
        ("", NO_FILE, {"Rss": 64, "Private_Dirty": 64, "Anonymous": 64}, 64),
        ("", NO_FILE, {"Rss": 64, "Private_Dirty": 24, "Anonymous": 64, "LazyFree": 40}, 24),
        # anonymous and clean (read back from swap): it would have to be written again
        ("", NO_FILE, {"Rss": 64, "Private_Clean": 64, "Anonymous": 64}, 64),
        # what is dirty of a file
        ("/f", {}, {"Rss": 64, "Shared_Clean": 64}, 0),
        ("/f", {}, {"Rss": 64, "Shared_Clean": 40, "Shared_Dirty": 16, "Private_Dirty": 8}, 24),
        # a private mapping's copies are anonymous; the rest of its dirty pages are the file's
        ("/f", {}, {"Rss": 64, "Private_Clean": 44, "Private_Dirty": 20, "Anonymous": 8}, 20),
        # locked
        ("/f", {}, {"Rss": 64, "Shared_Clean": 64, "Locked": 32, "flags": "rd mr lo"}, 64),
        # swap-backed whatever their pages' state
        ("/memfd:a (deleted)", {"device": "00:01"}, {"Rss": 64, "Shared_Clean": 64}, 64),
        ("/dev/shm/a", {"device": "00:17"}, {"Rss": 64, "Shared_Clean": 64}, 64),
        ("/tmp/a", {"device": "00:28"}, {"Rss": 64, "Shared_Clean": 64}, 64),
        ("/dev/nvidia0", {"device": "00:05"}, {"Rss": 64, "Shared_Clean": 64}, 64),
        # in neither rss nor pss
        ("/anon_hugepage (deleted)", {"device": "00:0f"}, {"Shared_Hugetlb": 2048}, 2048),
    ],
)
def test_what_is_held(name: str, where: dict[str, str], sizes: dict[str, int], held: int) -> None:
    (mapping,) = parse(record(header(name, **where), **sizes))
    assert mapping.held_bytes == held * KIB
    rss = sizes.get("Rss", 0) * KIB
    hugetlb = sizes.get("Shared_Hugetlb", 0) * KIB
    assert rss == held * KIB - hugetlb + (mapping.reclaimable_bytes or 0)


def test_without_the_fields_that_it_needs_held_is_unknown() -> None:
    old = header("/f") + "\nSize:                 64 kB\nRss:                  64 kB\n"
    (mapping,) = parse(old)
    assert mapping.rss_bytes == 64 * KIB
    assert mapping.held_bytes is None
    assert mapping.vm_flags is None
    (totals,) = parse(old).by_kind().values()
    assert totals.held_bytes is None
    assert "held_bytes" not in (parse(old).rows.dtype.names or ())


def test_sums_of_unknown_columns_are_unknown() -> None:
    old = header("/f") + "\nSize:                 64 kB\nRss:                  64 kB\n"
    status = _core.parse_status(b"VmSize:\t    3060 kB\nVmRSS:\t    1692 kB\n")
    host = _core.host_from_mappings(status, parse(old))
    assert host.tier == "mappings"
    assert host.rss_exact_bytes == 64 * KIB
    assert host.pss_bytes is None
    assert host.uss_bytes is None
    assert host.private_dirty_bytes is None
    assert host.held_bytes is None


def test_a_chunk_of_any_size_is_taken() -> None:
    text = record(header("/f"), Rss=8).encode()
    for chunk_bytes in (0, 1, 1 << 63, (1 << 64) - 1):
        assert _core.parse_smaps(text, chunk_bytes) == _core.parse_smaps(text)


def test_a_field_that_one_mapping_lacks_is_unknown_for_all() -> None:
    other = "7f0000010000-7f0000020000 r-xp 00010000 fe:00 7\nRss:                   4 kB\n"
    mappings = parse(record(header("/f"), Rss=8), other)
    assert [mapping.rss_bytes for mapping in mappings] == [8 * KIB, 4 * KIB]
    assert mappings[0].pss_bytes is None


def test_a_field_of_a_later_kernel_is_passed_over_and_named() -> None:
    text = record(header("/f"), Rss=8) + "GpuMapped:            12 kB\nNewState: yes\n"
    mappings = parse(text)
    assert mappings.unread_fields == ("GpuMapped", "NewState")
    assert mappings[0].rss_bytes == 8 * KIB


def test_a_flag_of_a_later_kernel_is_kept_as_unknown() -> None:
    (mapping,) = parse(record(header("/f"), flags="rd zz lo"))
    assert mapping.vm_flags == ("rd", "lo", "??")


def test_of_readings_that_overlap_the_later_one_stands() -> None:
    # Between two reads the first mapping grew over its neighbour's place.
    grown = "7f0000000000-7f0000030000 rw-p 00000000 00:00 0"
    after = "7f0000030000-7f0000040000 r--p 00000000 00:00 0"
    mappings = parse(
        record(header("", **NO_FILE), Rss=64), record(grown, Rss=192), record(after, Rss=4)
    )
    assert [mapping.rss_bytes for mapping in mappings] == [192 * KIB, 4 * KIB]


@pytest.mark.parametrize(
    ("mountinfo", "line"),
    [
        (b"24 22 0:21 / /proc rw,relatime proc proc rw\n", "24 22"),
        (b"24 22 021 / /proc rw - proc proc rw\n", "021"),
        (b"24 22 0:x / /proc rw - proc proc rw\n", "0:x"),
    ],
)
def test_a_mount_that_is_not_understood_is_named(mountinfo: bytes, line: str) -> None:
    with pytest.raises(SourceFormatError) as caught:
        parse(record(header("/f")), mountinfo=mountinfo)
    assert line in caught.value.line
    assert caught.value.source == "/proc/self/mountinfo"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"Rss:  4 kB\n", "Rss:  4 kB"),
        (b"\n", ""),
        (b"7f00-7e00 rw-p 00000000 00:00 0\nRss:  4 kB\n", "7f00-7e00"),
        (b"7f00-8000 rw-q 00000000 00:00 0\nRss:  4 kB\n", "rw-q"),
        (b"7f00-8000 rw-p 00000000 00:00 x\nRss:  4 kB\n", "00:00 x"),
        (b"7f00-8000 rw-p 00000000 00:00 0\nRss:  4 MB\n", "4 MB"),
        (b"7f00-8000 rw-p 00000000 00:00 0\nRss:  -4 kB\n", "-4 kB"),
        (b"7f00-8000 rw-p 00000000 00:00 0\nRss:  4 kB\nRss:  4 kB\n", "Rss:  4 kB"),
        (b"7f00-8000 rw-p 00000000 00:00 0\nRss:  4 kB\nnonsense\n", "nonsense"),
        (b"7f00-8000 rw-p 00000000 00:00 0\nRss:  4 kB\nVmFlags: rd x\n", "VmFlags: rd x"),
        (b"7f00-8000 rw-p 00000000 00:00 0\nRss:  4 kB\nTHPeligible: no\n", "no"),
        (b"7f00-8000 rw-p 00000000 00:00 0 /a\nSize: 4 kB\n", "/a"),
        (b"7f00-8000 rw-p 00000000 00:00 0\nRss:  4 kB\nPss:  4 k", "Pss:  4 k"),
    ],
)
def test_text_that_is_not_understood_is_named(text: bytes, line: str) -> None:
    with pytest.raises(SourceFormatError) as caught:
        _core.parse_smaps(text)
    assert line in caught.value.line
    assert caught.value.source == "smaps"


def test_a_row_that_the_quick_way_cannot_take_is_taken_all_the_same() -> None:
    # The second mapping has other lines in another order, and numbers wider than eight digits.
    second = "7f0000010000-7f0000020000 rw-p 00000000 00:00 0\n"
    second += (
        "Rss:            123456789012 kB\nSize:            7 kB\nPss:                   1 kB\n"
    )
    mappings = _core.parse_smaps((record(header("/f"), Rss=8, Pss=8, Size=8) + second).encode())
    assert mappings[1].rss_bytes == 123456789012 * KIB
    assert mappings[1].vms_bytes == 7 * KIB
    assert mappings[1].pss_bytes == 1 * KIB


@pytest.mark.parametrize("digits", ["!      5", "       +", "1 2     ", "  1 2   ", "0x000010"])
def test_the_quick_way_takes_nothing_but_a_number(digits: str) -> None:
    text = record(header("/f"), Rss=8) + record(
        "7f0000010000-7f0000020000 rw-p 00000000 00:00 0", Rss=8
    ).replace("Rss:                   8 kB", f"Rss:            {digits} kB")
    with pytest.raises(SourceFormatError):
        _core.parse_smaps(text.encode())
