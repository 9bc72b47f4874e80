"""Scenarios of numbering: a GPU that is divided into MIG instances, and GPUs that are unlike."""

from __future__ import annotations

from typing import Any

from memacct.sim._scenario import CARD, Scenario, ScenarioTenant

# As the simulated driver names its first device, and the instances at places 0 and 2 of it.
GPU_UUID = "GPU-516dcda0-0000-4000-8000-516dcda00000"
FIRST_UUID = "MIG-d16dcda0-0000-4000-8000-516dcda00100"
SECOND_UUID = "MIG-d16dcda0-0000-4000-8000-516dcda00300"

# The first instance is as large as the other scenarios' card.
_DIVIDED: dict[str, Any] = {
    "total_bytes": "141GiB",
    "reserved_bytes": "1GiB",
    "name": "NVIDIA H200",
    "mig": (CARD["total_bytes"], 0, "16GiB"),
    "mig_reserved_bytes": CARD["reserved_bytes"],
}
_ON_BOTH = (
    ScenarioTenant(holds="3GiB", device=FIRST_UUID),
    ScenarioTenant(holds="5GiB", device=SECOND_UUID),
)


def _divided(name: str, description: str, **settings: Any) -> Scenario:
    return Scenario(
        name=name,
        description=description,
        settings=_DIVIDED | settings,
        tenants=_ON_BOTH,
        env={"CUDA_VISIBLE_DEVICES": FIRST_UUID},
    )


ALL = (
    _divided("mig", "programs on a MIG instance of 32 GiB of a GPU of 141 GiB"),
    _divided("mig-parent", "the whole of that GPU: who is on it is not told (NO_PERMISSION)"),
    _divided(
        "mig-monitored", "the whole of that GPU, to those who may monitor it", mig_monitor=True
    ),
    Scenario(
        name="unlike-gpus",
        description="CUDA counts from the fastest GPU on, NVML by the slots: device 0 is NVML's 1",
        settings={
            "count": 2,
            "name": ("NVIDIA L4", "NVIDIA H100"),
            "total_bytes": ("24GiB", CARD["total_bytes"]),
            "reserved_bytes": CARD["reserved_bytes"],
            "speeds": (1, 2),
        },
        tenants=(ScenarioTenant(holds="3GiB", device=1),),
    ),
)
