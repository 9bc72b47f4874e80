"""MIG: an instance's own memory and processes, never the whole GPU's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct._units import GIB, MIB
from memacct.sim import Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.sim import DeviceStatus

CONTEXT_BYTES = 400 * MIB
MACHINE: dict[str, Any] = {
    "total_bytes": "141GiB",
    "name": "NVIDIA H200",
    "reserved_bytes": "1GiB",
    "mig": ["16GiB", 0, "32GiB"],
    "mig_reserved_bytes": "100MiB",
}


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(**MACHINE) as machine:
        yield machine


def assert_true(reading: dict[str, Any], truth: DeviceStatus) -> None:
    """The equation holds to the byte, and its terms are the machine's own."""
    assert reading["uuid"] == truth.uuid
    assert reading["consistent"]
    assert reading["total_bytes"] == truth.total_bytes
    assert reading["free_bytes"] == truth.free_bytes
    assert reading["reserved_bytes"] == truth.reserved_bytes
    assert reading["unattributed_bytes"] == truth.unattributed_bytes
    terms = ("free", "reserved", "own", "tree", "foreign", "unattributed")
    assert sum(reading[f"{term}_bytes"] for term in terms) == reading["total_bytes"]


def test_instances_are_listed_after_their_device(gpu: SimulatedGpu) -> None:
    whole, small, large = gpu.status().devices + gpu.status().instances
    with DeviceProcess(gpu) as process:
        rows = process.run("result = [d.to_dict() for d in _core.list_devices()]")
        keys = ("uuid", "index", "name", "parent_uuid", "gpu_instance_id", "compute_instance_id")
        assert [[row[key] for key in keys] for row in rows] == [
            [whole.uuid, 0, "NVIDIA H200", None, None, None],
            [small.uuid, None, "NVIDIA H200 MIG 1g.16gb", whole.uuid, 7, 0],
            [large.uuid, None, "NVIDIA H200 MIG 1g.32gb", whole.uuid, 9, 0],
        ]
        assert len({row["pci_bus_id"] for row in rows}) == 1
        readings = process.run("result = attempt(_core.read_devices, 'all')")
        assert [(r["uuid"], r["parent_uuid"], r["total_bytes"]) for r in readings] == [
            (whole.uuid, None, 141 * GIB),
            (small.uuid, whole.uuid, 16 * GIB),
            (large.uuid, whole.uuid, 32 * GIB),
        ]


def test_a_process_on_an_instance_has_its_memory_not_the_device_s(gpu: SimulatedGpu) -> None:
    """141 GB were taken for the 16 GB that an engine had (vllm#39874, #50463)."""
    whole, small = gpu.status().devices[0], gpu.status().instances[0]
    with (
        gpu.tenant("3GiB", device=small.uuid),
        gpu.tenant("20GiB", device=gpu.status().instances[1].uuid),
        DeviceProcess(gpu, env={"CUDA_VISIBLE_DEVICES": small.uuid}) as process,
    ):
        assert process.read(0)["total_bytes"] == 16 * GIB  # its driver is not initialised
        process.run(f"context(); allocate({GIB})")
        keys = (0, small.uuid, small.uuid.upper(), small.uuid[:-2], f"MIG-{whole.uuid}/7/0")
        readings = [process.read(key) for key in keys]
        readings += process.run("result = attempt(_core.read_devices, 'auto')")
        for reading in readings:
            assert_true(reading, gpu.status().instances[0])
            assert reading["parent_uuid"] == whole.uuid
            assert reading["cuda_ordinal"] == 0
            assert reading["own_bytes"] == GIB + CONTEXT_BYTES
            assert reading["foreign_bytes"] == 3 * GIB + CONTEXT_BYTES
            ids = {(p["gpu_instance_id"], p["compute_instance_id"]) for p in reading["processes"]}
            assert ids == {(7, 0)}
        joined = process.read(0, with_cuda=True)
        assert joined["cuda_total_bytes"] == 16 * GIB
        assert joined["cuda_free_bytes"] == joined["free_bytes"]


def test_two_instances_each_with_its_own_equation(gpu: SimulatedGpu) -> None:
    small, large = gpu.status().instances
    with (
        DeviceProcess(gpu, env={"CUDA_VISIBLE_DEVICES": small.uuid}) as one,
        DeviceProcess(gpu, env={"CUDA_VISIBLE_DEVICES": large.uuid}) as other,
        gpu.tenant("2GiB", device=small.uuid),
        gpu.tenant("5GiB", device=large.uuid) as tenant,
    ):
        one.run(f"context(); allocate({GIB})")
        other.run(f"context(); allocate({7 * GIB}); child = in_tree({3 * GIB})")
        gpu.change_unattributed(GIB, device=2)
        for _ in range(2):
            status = gpu.status().instances
            assert_true(one.read(0), status[0])
            reading = other.read(0)
            assert_true(reading, status[1])
            assert reading["own_bytes"] == 7 * GIB + CONTEXT_BYTES
            assert reading["tree_bytes"] == 3 * GIB + CONTEXT_BYTES
            assert reading["foreign_bytes"] == tenant.held_bytes + CONTEXT_BYTES
            tenant.allocate("1GiB")
        other.run("child.end()")
        assert other.read(0)["tree_bytes"] == 0


