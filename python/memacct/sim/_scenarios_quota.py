"""Scenarios of quota hooks: libraries that put a container's quota in the card's place."""

from __future__ import annotations

from memacct.sim._faults import Faults
from memacct.sim._scenario import CARD, Scenario, ScenarioTenant

NEIGHBOUR = (ScenarioTenant(holds="3GiB"),)
HOOK = "libvgpu.so"
_QUOTA = {"CUDA_DEVICE_MEMORY_LIMIT": "8g"}

ALL = (
    Scenario(
        name="quota-hook",
        description="a hook shows a quota of 8 GiB in the place of the card: HAMi",
        settings=CARD,
        tenants=NEIGHBOUR,
        env=_QUOTA,
        preload=(HOOK,),
    ),
    Scenario(
        name="quota-hook-host-pids",
        description="a quota of 8 GiB, and the list has the host's PIDs (HAMi RFC#243)",
        settings=CARD,
        faults=Faults(pids="host"),
        tenants=NEIGHBOUR,
        env=_QUOTA,
        preload=(HOOK,),
    ),
)
