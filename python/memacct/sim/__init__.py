"""A simulated GPU: real NVML, driver and runtime libraries over one shared memory account.

Several real processes share its devices. It needs no GPU, and shows what memacct and the
engines do beside neighbours that move, with faults of the driver on request.

    with SimulatedGpu(total_bytes="32GiB") as gpu, gpu.tenant("7GiB") as neighbour:
        neighbour.when(other_process_bytes="600MiB", then="free")
        gpu.run([sys.executable, "program.py"], check=True)

Machines as people have met them have names: ``SimulatedGpu.scenario("host-pids")``, and
``memacct.sim.scenarios`` lists them.
"""

from __future__ import annotations

from memacct.sim._build import build_runtime
from memacct.sim._faults import CallFault, Faults
from memacct.sim._gpu import Costs, SimulatedGpu
from memacct.sim._status import DeviceStatus, MachineStatus, ProcessStatus
from memacct.sim._tenant import Tenant, TenantAction, TenantError

__all__ = [
    "CallFault",
    "Costs",
    "DeviceStatus",
    "Faults",
    "MachineStatus",
    "ProcessStatus",
    "SimulatedGpu",
    "Tenant",
    "TenantAction",
    "TenantError",
    "build_runtime",
]
