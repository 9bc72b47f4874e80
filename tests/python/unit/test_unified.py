"""Memory that a GPU shares with its host: the least of the sources, and who has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from memacct import SourceFormatError, _convert, _core
from memacct._units import GIB, KIB
from memacct.accounting.budget import BudgetTerms, decide_budget
from memacct.accounting.equation import device_equation
from memacct.sim._scenarios_unified import (
    CACHING_HOST,
    QUIET_HOST,
    SQUEEZED_HOST,
    kib_bytes,
    meminfo,
)

HOST = {"MemTotal": 16, "MemFree": 8, "MemAvailable": 10, "Cached": 4, "AnonPages": 2}


def test_physical_memory_bounds_what_is_available() -> None:
    """vllm#54200: 22.5 GiB available, and allocations failed at 119.2 of 121.7 GiB."""
    memory, free, used = _core._parse_integrated(
        SQUEEZED_HOST, cuda_free_bytes=kib_bytes(7), cuda_total_bytes=kib_bytes(121.7)
    )
    assert memory.host_available_bytes == kib_bytes(22.5)
    assert memory.host_total_bytes - memory.host_free_bytes == kib_bytes(121.7) - kib_bytes(2.5)
    assert (free, memory.free_source) == (kib_bytes(2.5), "host_free")
    # 119.2 less the page cache (22.25) and the host's processes (1.75): devices and the kernel.
    assert used == kib_bytes(121.7) - kib_bytes(2.5) - kib_bytes(22.25) - kib_bytes(1.75)


def test_cuda_bounds_what_is_available() -> None:
    """llamastash#80: cudaMemGetInfo said 2.77 GiB and MemAvailable 52 at the same instant."""
    memory, free, _ = _core._parse_integrated(
        CACHING_HOST, cuda_free_bytes=kib_bytes(2.77), cuda_total_bytes=119 * GIB
    )
    assert (free, memory.free_source) == (kib_bytes(2.77), "cuda")
    assert memory.host_available_bytes == 52 * GIB
    assert memory.page_cache_bytes == kib_bytes(50.25)
    assert memory.withheld_bytes == 3 * GIB - kib_bytes(2.77)


def test_available_bounds_what_is_free() -> None:
    """Below the kernel's watermarks less is available than is free."""
    memory, free, _ = _core._parse_integrated(meminfo(**HOST | {"MemAvailable": 7.5}))
    assert (free, memory.free_source) == (kib_bytes(7.5), "host_available")
    assert memory.withheld_bytes == GIB // 2


def test_without_a_context_the_host_alone_tells() -> None:
    memory, free, _ = _core._parse_integrated(QUIET_HOST)
    assert (free, memory.free_source) == (100 * GIB, "host_free")
    assert memory.cuda_free_bytes is None
    assert memory.withheld_bytes == 0


@pytest.mark.parametrize("name", ["MemAvailable", "Cached", "AnonPages", "Shmem", "Buffers"])
def test_a_line_that_is_missing_is_unknown(name: str) -> None:
    lines = HOST | {"Shmem": 1, "Buffers": 1}
    del lines[name]
    memory, free, used = _core._parse_integrated(meminfo(**lines))
    assert free == 8 * GIB
    assert (memory.host_available_bytes is None) is (name == "MemAvailable")
    assert (memory.page_cache_bytes is None) is (name in ("Cached", "Shmem", "Buffers"))
    assert (memory.host_processes_bytes is None) is (name in ("AnonPages", "Shmem"))
    assert (used is None) is (name != "MemAvailable")


def test_counters_of_different_instants_make_no_number() -> None:
    memory, _, used = _core._parse_integrated(meminfo(**HOST, Shmem=5, Buffers=0))
    assert memory.page_cache_bytes is None
    assert used is None
    with pytest.raises(SourceFormatError, match="a line is missing"):
        _core._parse_integrated("MemTotal: 1 kB\n")


def test_shared_memory_is_processes_not_cache() -> None:
    memory, _, used = _core._parse_integrated(meminfo(**HOST, Shmem=3, Buffers=0.5))
    assert memory.page_cache_bytes == kib_bytes(1.5)
    assert memory.host_processes_bytes == 5 * GIB
    assert used == kib_bytes(16 - 8 - 1.5 - 5)


