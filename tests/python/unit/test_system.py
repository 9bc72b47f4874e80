"""The machine's memory from its files: meminfo, pressure, NUMA nodes, hugetlb pools."""

from __future__ import annotations

from pathlib import Path

import pytest

from memacct import SourceFormatError, SourceUnavailableError, _core

MEMINFO = """\
MemTotal:       131072000 kB
MemFree:        10240000 kB
MemAvailable:   90112000 kB
Buffers:            2048 kB
Cached:         70000000 kB
SwapCached:            7 kB
Active(file):   30000000 kB
SwapTotal:       8388604 kB
SwapFree:        8000000 kB
Dirty:              1234 kB
Shmem:           5000000 kB
HugePages_Total:       4
Hugepagesize:       2048 kB
Hugetlb:         1056768 kB
"""
NODE = """\
Node {0} MemTotal:       65536000 kB
Node {0} MemFree:        {1} kB
Node {0} MemUsed:        60416000 kB
Node {0} Active(anon):        100 kB
Node {0} Active(file):   20000000 kB
Node {0} Inactive(file): 15000000 kB
Node {0} AnonPages:       1000000 kB
Node {0} Shmem:            500000 kB
Node {0} HugePages_Total:     4
"""
KIB = 1024


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def pool(root: Path, kib: int, *counts: int) -> None:
    names = ("nr", "free", "resv", "surplus")
    for name, count in zip(names, counts, strict=True):
        write(root, f"sys/kernel/mm/hugepages/hugepages-{kib}kB/{name}_hugepages", f"{count}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    write(tmp_path, "proc/meminfo", MEMINFO)
    write(tmp_path, "sys/devices/system/node/online", "0,8\n")
    for node in (0, 8):
        text = NODE.format(node, 5120000 + node)
        write(tmp_path, f"sys/devices/system/node/node{node}/meminfo", text)
    pool(tmp_path, 1048576, 1, 1, 1, 0)
    pool(tmp_path, 2048, 4, 2, 1, 1)
    pool(tmp_path, 64, 0, 0, 0, 0)
    return tmp_path


def test_the_fields_of_meminfo(machine: Path) -> None:
    system = _core.read_system(str(machine)).to_dict()
    scalars = {name: value for name, value in system.items() if name.endswith("_bytes")}
    assert scalars == {
        "total_bytes": 131072000 * KIB,
        "free_bytes": 10240000 * KIB,
        "available_bytes": 90112000 * KIB,
        "cached_bytes": 70000000 * KIB,
        "shmem_bytes": 5000000 * KIB,
        "dirty_bytes": 1234 * KIB,
        "swap_total_bytes": 8388604 * KIB,
        "swap_free_bytes": 8000000 * KIB,
        "hugetlb_bytes": 1056768 * KIB,
    }


def test_the_nodes_that_are_online(machine: Path) -> None:
    nodes = _core.read_system(str(machine)).nodes
    assert nodes is not None
    assert [node.node for node in nodes] == [0, 8]
    assert nodes[1].to_dict() == {
        "node": 8,
        "total_bytes": 65536000 * KIB,
        "free_bytes": 5120008 * KIB,
        "inactive_file_bytes": 15000000 * KIB,
        "active_file_bytes": 20000000 * KIB,
        "anon_bytes": 1000000 * KIB,
        "shmem_bytes": 500000 * KIB,
    }


def test_a_node_that_went_offline_meanwhile_is_left_out(machine: Path) -> None:
    write(machine, "sys/devices/system/node/online", "0-1,8\n")
    nodes = _core.read_system(str(machine)).nodes
    assert nodes is not None
    assert [node.node for node in nodes] == [0, 8]


def test_the_pools_are_in_the_order_of_their_page_size(machine: Path) -> None:
    pools = _core.read_system(str(machine)).hugetlb_pools
    assert pools is not None
    assert [tuple(pool.to_dict().values()) for pool in pools] == [
        (64 * KIB, 0, 0, 0, 0),
        (2048 * KIB, 4, 2, 1, 1),
        (1048576 * KIB, 1, 1, 1, 0),
    ]


def test_pools_are_not_asked_where_meminfo_counts_no_page(machine: Path) -> None:
    write(machine, "proc/meminfo", MEMINFO.replace("1056768 kB", "0 kB"))
    pools = _core.read_system(str(machine)).hugetlb_pools
    assert pools is not None
    assert {pool.total_count for pool in pools} == {0}
    assert len(pools) == 3


def test_a_kernel_without_numa_hugetlb_and_pressure(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemTotal: 4 kB\nMemFree: 2 kB\n")
    system = _core.read_system(str(tmp_path))
    known = {name: value for name, value in system.to_dict().items() if value is not None}
    assert known == {"total_bytes": 4096, "free_bytes": 2048}


def test_a_machine_without_meminfo_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="meminfo"):
        _core.read_system(str(tmp_path))


def test_pressure_of_the_machine(machine: Path) -> None:
    line = "avg10=100.00 avg60=0.01 avg300=12.34 total=1\n"
    write(machine, "proc/pressure/memory", f"some {line}")
    pressure = _core.read_system(str(machine)).pressure
    assert pressure is not None
    assert (pressure.some_avg10_ratio, pressure.some_avg60_ratio) == (1.0, 0.0001)
    assert (pressure.some_avg300_ratio, pressure.some_stalled_ns) == (0.1234, 1000)
    assert pressure.full_avg10_ratio is None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("proc/pressure/memory", "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
        ("sys/devices/system/node/online", "0-\n"),
        ("sys/devices/system/node/node8/meminfo", NODE.format(9, 1)),
        ("sys/devices/system/node/node8/meminfo", "Node 8 MemTotal: 1 kB\n"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "two\n"),
        ("sys/kernel/mm/hugepages/hugepages-2MB/nr_hugepages", "1\n"),
    ],
)
def test_what_is_not_understood_is_named(machine: Path, path: str, text: str) -> None:
    write(machine, path, text)
    with pytest.raises(SourceFormatError) as caught:
        _core.read_system(str(machine))
    # Of a name that is not understood, the folder.
    assert f"{machine}/{path}".startswith(caught.value.source)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("\n", []),
        ("0\n", [0]),
        ("0-3\n", [0, 1, 2, 3]),
        ("0-1,8,10-11\n", [0, 1, 8, 10, 11]),
        ("65535\n", [65535]),
    ],
)
def test_lists_of_numbers(text: str, numbers: list[int]) -> None:
    assert _core.parse_number_list(text.encode(), "file") == numbers


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0,\n", ",0\n", "3-1\n", "1,0\n", "0-2,2\n", "0 \n", "-1\n", "65536\n"),
        *("0\n1\n", "0-18446744073709551615\n"),
    ],
)
def test_a_list_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SourceFormatError):
        _core.parse_number_list(text.encode(), "file")
