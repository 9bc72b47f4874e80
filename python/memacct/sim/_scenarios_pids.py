"""Scenarios of real PID namespaces, and of the lists that a process stands in."""

from __future__ import annotations

from memacct._units import MIB
from memacct.sim._faults import Faults
from memacct.sim._scenario import CARD, Scenario, ScenarioTenant

_NEIGHBOUR = (ScenarioTenant(holds="3GiB"),)
_NEIGHBOUR_OF_MPS = (ScenarioTenant(holds="3GiB", lists=("mps",)),)
# A container: a PID namespace and a procfs of its own. The machine's procfs stays where only the
# simulated driver looks for it; the mounts are the programs' own, and end with them.
_MACHINE_PROC = "/mnt"
_CONTAINER = (
    *("unshare", "-m", "sh", "-c", f'mount --bind /proc {_MACHINE_PROC} && exec "$@"', "sh"),
    *("unshare", "-pf", "--kill-child", "--mount-proc"),
)


def _contained(name: str, description: str, faults: Faults) -> Scenario:
    return Scenario(
        name=name,
        description=description,
        settings=CARD,
        faults=faults,
        tenants=_NEIGHBOUR,
        env={"MEMACCT_SIM_HOST_PROC": _MACHINE_PROC},
        prefix=_CONTAINER,
    )


NAMESPACES = (
    _contained(
        "namespace-machine-pids",
        "a real PID namespace, the machine's own numbers for everyone: drivers up to 530",
        Faults(pids="outer"),
    ),
    _contained(
        "namespace-zero-bytes",
        "a real PID namespace, its processes alone, each with 0 bytes: drivers 535.113 to 560",
        Faults(pid_bytes={"all": 0}),
    ),
    _contained(
        "namespace-own-pids",
        "a real PID namespace, its processes alone, with their bytes: drivers from 565.57",
        Faults(),
    ),
)

LISTS = (
    Scenario(
        name="mps-clients",
        description="clients of MPS, Volta and later: in the MPS list, with memory of their own",
        settings=CARD,
        tenants=_NEIGHBOUR_OF_MPS,
        env={"MEMACCT_SIM_LISTS": "mps"},
    ),
    Scenario(
        name="two-lists",
        description="in the compute and the graphics list, with less told in the latter",
        settings=CARD,
        faults=Faults(list_bytes={"graphics": 4 * MIB}),
        tenants=_NEIGHBOUR,
        env={"MEMACCT_SIM_LISTS": "compute,graphics"},
    ),
)

ALL = (*NAMESPACES, *LISTS)
