"""Whose record it is, in the worlds that drivers and containers make."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct._units import GIB, MIB
from memacct.sim import Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
HOST = Faults(pids="host")


def can_unshare() -> bool:
    tool = shutil.which("unshare")
    return (
        tool is not None
        and subprocess.run([tool, "-pf", "true"], check=False, capture_output=True).returncode == 0
    )


needs_unshare = pytest.mark.skipif(not can_unshare(), reason="no right to make a pid namespace")


def hiding_loadavg(file: Path) -> list[str]:
    """Returns a prefix under which `file` lies over /proc/loadavg."""
    script = f'mount --bind {shlex.quote(str(file))} /proc/loadavg && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, "sh"]


def can_mount() -> bool:
    command = [*hiding_loadavg(Path("/proc/uptime")), "true"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


needs_mounts = pytest.mark.skipif(not can_mount(), reason="no right to mount over a file of /proc")


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", reserved_bytes="500MiB") as machine:
        yield machine


def identify(process: DeviceProcess) -> dict[str, Any]:
    attribution: dict[str, Any] = process.run("result = attempt(_core.identify, 0)")
    return attribution


# ---------------------------------------------------------------- foreign numbers


def test_host_numbers_are_unknown_until_identified(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=HOST) as process:
        process.run("context()")
        before = process.read()
        assert before["own_bytes"] is None
        assert before["foreign_bytes"] is None
        assert before["unattributed_bytes"] is None
        assert {row["owner"] for row in before["processes"]} == {"unknown"}
        assert before["attribution"]["source"] == "none"
        assert before["attribution"]["own_bounds_bytes"] == [None, before["device_used_bytes"]]

        attribution = identify(process)
        assert attribution["source"] == "fingerprint"
        assert attribution["own_pid"] != process.pid
        after = process.read()
        assert after["attribution"] == attribution
        assert after["own_bytes"] == CONTEXT_BYTES
        assert after["foreign_bytes"] == GIB + CONTEXT_BYTES
        assert after["unattributed_bytes"] == 0
        assert after["free_bytes"] == before["free_bytes"]

        process.run("_core.forget_identity()")
        assert process.read()["own_bytes"] is None


def test_the_allocators_reserve_bounds_what_is_unknown(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu, faults=HOST) as process:
        process.run(f"context(); allocate({GIB})")
        reading = process.run(f"result = reading(0, allocator_reserved_bytes={GIB})")
        assert reading["own_bytes"] is None
        assert reading["attribution"]["source"] == "allocator_bound"
        assert reading["attribution"]["own_bounds_bytes"] == [GIB, GIB + CONTEXT_BYTES]
        (reading,) = process.run(
            f"uuid = reading()['uuid']\n"
            f"result = attempt(_core.read_devices, [0], allocator_reserved={{uuid: {GIB}}})"
        )
        assert reading["attribution"]["source"] == "allocator_bound"


def test_identity_serves_every_device() -> None:
    with (
        SimulatedGpu(count=2) as gpu,
        gpu.tenant("1GiB", device=1),
        DeviceProcess(gpu, faults=HOST) as process,
    ):
        process.run("context(1); context(0)")
        assert identify(process)["source"] == "fingerprint"
        for device in (0, 1):
            assert process.read(device)["own_bytes"] == CONTEXT_BYTES


def test_neighbours_that_move_do_not_mislead(gpu: SimulatedGpu) -> None:
    """A neighbour changes in every list call, by amounts that the fingerprint uses too."""
    changes = "; ".join(
        f"nvmlDeviceGetComputeRunningProcesses_v2: charge={sign}{size}MiB after={n} for=1"
        for n, (sign, size) in enumerate(
            [("+", 6), ("-", 6), ("+", 14), ("-", 14), ("+", 22), ("+", 10), ("-", 10)] * 8
        )
    )
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=f"pids: host; {changes}") as process:
        process.run(f"context(); allocate({3 * GIB})")
        attribution = identify(process)
        assert attribution["source"] == "fingerprint"
        assert process.read()["own_bytes"] == 3 * GIB + CONTEXT_BYTES


def test_a_tenant_that_allocates_all_the_time_does_not_mislead(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as neighbour, DeviceProcess(gpu, faults=HOST) as process:
        neighbour.run(
            """
import threading
context()
stop = threading.Event()
def move():
    call("cuInit", 0)
    while not stop.is_set():
        allocate(14 * 2**20)
        release()
