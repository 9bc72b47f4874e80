"""Scenarios of drivers: what their process lists say, in which records, and what they lack."""

from __future__ import annotations

from memacct.sim._faults import CallFault, Faults
from memacct.sim._scenario import CARD, Scenario, ScenarioTenant

NEIGHBOUR = (ScenarioTenant(holds="3GiB"),)
_KINDS = ("Compute", "Graphics", "MPSCompute")


def _lists(*versions: str) -> tuple[str, ...]:
    return tuple(f"nvmlDeviceGet{kind}RunningProcesses{v}" for v in versions for kind in _KINDS)


def _driver(name: str, description: str, faults: Faults) -> Scenario:
    return Scenario(
        name=name, description=description, settings=CARD, faults=faults, tenants=NEIGHBOUR
    )


PID_ERAS = (
    _driver("bare-host", "PIDs as they are: a bare host, or --pid=host, any driver", Faults()),
    _driver(
        "host-pids",
        "every tenant, by the host's PIDs: a container, drivers up to 530",
        Faults(pids="host"),
    ),
    _driver(
        "zero-bytes",
        "our own PIDs alone, each with 0 bytes: a container, drivers 535.113 to 560",
        Faults(pids="hidden", pid_bytes={"all": 0}),
    ),
    _driver(
        "container-pids",
        "our own PIDs with their bytes, other containers hidden: drivers from 565.57",
        Faults(pids="hidden"),
    ),
    _driver(
        "all-not-available",
        "no process's bytes are told (all ones): WSL2, WDDM",
        Faults(pid_bytes={"all": None}),
    ),
    _driver(
        "own-not-available",
        "our bytes are not told (all ones), the neighbour's are",
        Faults(pid_bytes={"self": None}),
    ),
    _driver(
        "lists-refused",
        "every process list says NO_PERMISSION, the totals are told",
        Faults(calls=[CallFault(function="nvmlDeviceGetComputeRunningProcesses*", error=4)]),
    ),
)

RECORDS = (
    _driver(
        "records-16-bytes",
        "only the lists without suffix, of 16-byte records: drivers up to 450",
        Faults(missing=_lists("_v2", "_v3")),
    ),
    _driver(
        "records-v3-16-bytes",
        "_v3 writes 16-byte records: reported of 550.127.08 in a container",
        Faults(record_bytes={3: 16}, missing=_lists("_v2")),
    ),
    _driver(
        "records-v3-24-bytes",
        "_v3 writes the 24 bytes that its header says: drivers from 535.104",
        Faults(record_bytes={3: 24}, missing=_lists("_v2")),
    ),
    _driver(
        "records-v3-32-bytes",
        "_v3 writes 32-byte records under the same name: 535.43 to 535.86",
        Faults(record_bytes={3: 32}, missing=_lists("_v2")),
    ),
    _driver(
        "no-v3",
        "_v3 is missing, _v2 is there: 535.98",
        Faults(missing=_lists("_v3")),
    ),
    _driver(
        "no-memory-info-v2",
        "totals without the reserve told apart: drivers before 510",
        Faults(missing=("nvmlDeviceGetMemoryInfo_v2",)),
    ),
)

ALL = (*PID_ERAS, *RECORDS)
