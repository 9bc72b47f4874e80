"""Answers in the scenarios of nobody's memory, of losses, of quota hooks and of unified memory."""

from __future__ import annotations

from typing import Any

from scenario_answers import (
    ALLOCATED_BYTES,
    CONTEXT_BYTES,
    FREE_BYTES,
    IN_USE_BYTES,
    NEIGHBOUR_BYTES,
    OURS,
    OWN_BYTES,
    RESERVED_BYTES,
    TOTAL_BYTES,
    Answer,
)

from memacct._units import GIB, MIB
from memacct.sim._scenarios_moving import CROWD_COUNT
from memacct.sim._scenarios_unified import kib_bytes

# ---------------------------------------------------------------- nobody's memory

H100_BYTES = 81559 * MIB
LISTED_BYTES = 5 * GIB + CONTEXT_BYTES
MANAGED_BYTES = 55 * GIB
MANAGED = f"""
context(); allocate({5 * GIB})
pointer = ctypes.c_uint64()
call("cuMemAllocManaged", ctypes.byref(pointer), ctypes.c_size_t({MANAGED_BYTES}), 1)
"""
ZOMBIE_BYTES = 10151 * MIB
CROWD_BYTES = CROWD_COUNT * 8 * MIB
NO_LIST: dict[str, Any] = {
    "own_bytes": None,
    "foreign_bytes": None,
    "unattributed_bytes": None,
    "source": "none",
    "identified": ("none", None),
}

NOBODYS = {
    "managed-memory": Answer(
        setup=MANAGED,
        total_bytes=H100_BYTES,
        free_bytes=H100_BYTES - RESERVED_BYTES - NEIGHBOUR_BYTES - LISTED_BYTES - MANAGED_BYTES,
        device_used_bytes=NEIGHBOUR_BYTES + LISTED_BYTES + MANAGED_BYTES,
        own_bytes=LISTED_BYTES,
        bounds_bytes=(LISTED_BYTES, LISTED_BYTES),
        identified=("pid", LISTED_BYTES),
        unattributed_bytes=MANAGED_BYTES,
    ),
    "zombie": Answer(
        free_bytes=FREE_BYTES - ZOMBIE_BYTES,
        device_used_bytes=IN_USE_BYTES + ZOMBIE_BYTES,
        unattributed_bytes=ZOMBIE_BYTES,
    ),
}

LISTS = {
    "crowd": Answer(
        free_bytes=TOTAL_BYTES - RESERVED_BYTES - OWN_BYTES - CROWD_BYTES,
        device_used_bytes=OWN_BYTES + CROWD_BYTES,
        foreign_bytes=CROWD_BYTES,
    ),
    "growing-list": Answer(),
    "endless-list": Answer(
        **NO_LIST, bounds_bytes=(None, IN_USE_BYTES), reason="returned 7 (Insufficient Size)"
    ),
    "exit-between-calls": Answer(
        free_bytes=FREE_BYTES + NEIGHBOUR_BYTES,
        device_used_bytes=OWN_BYTES,
        foreign_bytes=0,
        fields={"attempts_count": 2},
    ),
}

# ---------------------------------------------------------------- losses

LOSES_DEVICE_0 = f"""
context(1); allocate({ALLOCATED_BYTES}, 1)
before = [reading(0), reading(1)]
assert [device["index"] for device in before] == [0, 1]
for _ in range(20):  # how often a reading asks is its own affair
    lost = attempt(_core.read_device, 0)
    if "raised" in lost: break
for _ in range(2):  # it stays lost, without being asked again
    assert lost["raised"] == "DriverError" and "15 (GPU is lost)" in lost["text"], lost
    lost = attempt(_core.read_device, 0)
all_left = attempt(_core.read_devices, "all")
assert [device["index"] for device in all_left] == [1], all_left
"""
SHUTS_NVML_DOWN = f"""
{OURS}
reading()
nvml = ctypes.CDLL("libnvidia-ml.so.1")
count = ctypes.c_uint()
while nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
    nvml.nvmlShutdown()
"""
TAKES_DEVICES_AWAY = f"""
{OURS}
for _ in range(20):  # how often a reading asks is its own affair
    without = reading()
    if without["source"] == "cuda": break  # CUDA's word is left, of what it tells
assert (without["source"], without["unattributed_bytes"]) == ("cuda", None), without
"""

LOSSES = {
    "lost-device": Answer(setup=LOSES_DEVICE_0, key=1),
    "nvml-shut-down": Answer(setup=SHUTS_NVML_DOWN),
    "devices-taken-away": Answer(setup=TAKES_DEVICES_AWAY),
}

# ---------------------------------------------------------------- quota hooks

QUOTA_BYTES = 8 * GIB
# Of the quota what this container holds is gone, whatever the card has left.
_QUOTA: dict[str, Any] = {
    "total_bytes": QUOTA_BYTES,
    "free_bytes": QUOTA_BYTES - OWN_BYTES,
    "device_used_bytes": None,
    "reserved_bytes": None,
    "unattributed_bytes": None,
    "fields": {"virtualized": "libvgpu.so", "source": "nvml_v2"},
}