mover = threading.Thread(target=move)
mover.start()
"""
        )
        process.run(f"context(); allocate({GIB})")
        assert identify(process)["source"] == "fingerprint"
        assert process.read()["own_bytes"] == GIB + CONTEXT_BYTES
        assert neighbour.run("moving = mover.is_alive(); stop.set(); mover.join(); result = moving")


def test_no_identity_without_a_context(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu, faults=HOST) as process:
        process.run("call('cuInit', 0)")
        attribution = identify(process)
        assert attribution["source"] == "none"
        assert "no live primary context" in attribution["reason"]
        assert gpu.status().devices[0].processes == ()


@pytest.mark.parametrize(("free_mib", "found"), [(255, False), (256, True)])
def test_no_allocation_when_free_memory_is_short(
    gpu: SimulatedGpu, free_mib: int, found: bool
) -> None:
    with gpu.tenant() as tenant, DeviceProcess(gpu, faults=HOST) as process:
        process.run("context()")
        gpu.change_unattributed(MIB)  # free memory is then an odd number of MiB
        tenant.allocate(process.read()["free_bytes"] - free_mib * MIB - free_mib % 2 * MIB)
        gpu.change_unattributed(MIB if free_mib % 2 else -MIB)
        free_bytes = process.read()["free_bytes"]
        assert free_bytes // MIB in (free_mib, free_mib + 1, free_mib - 1)
        attribution = identify(process)
        assert (attribution["source"] == "fingerprint") is (free_bytes >= 256 * MIB) is found
        if not found:
            assert "MiB are free" in attribution["reason"]
        assert process.read()["free_bytes"] == free_bytes


def test_identity_is_forgotten_after_fork(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu, faults=HOST) as process:
        process.run("context()")
        assert identify(process)["source"] == "fingerprint"
        child = process.run('result = in_fork("result = reading()")')["result"]
        assert child["own_bytes"] == 0
        assert child["attribution"]["source"] == "none"
        assert process.read()["own_bytes"] == CONTEXT_BYTES


# ---------------------------------------------------------------- what the driver hides


@pytest.mark.parametrize(("bytes_told", "word"), [(None, "does not tell"), (0, "0 bytes")])
def test_our_record_without_bytes(gpu: SimulatedGpu, bytes_told: int | None, word: str) -> None:
    faults = Faults(pid_bytes={"self": bytes_told})
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        for _ in range(2):
            reading = process.read()
            assert reading["own_bytes"] is None
            assert reading["unattributed_bytes"] is None
            assert reading["foreign_bytes"] == GIB + CONTEXT_BYTES
            assert reading["attribution"]["own_pid"] == process.pid
            assert word in reading["attribution"]["reason"]
            assert identify(process)["source"] == "none"


@pytest.mark.parametrize("bytes_told", [None, 0])
def test_a_world_without_numbers(gpu: SimulatedGpu, bytes_told: int | None) -> None:
    faults = Faults(pid_bytes={"all": bytes_told}, pids="host")
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        attribution = identify(process)
        assert attribution["source"] == "none"
        assert attribution["reason"]
        reading = process.read()
        assert reading["own_bytes"] is None
        assert reading["foreign_bytes"] is None


def test_a_neighbour_without_bytes_makes_foreign_unknown(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB") as tenant, gpu.tenant("2GiB"):
        faults = Faults(pid_bytes={tenant.pid: None})
        with DeviceProcess(gpu, faults=faults) as process:
            process.run("context()")
            reading = process.read()
            assert reading["own_bytes"] == CONTEXT_BYTES
            assert reading["foreign_bytes"] is None
            assert reading["unattributed_bytes"] is None


def test_listed_with_0_bytes_is_unknown_for_everybody(gpu: SimulatedGpu) -> None:
    """Drivers 535.113 to 560 list the right processes of a container, each with 0 bytes."""
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=Faults(pid_bytes={"all": 0})) as process:
        process.run(f"child = in_tree({64 * MIB}); context()")
        reading = process.read()
        for name in ("own", "tree", "foreign", "unattributed"):
            assert reading[f"{name}_bytes"] is None
        assert sorted(row["owner"] for row in reading["processes"]) == ["foreign", "own", "tree"]
        for who in ("this process", "a child", "a neighbour"):
            assert f"lists {who} (pid" in reading["attribution"]["reason"]


def test_hidden_neighbours_are_unattributed(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=Faults(pids="hidden")) as process:
        process.run("context()")
        reading = process.read()
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["foreign_bytes"] == 0
        assert reading["unattributed_bytes"] == GIB + CONTEXT_BYTES


# ---------------------------------------------------------------- the tree


def test_descendants_are_the_tree(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu) as process:
        process.run(f"child = in_tree({MIB * 64})")
        one = CONTEXT_BYTES + 64 * MIB
        without = process.read()  # this process itself has no driver
        assert (without["own_bytes"], without["tree_bytes"]) == (0, one)
        assert without["foreign_bytes"] == GIB + CONTEXT_BYTES
        process.run("context()")
        assert process.read()["tree_bytes"] == one
        process.run("child.end()")
        assert process.read()["tree_bytes"] == 0


def test_out_of_file_descriptors_nobody_counts_as_gone(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu) as process:
        process.run("context(); reading()")
        process.run(f"child = in_tree({64 * MIB})")
        starved = process.run(
            """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