def test_a_coherent_devices_node(tmp_path: Path) -> None:
    unknown = _core._read_coherent(2, str(tmp_path))
    assert (unknown.kind, unknown.numa_node, unknown.host_total_bytes) == ("coherent", 2, None)
    folder = tmp_path / "sys/devices/system/node/node2"
    folder.mkdir(parents=True)
    values = {
        "MemTotal": 96,
        "MemFree": 80,
        "Active(file)": 1,
        "Inactive(file)": 2,
        "AnonPages": 4,
        "Shmem": 0.5,
    }
    text = "".join(f"Node 2 {line}\n" for line in meminfo(**values).splitlines())
    (folder / "meminfo").write_text(text)
    node = _core._read_coherent(2, str(tmp_path))
    assert (node.host_total_bytes, node.host_free_bytes) == (96 * GIB, 80 * GIB)
    assert node.page_cache_bytes == 3 * GIB
    assert node.host_processes_bytes == kib_bytes(4.5)
    assert node.free_source is None


def test_which_capabilities_are_a_chips() -> None:
    chips = ((5, 3), (6, 2), (7, 2), (8, 7), (11, 0), (12, 1))
    cards = ((6, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3))
    assert all(_core._is_integrated_capability(*each) for each in chips)
    assert not any(_core._is_integrated_capability(*each) for each in (*cards, (12, 0)))


# ---------------------------------------------------------------- what is made of it


def integrated_device(own_bytes: int) -> _core.DeviceMemory:
    memory, free, used = _core._parse_integrated(SQUEEZED_HOST, cuda_free_bytes=2 * GIB)
    assert used is not None
    data = {
        "uuid": "GPU-0",
        "name": "GB10",
        "source": "unified",
        "taken_ns": 1,
        "span_ns": 1,
        "total_bytes": memory.host_total_bytes,
        "free_bytes": free,
        "device_used_bytes": used,
        "own_bytes": own_bytes,
        "tree_bytes": GIB,
        "foreign_bytes": 0,
        "unattributed_bytes": used - own_bytes - GIB,
        "processes": [],
        "attribution": {
            "source": "pid",
            "own_bounds_bytes": (own_bytes, own_bytes),
            "reason": "",
        },
        "consistent": True,
        "attempts_count": 1,
        "unified": memory.to_dict(),
    }
    return _convert.from_dict(_core.DeviceMemory, data)


def test_the_rows_add_up_to_the_machine() -> None:
    device = integrated_device(own_bytes=77 * GIB)
    rows = {row.name: row for row in device_equation(device)}
    assert "reserved" not in rows
    assert rows["page cache"].now_bytes == kib_bytes(22.25)
    assert rows["host processes"].now_bytes == kib_bytes(1.75)
    assert rows["withheld"].now_bytes == GIB // 2
    assert rows["free"].source == "cuMemGetInfo, the least of all sources"
    assert sum(row.now_bytes or 0 for row in rows.values()) == device.total_bytes


def squeezed_terms(*, shares_host: bool) -> BudgetTerms:
    """vllm#46307: util 0.70 of 119 GiB is 83, and 112 were in use in the end."""
    weights_bytes = 20 * GIB
    return BudgetTerms(
        wanted_bytes=83 * GIB - weights_bytes,
        still_to_come_bytes=GIB,
        margin_bytes=GIB // 2,
        free_bytes=(119 - 112) * GIB + weights_bytes,
        grown_bytes=0,  # the host held it from the beginning
        shares_host=shares_host,
    )


def test_the_budget_of_an_integrated_gpu_never_exceeds_what_is_free() -> None:
    budget = decide_budget(lambda: squeezed_terms(shares_host=True))
    assert budget.clamped
    assert budget.final_bytes == 27 * GIB - GIB - GIB // 2
    assert "memory is the machine's" in budget.reason
    alone = decide_budget(lambda: squeezed_terms(shares_host=False))
    assert not alone.clamped
    assert alone.final_bytes == 63 * GIB


def test_kib_bytes_are_whole() -> None:
    assert kib_bytes(22.5) == 22 * GIB + GIB // 2
    assert kib_bytes(121.7) % KIB == 0
