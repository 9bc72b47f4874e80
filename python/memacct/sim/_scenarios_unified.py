"""Scenarios of memory that a GPU shares with its host's kernel: GB10, Jetson, GH200."""

from __future__ import annotations

from typing import Any

from memacct._units import GIB, KIB
from memacct.sim._faults import CallFault, Faults
from memacct.sim._scenario import Scenario, ScenarioTenant

NEIGHBOUR = (ScenarioTenant(holds="3GiB"),)
_NO_NVML = {"MEMACCT_NVML_LIBRARY": "/nonexistent/libnvidia-ml.so.1"}
_NO_LISTS = Faults(calls=[CallFault(function="nvmlDeviceGetComputeRunningProcesses*", error=3)])


def kib_bytes(gib: float) -> int:
    """Returns so many GiB in bytes, in whole KiB as the kernel counts them."""
    return int(gib * GIB / KIB) * KIB


def meminfo(**gib: float) -> str:
    """Returns a /proc/meminfo with these lines, in GiB."""
    lines = (f"{name + ':':<16}{kib_bytes(value) // KIB:>8} kB" for name, value in gib.items())
    return "\n".join(lines) + "\n"


# As a machine looks that has read some files and runs some services.
QUIET_HOST = meminfo(
    MemTotal=119,
    MemFree=100,
    MemAvailable=107,
    Buffers=0.25,
    Cached=8,
    AnonPages=5,
    Shmem=0.5,
)
# vllm#54200: 119.2 of 121.7 GiB in use while the kernel still promised 22.5.
SQUEEZED_HOST = meminfo(
    MemTotal=121.7,
    MemFree=2.5,
    MemAvailable=22.5,
    Buffers=0.5,
    Cached=22,
    AnonPages=1.5,
    Shmem=0.25,
)
# llamastash#80: 52 GiB available, nearly all of it page cache, and 2.77 GiB free to CUDA.
CACHING_HOST = meminfo(
    MemTotal=119,
    MemFree=3,
    MemAvailable=52,
    Buffers=0.25,
    Cached=50.5,
    AnonPages=3,
    Shmem=0.5,
)


def _chip(
    scenario: str,
    description: str,
    host: str,
    *,
    faults: Faults | None = None,
    env: dict[str, str] | None = None,
    **settings: Any,
) -> Scenario:
    return Scenario(
        name=scenario,
        description=description,
        settings={"total_bytes": "119GiB", "integrated": True, "name": "NVIDIA GB10", **settings},
        faults=faults or Faults(),
        tenants=NEIGHBOUR,
        env=env or {},
        files={"/proc/meminfo": host},
    )


ALL = (
    _chip(
        "gb10",
        "integrated: NVML tells no totals, but each process's bytes; driver 580.173 (nvitop#208)",
        QUIET_HOST,
    ),
    _chip(
        "gb10-wrong-totals",
        "integrated, and NVML tells totals that are not true (nvitop#208)",
        QUIET_HOST,
        integrated="wrong-totals",
    ),
    _chip(
        "gb10-squeezed",
        "22.5 GiB available, 2.5 really free: the driver's allocations fail (vllm#54200)",
        SQUEEZED_HOST,
        total_bytes=kib_bytes(121.7),
        unattributed_bytes=kib_bytes(34),
    ),
    _chip(
        "gb10-page-cache",
        "52 GiB available, 2.77 free to CUDA: the rest is page cache (llamastash#80)",
        CACHING_HOST,
        unattributed_bytes=kib_bytes(119 - 2.77) - 3 * GIB - kib_bytes(864 / 1024),
    ),
    _chip(
        "jetson",
        "integrated, without NVML: CUDA and the kernel are all that there is",
        QUIET_HOST,
        env=_NO_NVML,
        name="Orin",
    ),
    _chip(
        "jetson-no-lists",
        "integrated, with an NVML that lists no processes",
        QUIET_HOST,
        faults=_NO_LISTS,
        name="Orin",
    ),
    Scenario(
        name="gh200",
        description="coherent: a NUMA node of the kernel, which keeps the pages of who has ended",
        # A node that the machine at hand does not have: what it says of it is unknown.
        settings={
            "total_bytes": "97871MiB",
            "reserved_bytes": "500MiB",
            "numa_node": 999,
            "name": "NVIDIA GH200 480GB",
        },
        tenants=NEIGHBOUR,
    ),
)
