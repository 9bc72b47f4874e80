"""Scenarios of memory that nobody is listed with, and of what changes under a reading."""

from __future__ import annotations

from typing import Any

from memacct.sim._faults import CallFault, Faults
from memacct.sim._scenario import CARD, Scenario, ScenarioTenant

NEIGHBOUR = (ScenarioTenant(holds="3GiB"),)
CROWD_COUNT = 70  # more than the 64 records that a reader starts with
_LISTS = "nvmlDeviceGetComputeRunningProcesses_v2"
_MEMORY = "nvmlDeviceGetMemoryInfo_v2"


def _on_card(
    name: str,
    description: str,
    *calls: CallFault,
    tenants: tuple[ScenarioTenant, ...] = NEIGHBOUR,
    **settings: Any,
) -> Scenario:
    return Scenario(
        name=name,
        description=description,
        settings={**CARD, **settings},
        faults=Faults(calls=calls),
        tenants=tenants,
    )


NOBODYS = (
    Scenario(
        name="managed-memory",
        description="60 GB of cudaMallocManaged, of which the list shows 5 (pynvml#63)",
        settings={"reserved_bytes": "500MiB"},
        tenants=NEIGHBOUR,
    ),
    _on_card(
        "zombie",
        "10151 MiB pinned by a process that was killed and cannot end (VisEdit#5)",
        unattributed_bytes="10151MiB",
    ),
)

LISTS = (
    _on_card(
        "crowd",
        "more processes than the first buffer holds",
        tenants=(ScenarioTenant(holds="2MiB", context_bytes="6MiB"),) * CROWD_COUNT,
    ),
    _on_card(
        "growing-list",
        "the list outgrows the buffer again and again before it fits",
        CallFault(function=_LISTS, error=7, for_count=3),
    ),
    _on_card(
        "endless-list",
        "whatever the buffer, the list says INSUFFICIENT_SIZE: the reader has to give up",
        CallFault(function="nvmlDeviceGetComputeRunningProcesses*", error=7),
    ),
    _on_card(
        "exit-between-calls",
        "the neighbour ends after the first list, before the memory is read",
        CallFault(function=_MEMORY, after_count=1, for_count=1, charge_bytes="-3472MiB"),
    ),
)

LOSSES = (
    _on_card(
        "lost-device",
        "device 0 falls off the bus in the middle of a run (error 15), device 1 does not",
        CallFault(function=_MEMORY, error=15, after_count=8, for_count=1),
        count=2,
        tenants=(ScenarioTenant(holds="3GiB", device=1),),
    ),
    _on_card(
        "nvml-shut-down",
        "another library of the program shuts NVML down",
    ),
    _on_card(
        "devices-taken-away",
        "a reload of systemd takes the container's devices away for a time (nvidia-docker#1671)",
        CallFault(function="nvmlDeviceGetMemoryInfo*", error=999, after_count=4, for_count=2),
    ),
)

ALL = (*NOBODYS, *LISTS, *LOSSES)
