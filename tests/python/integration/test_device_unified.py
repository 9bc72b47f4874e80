"""Devices that share their host's memory, without a context and beside the real kernel."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from device_process import DeviceProcess

from memacct._units import GIB, MIB
from memacct.sim import SimulatedGpu, scenarios
from memacct.sim._scenarios_unified import QUIET_HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
HOST_TERMS = ("withheld_bytes", "page_cache_bytes", "host_processes_bytes")
TERMS = ("free_bytes", "own_bytes", "tree_bytes", "foreign_bytes", "unattributed_bytes")


def can_mount() -> bool:
    command = ["unshare", "-m", "mount", "--bind", "/proc/uptime", "/proc/loadavg"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


needs_mounts = pytest.mark.skipif(not can_mount(), reason="no right to mount over a file of /proc")


@pytest.fixture
def real() -> Iterator[SimulatedGpu]:
    """An integrated device of a machine whose memory is the one at hand."""
    with SimulatedGpu(total_bytes="2TiB", integrated=True) as machine:
        yield machine


@needs_mounts
@pytest.mark.parametrize("setup", ["pass", "call('cuInit', 0)"])
@pytest.mark.parametrize("name", ["gb10", "gb10-wrong-totals"])
def test_without_a_context_the_host_tells(name: str, setup: str) -> None:
    """Before cuInit there is no attribute 18 either: the compute capability tells."""
    with scenarios.open(name) as gpu, DeviceProcess(gpu) as process:
        process.run(setup)
        reading = process.read()
        assert reading["source"] == "unified"
        assert reading["total_bytes"] == 119 * GIB
        assert reading["free_bytes"] == 100 * GIB
        assert reading["unified"]["free_source"] == "host_free"
        assert reading["unified"]["cuda_free_bytes"] is None
        assert reading["foreign_bytes"] == 3 * GIB + CONTEXT_BYTES
        assert reading["own_bytes"] == 0
        assert gpu.status().devices[0].processes[0].pid == gpu.tenants[0].pid


def test_where_the_driver_does_not_tell_the_capability_does() -> None:
    fault = "cuDeviceGetAttribute: error=999"
    for integrated, source in ((True, "unified"), (False, "nvml_v2")):
        with (
            SimulatedGpu(total_bytes="1GiB", integrated=integrated) as gpu,
            DeviceProcess(gpu, faults=fault) as process,
        ):
            process.run("context()")
            assert process.read()["source"] == source


def host_bytes(process: DeviceProcess) -> dict[str, int]:
    found: dict[str, int] = process.run(
        """
with open("/proc/meminfo") as lines:
    result = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
"""
    )
    return found


def test_the_terms_are_the_real_machines(real: SimulatedGpu) -> None:
    with real.tenant("1GiB"), DeviceProcess(real) as process:
        process.run(f"context(); allocate({64 * MIB})")
        before, reading, after = (
            host_bytes(process),
            process.read(),
            host_bytes(process),
        )
        unified = reading["unified"]
        assert unified["host_total_bytes"] == reading["total_bytes"] == before["MemTotal"]
        # Two sources of one kernel: what others of this machine do meanwhile is the margin.
        names = ("MemFree", "AnonPages", "Shmem")
        margin = 64 * MIB + 2 * max(abs(before[name] - after[name]) for name in names)
        assert unified["host_free_bytes"] == pytest.approx(after["MemFree"], abs=margin)
        processes = after["AnonPages"] + after["Shmem"]
        assert unified["host_processes_bytes"] == pytest.approx(processes, abs=margin)
        sources = ("host_free_bytes", "host_available_bytes", "cuda_free_bytes")
        assert reading["free_bytes"] == min(unified[name] for name in sources)
        terms = [reading[name] for name in TERMS] + [unified[name] for name in HOST_TERMS]
        assert sum(terms) == reading["total_bytes"]
        assert reading["own_bytes"] == CONTEXT_BYTES + 64 * MIB
        assert reading["foreign_bytes"] == GIB + CONTEXT_BYTES


def test_cuda_tells_least_where_the_device_has_least(real: SimulatedGpu) -> None:
    with SimulatedGpu(total_bytes="1GiB", integrated=True) as gpu, DeviceProcess(gpu) as process:
        process.run("context(current=False)")
        reading = process.read()
        assert reading["unified"]["free_source"] == "cuda"
        assert reading["free_bytes"] == GIB - CONTEXT_BYTES
        # A failing cuMemGetInfo ("device busy" on GB10) leaves the host's word.
    with DeviceProcess(real, faults="cuMemGetInfo_v2: error=46") as process:
        process.run("context()")
        reading = process.read()
        assert reading["unified"]["cuda_free_bytes"] is None
        assert reading["unified"]["free_source"] in ("host_free", "host_available")


@needs_mounts
def test_a_budget_keeps_to_what_is_free() -> None:
    """vllm#46307: 0.70 of 119 GiB is 83; with 112 in use in the end, the machine stood still."""
    source = f"""
from memacct.profile import profile_pass
context()
with profile_pass(0, budget_bytes={83 * GIB}, margin_bytes={GIB}) as profiling:
    allocate({20 * GIB})
result = profiling.result.budget
result = [result.final_bytes, result.clamped, result.reason]
"""
    host = QUIET_HOST.replace("MemFree:", "Unused:") + f"MemFree: {27 * GIB // 1024} kB\n"
    squeezed = replace(scenarios.find("gb10"), files={"/proc/meminfo": host})
    with SimulatedGpu.scenario(squeezed) as gpu, DeviceProcess(gpu) as process:
        final, clamped, reason = process.run(source)
    assert (final, clamped) == (26 * GIB, True)
    assert "memory is the machine's" in reason