def test_who_is_on_the_device_is_not_told_without_permission(gpu: SimulatedGpu) -> None:
    whole, small = gpu.status().devices[0], gpu.status().instances[0]
    with DeviceProcess(gpu, env={"CUDA_VISIBLE_DEVICES": small.uuid}) as process:
        process.run("context()")
        reading = process.read(whole.uuid)
        truth = gpu.status().devices[0]
        assert reading["total_bytes"] == 141 * GIB
        assert reading["free_bytes"] == truth.free_bytes
        assert reading["device_used_bytes"] == CONTEXT_BYTES
        assert reading["reserved_bytes"] == GIB + 200 * MIB
        for term in ("own_bytes", "foreign_bytes", "unattributed_bytes"):
            assert reading[term] is None
        assert reading["processes"] == []
        assert reading["attribution"]["source"] == "none"
        assert reading["attribution"]["own_bounds_bytes"] == [None, CONTEXT_BYTES]
        reason = reading["attribution"]["reason"]
        assert "Insufficient Permissions" in reason
        assert "MIG" in reason


def test_with_permission_each_process_s_instance_is_told() -> None:
    with SimulatedGpu(**MACHINE, mig_monitor=True) as gpu:
        small, large = gpu.status().instances
        with (
            gpu.tenant("2GiB", device=large.uuid) as tenant,
            DeviceProcess(gpu, env={"CUDA_VISIBLE_DEVICES": small.uuid}) as process,
        ):
            process.run(f"context(); allocate({GIB})")
            reading = process.read(gpu.status().devices[0].uuid)
            assert_true(reading, gpu.status().devices[0])
            assert reading["own_bytes"] == GIB + CONTEXT_BYTES
            assert reading["foreign_bytes"] == 2 * GIB + CONTEXT_BYTES
            places = {p["pid"]: p["gpu_instance_id"] for p in reading["processes"]}
            assert places == {process.pid: 7, tenant.pid: 9}


def test_without_mig_there_is_no_instance() -> None:
    with SimulatedGpu() as gpu, gpu.tenant("1GiB"), DeviceProcess(gpu) as process:
        reading = process.read(0)
        assert reading["parent_uuid"] is None
        (row,) = reading["processes"]
        assert row["gpu_instance_id"] is None
        assert row["compute_instance_id"] is None


@pytest.mark.parametrize("stride", [16, 24, 32])
@pytest.mark.parametrize("tenants_count", [0, 1, 3])
def test_records_of_every_size_beside_instance_ids(stride: int, tenants_count: int) -> None:
    faults = Faults(record_bytes={2: stride})
    with SimulatedGpu(**MACHINE) as gpu:
        small = gpu.status().instances[0]
        tenants = [gpu.tenant("1GiB", device=small.uuid) for _ in range(tenants_count)]
        with DeviceProcess(gpu, faults=faults, env={"CUDA_VISIBLE_DEVICES": small.uuid}) as process:
            process.run(f"context(); allocate({2 * GIB})")
            reading = process.read(0)
            assert_true(reading, gpu.status().instances[0])
            assert reading["own_bytes"] == 2 * GIB + CONTEXT_BYTES
            assert len(reading["processes"]) == len(tenants) + 1
            ids = {p["gpu_instance_id"] for p in reading["processes"]}
            assert ids == ({None} if stride == 16 else {7})


def test_a_driver_that_tells_the_device_s_uuid_claims_nothing(gpu: SimulatedGpu) -> None:
    """Drivers before cuDeviceGetUuid_v2: which instance device 0 is, cannot be told."""
    small = gpu.status().instances[0]
    faults = Faults(missing=("cuDeviceGetUuid_v2",), pids="host")
    env = {"CUDA_VISIBLE_DEVICES": small.uuid}
    with (
        gpu.tenant("1GiB", device=small.uuid),
        DeviceProcess(gpu, faults=faults, env=env) as process,
    ):
        process.run(f"context(); allocate({2 * GIB})")
        reading = process.read(0)
        assert reading["uuid"] == "CUDA-0"
        assert reading["total_bytes"] == 16 * GIB
        assert reading["source"] == "cuda"
        assert reading["own_bytes"] is None
        for uuid in (small.uuid, gpu.status().devices[0].uuid):
            assert process.read(uuid)["own_bytes"] is None


def test_an_instance_found_by_an_allocation(gpu: SimulatedGpu) -> None:
    small = gpu.status().instances[0]
    env = {"CUDA_VISIBLE_DEVICES": small.uuid}
    with (
        gpu.tenant("1GiB", device=small.uuid),
        DeviceProcess(gpu, faults=Faults(pids="host"), env=env) as process,
    ):
        process.run("context()")
        assert process.read(0)["own_bytes"] is None
        attribution = process.run("result = attempt(_core.identify, 0)")
        assert attribution["source"] == "fingerprint"
        assert process.read(0)["own_bytes"] == CONTEXT_BYTES