result = reading()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
"""
        )
        assert starved["own_bytes"] == CONTEXT_BYTES
        assert (starved["tree_bytes"], starved["foreign_bytes"]) == (None, None)
        assert "looked up" in starved["attribution"]["reason"]
        reading = process.read()
        assert reading["tree_bytes"] == CONTEXT_BYTES + 64 * MIB
        assert reading["foreign_bytes"] == GIB + CONTEXT_BYTES


def test_a_registered_sibling_is_in_the_tree(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as sibling, DeviceProcess(gpu) as process:
        sibling.run(f"context(); child = in_tree({MIB * 64})")
        process.run("context()")
        assert process.read()["foreign_bytes"] == 2 * CONTEXT_BYTES + 64 * MIB
        process.run(f"_core.add_tree_root({sibling.pid})")
        reading = process.read()
        assert reading["tree_bytes"] == 2 * CONTEXT_BYTES + 64 * MIB
        assert reading["foreign_bytes"] == 0
        error = process.run("result = attempt(_core.add_tree_root, 4194303)")
        assert error["raised"] == "ValueError"


def test_foreign_numbers_and_children(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=HOST) as process:
        process.run("child = in_tree(0, context=False)")
        process.run("context()")
        identify(process)
        idle = process.read()  # a child that has no device open
        assert (idle["tree_bytes"], idle["foreign_bytes"]) == (0, GIB + CONTEXT_BYTES)
        process.run(f"worker = in_tree({2 * MIB})")
        busy = process.read()
        assert busy["own_bytes"] == CONTEXT_BYTES
        assert (busy["tree_bytes"], busy["foreign_bytes"]) == (None, None)
        assert "children" in busy["attribution"]["reason"]


@needs_mounts
def test_a_kernel_that_counts_no_pids_hides_no_children(gpu: SimulatedGpu, tmp_path: Path) -> None:
    """gVisor's /proc/loadavg ends in 0, whoever was made meanwhile."""
    file = tmp_path / "loadavg"
    file.write_text("0.00 0.00 0.00 0/0 0\n")
    with (
        gpu.tenant("1GiB"),
        DeviceProcess(gpu, faults=HOST, prefix=hiding_loadavg(file)) as process,
    ):
        process.run("context()")
        identify(process)
        assert process.read()["tree_bytes"] == 0
        process.run(f"worker = in_tree({2 * MIB})")
        assert process.read()["tree_bytes"] is None


# ---------------------------------------------------------------- real pid namespaces


@needs_unshare
@pytest.mark.parametrize("mount", [["--mount-proc"], []])
def test_in_a_pid_namespace_of_its_own(gpu: SimulatedGpu, mount: list[str]) -> None:
    prefix = ["unshare", "-pf", *mount]
    with gpu.tenant("1GiB"), DeviceProcess(gpu, prefix=prefix) as process:
        assert process.pid < os.getpid()
        process.run("context()")
        reading = process.read()
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["attribution"]["source"] == "pid"
        assert reading["foreign_bytes"] == 0  # not visible from here
        assert reading["unattributed_bytes"] == GIB + CONTEXT_BYTES
        found = process.run("result = _core.driver_diagnosis()['process']")
        assert found["initial_pid_namespace"] is False
        assert bool(found["outer_pids"]) is not bool(mount)
        # Here a pid may be a stranger's, so identify() makes sure; the answer keeps its name.
        assert identify(process)["source"] == "pid"
        assert process.run("result = _core.driver_diagnosis()['process']['identified_pid']") == (
            process.pid
        )


@needs_unshare
def test_less_than_the_allocator_holds_is_a_stranger(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu, prefix=["unshare", "-pf", "--mount-proc"]) as process:
        process.run("context()")
        reading = process.run(f"result = reading(0, allocator_reserved_bytes={500 * MIB})")
        assert reading["own_bytes"] is None
        assert "another process's number" in reading["attribution"]["reason"]
