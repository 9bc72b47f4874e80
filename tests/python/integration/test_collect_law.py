"""The law of the double collect, against the simulated GPU's own log of what was true when."""

from __future__ import annotations

import os

from device_process import DeviceProcess

from memacct.sim import SimulatedGpu

SCHEDULES_COUNT = int(os.environ.get("MEMACCT_SCHEDULES", "1500"))
TENANTS_COUNT = 4
SEED = int(os.environ.get("MEMACCT_SCHEDULES_SEED", "4"))


def test_no_consistent_reading_of_values_that_never_held_together() -> None:
    """Neighbours allocate, free, exit and appear between any two driver calls."""
    machine = SimulatedGpu(total_bytes="32GiB", reserved_bytes="500MiB")
    with machine as gpu, DeviceProcess(gpu) as ours:
        tenants = [gpu.tenant(f"{2 * n + 2}MiB") for n in range(TENANTS_COUNT)]
        ours.run("context()")
        pids = [tenant.pid for tenant in tenants]
        found = ours.run(
            f"""
import schedules
outcome = schedules.run({SEED}, {SCHEDULES_COUNT}, {pids}, os.getpid())
result = vars(outcome) | {{"wrong": [len(outcome.wrong), outcome.wrong[:3]]}}
"""
        )
        print(found["counts"], found["attempts"])
        assert found["wrong"] == [0, []]
        # Both kinds were seen, and a collect that was torn.
        assert found["counts"]["consistent"] > SCHEDULES_COUNT / 2
        assert found["counts"]["inconsistent"] > SCHEDULES_COUNT / 100
        assert found["attempts"]["2"] > SCHEDULES_COUNT / 10
        for tenant in tenants:
            tenant.close()
