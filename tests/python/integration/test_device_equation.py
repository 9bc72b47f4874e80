"""Known answers of a device reading, and the device equation in many states."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct._units import GIB, MIB
from memacct.sim import CallFault, Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(
        total_bytes="32GiB", count=2, reserved_bytes="500MiB", unattributed_bytes="6MiB"
    ) as machine:
        yield machine


def assert_equation(reading: dict[str, Any]) -> None:
    terms = ("free", "reserved", "own", "tree", "foreign", "unattributed")
    assert sum(reading[f"{term}_bytes"] for term in terms) == reading["total_bytes"]
    assert reading["consistent"]


def test_an_allocation_is_own_to_the_byte(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run("context()")
        before = process.read()
        for size_bytes in (2 * MIB, 256 * MIB, 3 * GIB):
            process.run(f"allocate({size_bytes})")
            after = process.read()
            assert after["own_bytes"] - before["own_bytes"] == size_bytes
            assert before["free_bytes"] - after["free_bytes"] == size_bytes
            process.run("release()")
        assert process.read()["own_bytes"] == before["own_bytes"] == CONTEXT_BYTES
        assert before["attribution"]["source"] == "pid"
        assert before["attribution"]["own_pid"] == process.pid
        assert before["attribution"]["reason"] == ""


def test_reading_makes_no_context(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        assert process.run("result = [_core.driver_state(), attempt(_core.read_devices)]") == [
            "absent",
            [],
        ]
        assert process.read()["own_bytes"] == 0
        assert process.run("result = _core.driver_state()") == "absent"
        process.run("cuda()")
        reading = process.run("_core.identify(0); result = reading(0, with_cuda=True)")
        assert reading["cuda_free_bytes"] is None
        assert process.run("result = _core.driver_state()") == "uninitialised"
        process.run("call('cuInit', 0)")
        reading = process.run("_core.identify(0); result = reading(0, with_cuda=True)")
        assert reading["cuda_free_bytes"] is None
        assert process.run("result = _core.driver_state()") == "initialised"
        assert process.run("result = attempt(_core.read_devices)") == []
        assert gpu.status().devices[0].processes == ()


def test_auto_is_where_a_context_is(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run("context(1, current=False)")
        (reading,) = process.run("result = attempt(_core.read_devices)")
        assert reading["index"] == reading["cuda_ordinal"] == 1
        assert reading["own_bytes"] == CONTEXT_BYTES
        both = process.run("result = attempt(_core.read_devices, 'all')")
        assert [device["own_bytes"] for device in both] == [None, CONTEXT_BYTES]


def test_equation_holds_in_every_state(gpu: SimulatedGpu) -> None:
    choose = random.Random(7)  # noqa: S311 (a repeatable series)
    with gpu.tenant() as one, gpu.tenant() as two, DeviceProcess(gpu) as process:
        process.run("context()")
        process.run(f"child = in_tree({300 * MIB})")
        for _ in range(40):
            action = choose.randrange(4)
            size_bytes = choose.randrange(1, 400 * MIB)
            if action == 0:
                choose.choice((one, two)).allocate(size_bytes)
            elif action == 1:
                choose.choice((one, two)).free()
            elif action == 2:
                process.run(f"allocate({size_bytes})")
            else:
                gpu.change_unattributed(choose.randrange(0, 10 * MIB))
            reading = process.read()
            assert_equation(reading)
            device = gpu.status().devices[0]
            assert reading["free_bytes"] == device.free_bytes
            assert reading["own_bytes"] == device.process_used_bytes(process.pid)
            assert reading["tree_bytes"] == CONTEXT_BYTES + 300 * MIB
            assert reading["foreign_bytes"] == sum(
                device.process_used_bytes(tenant.pid) for tenant in (one, two)
            )
            assert reading["unattributed_bytes"] == device.unattributed_bytes


def test_tenants_on_another_device_do_not_count(gpu: SimulatedGpu) -> None:
    with gpu.tenant("2GiB", device=1), DeviceProcess(gpu) as process:
        process.run("context()")
        here, there = process.run("result = attempt(_core.read_devices, [0, 1])")
        assert here["foreign_bytes"] == 0
        assert there["foreign_bytes"] == 2 * GIB + CONTEXT_BYTES
        assert_equation(here)


@pytest.mark.parametrize("stride", [16, 24, 32])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_record_size(gpu: SimulatedGpu, version: int, stride: int) -> None:
    absent = {
        1: ("nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceGetComputeRunningProcesses_v3"),
        2: (),
        3: ("nvmlDeviceGetComputeRunningProcesses_v2",),
    }[version]
    faults = Faults(record_bytes={version: stride}, missing=absent)
    with gpu.tenant("1GiB"), gpu.tenant("2GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        reading = process.read()
        assert_equation(reading)
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["foreign_bytes"] == 3 * GIB + 2 * CONTEXT_BYTES
        found = process.run("result = _core.driver_diagnosis()['nvml']['record_bytes']")
        assert list(found.values()) == [stride]


def test_without_version_2_the_reserve_is_unknown(gpu: SimulatedGpu) -> None:
    faults = Faults(missing=("nvmlDeviceGetMemoryInfo_v2",))
    with gpu.tenant("1GiB"), DeviceProcess(gpu, faults=faults) as process:
        process.run("context()")
        reading = process.read()
        assert reading["source"] == "nvml_v1"
        assert reading["reserved_bytes"] is None
        assert reading["device_used_bytes"] is None
        assert reading["unattributed_bytes"] is None
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["foreign_bytes"] == GIB + CONTEXT_BYTES


def test_cudas_total_is_kept_apart() -> None:
    with (
        SimulatedGpu(total_bytes="16GiB", cuda_total_bytes="15GiB") as gpu,
        DeviceProcess(gpu) as process,
    ):
        process.run("context(current=False)")
        reading = process.run("result = reading(0, with_cuda=True)")
        assert reading["total_bytes"] == 16 * GIB
        assert reading["cuda_total_bytes"] == 15 * GIB
        assert_equation(reading)


def test_more_processes_than_the_buffer_holds(gpu: SimulatedGpu) -> None:
    tenants_count = 70
    with DeviceProcess(gpu) as process:
        process.run("context()")
        process.run(f"herd = [in_tree({2 * MIB}) for _ in range({tenants_count})]")
        reading = process.read()
        assert len(reading["processes"]) == tenants_count + 1
        assert reading["tree_bytes"] == tenants_count * (CONTEXT_BYTES + 2 * MIB)
        assert_equation(reading)


def test_keys(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        zero, one = process.run("result = [d.uuid for d in _core.list_devices()]")
        for when in ("pass", "context()"):
            process.run(when)
            assert process.read(0)["uuid"] == zero
            assert process.read(1)["uuid"] == one
            assert process.read(one)["index"] == 1
            assert process.read(one.upper())["index"] == 1
            for length in range(5, len(one)):
                if not zero.startswith(one[:length]):
                    assert process.read(one[:length])["index"] == 1
                    break
            for key in (2, -1, "GPU-ffffffff", "GPU-", "0", ""):
                error = process.run(f"result = attempt(_core.read_device, {key!r})")
                assert error["raised"] == "ValueError"
                assert str(key) in error["text"]
        ambiguous = process.run("result = attempt(_core.read_device, 'GPU-5')")
        assert "ambiguous" in ambiguous["text"]
        assert zero in ambiguous["text"]


@pytest.mark.parametrize(("visible", "order"), [("1", [1]), ("1,0", [1, 0]), ("", [])])
def test_ordinals_follow_visible_devices(gpu: SimulatedGpu, visible: str, order: list[int]) -> None:
    with DeviceProcess(gpu, env={"CUDA_VISIBLE_DEVICES": visible}) as process:
        for when in ("pass", "call('cuInit', 0)" if order else "pass"):
            process.run(when)
            indices = [process.read(ordinal)["index"] for ordinal in range(len(order))]
            assert indices == order
            error = process.run(f"result = attempt(_core.read_device, {len(order)})")
            assert error["raised"] == "ValueError"


def test_a_device_without_uuid_and_address_has_a_key(gpu: SimulatedGpu) -> None:
    functions = ("nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo*")
    faults = Faults(calls=[CallFault(function=name, error=3) for name in functions])
    with DeviceProcess(gpu, faults=faults) as process:
        assert process.run("result = [d.uuid for d in _core.list_devices()]") == [
            "INDEX-0",
            "INDEX-1",
        ]
        for index in (0, 1):
            assert process.read(f"INDEX-{index}")["index"] == index


def test_a_named_instance_that_nvml_does_not_know(gpu: SimulatedGpu) -> None:
    name = "MIG-00010203-0405-0607-0809-0a0b0c0d0e0f"
    with DeviceProcess(gpu, env={"CUDA_VISIBLE_DEVICES": name}) as process:
        error = process.run("result = attempt(_core.read_device, 0)")
        assert error["raised"] == "SourceUnavailableError"
        assert name in error["text"]
        assert process.run("result = attempt(_core.read_device, 1)")["raised"] == "ValueError"
