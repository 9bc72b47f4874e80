"""NVML's three lists of processes: each process once, with the largest number and every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct._units import GIB, MIB
from memacct.sim import CallFault, Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
KINDS = {"compute": "Compute", "graphics": "Graphics", "mps": "MPSCompute"}


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", reserved_bytes="500MiB") as machine:
        yield machine


def function(kind: str, version: str) -> str:
    return f"nvmlDeviceGet{KINDS[kind]}RunningProcesses{version}"


def without(*versions: str) -> tuple[str, ...]:
    return tuple(function(kind, version) for kind in KINDS for version in versions)


def kinds_of(reading: dict[str, Any]) -> dict[int, list[str]]:
    return {row["pid"]: row["kinds"] for row in reading["processes"]}


VERSIONS = {"_v2": (), "_v3": without("_v2"), "": without("_v2", "_v3")}


@pytest.mark.parametrize("version", VERSIONS)
def test_each_list_counts_and_nobody_twice(gpu: SimulatedGpu, version: str) -> None:
    faults = Faults(missing=VERSIONS[version])
    with (
        gpu.tenant("1GiB", lists=["graphics"]) as drawing,
        gpu.tenant("2GiB", lists=["mps"]) as client,
        gpu.tenant("3GiB", lists=["compute", "graphics", "mps"]) as both,
        DeviceProcess(gpu, faults=faults, env={"MEMACCT_SIM_LISTS": "mps,compute"}) as process,
    ):
        process.run("context()")
        reading = process.read()
        assert kinds_of(reading) == {
            drawing.pid: ["graphics"],
            client.pid: ["mps"],
            both.pid: ["compute", "graphics", "mps"],
            process.pid: ["compute", "mps"],
        }
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["foreign_bytes"] == 6 * GIB + 3 * CONTEXT_BYTES
        assert reading["unattributed_bytes"] == 0
        symbols = process.run("result = list(_core.driver_diagnosis()['nvml']['record_bytes'])")
        assert set(symbols) == {function(kind, version) for kind in KINDS}


@pytest.mark.parametrize(("told", "own_bytes"), [(8 * MIB, CONTEXT_BYTES), (None, CONTEXT_BYTES)])
def test_of_two_numbers_the_larger_counts(
    gpu: SimulatedGpu, told: int | None, own_bytes: int
) -> None:
    faults = Faults(list_bytes={"graphics": told})
    with DeviceProcess(
        gpu, faults=faults, env={"MEMACCT_SIM_LISTS": "graphics,compute"}
    ) as process:
        process.run("context()")
        reading = process.read()
        assert reading["own_bytes"] == own_bytes
        assert kinds_of(reading) == {process.pid: ["compute", "graphics"]}


@pytest.mark.parametrize("kind", ["graphics", "mps"])
@pytest.mark.parametrize("code", [3, 13])
def test_a_list_that_this_device_does_not_have(gpu: SimulatedGpu, kind: str, code: int) -> None:
    """NOT_SUPPORTED: there are no such processes. The other lists count."""
    fault = CallFault(function=function(kind, "*"), error=code)
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=Faults(calls=[fault])) as process:
        process.run("context()")
        reading = process.read()
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["foreign_bytes"] == GIB + CONTEXT_BYTES


@pytest.mark.parametrize("kind", ["graphics", "mps"])
def test_a_list_that_fails_leaves_the_others_unknown(gpu: SimulatedGpu, kind: str) -> None:
    fault = CallFault(function=function(kind, "*"), error=4)
    faults = Faults(calls=[fault])
    with gpu.tenant("1GiB", lists=[kind]), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        reading = process.read()
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["foreign_bytes"] is None
        assert reading["unattributed_bytes"] is None
        assert "returned 4" in reading["attribution"]["reason"]


@pytest.mark.parametrize("kind", ["graphics", "mps"])
def test_a_driver_without_the_symbols(gpu: SimulatedGpu, kind: str) -> None:
    missing = [function(kind, version) for version in ("", "_v2", "_v3")]
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=Faults(missing=missing)) as process:
        process.run("context()")
        assert process.read()["foreign_bytes"] == GIB + CONTEXT_BYTES


@pytest.mark.parametrize("error", [3, 13])
def test_without_the_compute_list_who_is_missing_is_unknown(gpu: SimulatedGpu, error: int) -> None:
    fault = CallFault(function=function("compute", "*"), error=error)
    with (
        gpu.tenant("1GiB", lists=["graphics"]),
        DeviceProcess(gpu, faults=Faults(calls=[fault])) as process,
    ):
        process.run("context()")
        reading = process.read()
        assert reading["own_bytes"] is None
        assert reading["foreign_bytes"] is None
        assert f"returned {error}" in reading["attribution"]["reason"]