QUOTAS = {
    # Own and foreign are the list's, and physical: they do not add up to a quota.
    "quota-hook": Answer(**_QUOTA),
    "quota-hook-host-pids": Answer(
        **_QUOTA
        | {
            "own_bytes": None,
            "foreign_bytes": None,
            "source": "none",
            # The quota bounds what we were given, not what we hold: contexts are not in it.
            "bounds_bytes": (None, None),
            "reason": "has this process's number",
            "identified": ("fingerprint", OWN_BYTES),
        },
    ),
}

# ---------------------------------------------------------------- unified memory

SQUEEZED_BYTES = kib_bytes(76.96) // (2 * MIB) * 2 * MIB  # the weights


def gb10(
    free: str,
    *,
    total: float,
    host_free: float,
    available: float,
    cuda_free_bytes: int,
    cache: float,
    processes: float,
    held_bytes: int = OWN_BYTES,
    **other: Any,
) -> Answer:
    """One integrated device: the kernel's numbers in GiB, `free` the source that tells least."""
    frees = {
        "cuda": cuda_free_bytes,
        "host_free": kib_bytes(host_free),
        "host_available": kib_bytes(available),
    }
    used = kib_bytes(total) - frees["host_free"] - kib_bytes(cache) - kib_bytes(processes)
    unified = {
        "kind": "integrated",
        "numa_node": None,
        "host_total_bytes": kib_bytes(total),
        "host_free_bytes": frees["host_free"],
        "host_available_bytes": frees["host_available"],
        "cuda_free_bytes": cuda_free_bytes,
        "cuda_total_bytes": kib_bytes(total),
        "free_source": free,
        "withheld_bytes": frees["host_free"] - frees[free],
        "page_cache_bytes": kib_bytes(cache),
        "host_processes_bytes": kib_bytes(processes),
    }
    known: dict[str, Any] = {
        "own_bytes": held_bytes,
        "unattributed_bytes": used - held_bytes - NEIGHBOUR_BYTES,
        "bounds_bytes": (held_bytes, held_bytes),
        "identified": ("pid", held_bytes),
    }
    return Answer(
        total_bytes=kib_bytes(total),
        free_bytes=frees[free],
        device_used_bytes=used,
        reserved_bytes=None,
        fields={"source": "unified", "unified": unified},
        **known | other,
    )


def _quiet(**other: Any) -> Answer:
    return gb10(
        "host_free",
        total=119,
        host_free=100,
        available=107,
        cuda_free_bytes=119 * GIB - IN_USE_BYTES,
        cache=7.75,
        processes=5.5,
        **other,
    )


_QUIET_USED_BYTES = kib_bytes(119 - 100 - 7.75 - 5.5)
_NOT_LISTED = NO_LIST | {"bounds_bytes": (None, _QUIET_USED_BYTES)}
GH200_BYTES = 97871 * MIB
_ENDS_A_CHILD = f"{OURS}; child = in_tree({ALLOCATED_BYTES}); child.end()"

UNIFIED = {
    "gb10": _quiet(),
    "gb10-wrong-totals": _quiet(),
    "gb10-squeezed": gb10(
        "host_free",
        total=121.7,
        host_free=2.5,
        available=22.5,
        cuda_free_bytes=kib_bytes(121.7)
        - kib_bytes(34)
        - NEIGHBOUR_BYTES
        - CONTEXT_BYTES
        - SQUEEZED_BYTES,
        cache=22.25,
        processes=1.75,
        held_bytes=SQUEEZED_BYTES + CONTEXT_BYTES,
        setup=f"context(); allocate({SQUEEZED_BYTES})",
    ),
    "gb10-page-cache": gb10(
        "cuda",
        total=119,
        host_free=3,
        available=52,
        cuda_free_bytes=119 * GIB
        - (kib_bytes(119 - 2.77) - 3 * GIB - kib_bytes(864 / 1024))
        - IN_USE_BYTES,
        cache=50.25,
        processes=3.5,
    ),
    "jetson": _quiet(**_NOT_LISTED, reason="no NVML"),
    "jetson-no-lists": _quiet(**_NOT_LISTED, reason="returned 3 (Not Supported)"),
    # The child has ended, and the kernel keeps its pages: nobody's.
    "gh200": Answer(
        setup=_ENDS_A_CHILD,
        total_bytes=GH200_BYTES,
        free_bytes=GH200_BYTES - RESERVED_BYTES - IN_USE_BYTES - OWN_BYTES,
        device_used_bytes=IN_USE_BYTES + OWN_BYTES,
        unattributed_bytes=OWN_BYTES,
        fields={"source": "nvml_v2", "unified": {"kind": "coherent", "numa_node": 999}},
    ),
}

ANSWERS = {**NOBODYS, **LISTS, **LOSSES, **QUOTAS, **UNIFIED}
