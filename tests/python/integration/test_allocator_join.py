"""An allocator's account joined to what the driver says: a real process on the simulated GPU.

The account is a made one here, so that it can lie; tests/engine has PyTorch's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct import _convert, _core
from memacct._units import GIB, MIB
from memacct.accounting.equation import device_equation
from memacct.report.text import render_equation
from memacct.sim import Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
CLAIM_BYTES = 198_680_000_000  # of an H200, whose 140 GB they cannot be
TOTAL_BYTES = 140_000_000_000
HOST = Faults(pids="host")

SETUP = """
import memacct
def joined(**terms):
    uuid = terms.pop("uuid", None) or reading()["uuid"]
    values = {"uuid": uuid, "allocated_bytes": 0, **terms}
    names = _core.AllocatorMemory._fields
    account = _core.AllocatorMemory._make([values.get(name) for name in names])
    _core.set_allocator_reader(lambda: [account])
    snapshot = memacct.snapshot()
    return {"device": snapshot.devices[0].to_dict(), "torch": snapshot.torch[0].to_dict()}
"""


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes=TOTAL_BYTES, context_bytes=CONTEXT_BYTES) as machine:
        yield machine


def joined(process: DeviceProcess, **terms: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    found = process.run(f"{SETUP}\nresult = joined(**{terms!r})")
    return found["device"], found["torch"]


def test_own_is_non_torch_and_what_the_allocator_holds(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run(f"context(); allocate({3 * GIB})")
        device, _ = joined(process, reserved_bytes=3 * GIB)
    assert device["allocator_reserved_bytes"] == 3 * GIB
    assert device["non_torch_bytes"] == CONTEXT_BYTES
    assert device["own_bytes"] == device["non_torch_bytes"] + 3 * GIB
    assert device["allocator_inconsistent"] is False


def rows_of(device: dict[str, Any], torch: dict[str, Any]) -> dict[str, int | None]:
    """The device equation with own split by the allocator."""
    rows = device_equation(
        _convert.from_dict(_core.DeviceMemory, device),
        allocator=_convert.from_dict(_core.AllocatorMemory, torch),
    )
    values = [row.now_bytes for row in rows]
    assert sum(value for value in values if value is not None) == device["total_bytes"]
    assert "equal to the byte" in render_equation(rows, device["total_bytes"])
    return {row.name: row.now_bytes for row in rows}


def test_own_is_split_by_the_allocator(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run(f"context(); allocate({3 * GIB})")
        found = joined(process, reserved_bytes=3 * GIB, allocated_bytes=GIB, active_bytes=2 * GIB)
    rows = rows_of(*found)
    assert list(rows.values())[:4] == [GIB, GIB, GIB, CONTEXT_BYTES]
    assert list(rows)[:4] == ["torch live", "torch waiting", "torch cached", "non-torch"]


def test_a_claim_of_more_than_the_device_has(gpu: SimulatedGpu) -> None:
    """vLLM's sleeping pools: memory_reserved() 198.68 GB on an H200 of 140 GB."""
    with DeviceProcess(gpu) as process:
        process.run(f"context(); allocate({2 * GIB})")
        device, torch = joined(
            process,
            reserved_bytes=CLAIM_BYTES,
            unmapped_bytes=CLAIM_BYTES - 2 * GIB,
            backed_bytes=2 * GIB,
        )
    assert device["allocator_inconsistent"] is True
    # The driver's number stands, and the equation with it.
    assert device["own_bytes"] == CONTEXT_BYTES + 2 * GIB
    assert device["attribution"]["own_bounds_bytes"] == [device["own_bytes"]] * 2
    terms = ("free", "reserved", "own", "tree", "foreign", "unattributed")
    assert sum(device[f"{term}_bytes"] for term in terms) == device["total_bytes"]
    # Negative, and explained: without what has no memory behind it, the context is left.
    assert device["non_torch_bytes"] == device["own_bytes"] - CLAIM_BYTES < 0
    assert device["non_torch_bytes"] + torch["unmapped_bytes"] == CONTEXT_BYTES
    rows = rows_of(device, torch)
    assert rows["torch asleep"] == 2 * GIB - CLAIM_BYTES
    assert rows["non-torch"] == CONTEXT_BYTES


@pytest.mark.parametrize("claim_bytes", [CLAIM_BYTES, 5 * GIB])
def test_a_false_claim_bounds_nothing(gpu: SimulatedGpu, claim_bytes: int) -> None:
    """The driver does not tell here, and a neighbour's memory would make the claim possible."""
    with gpu.tenant("20GiB"), DeviceProcess(gpu, faults=HOST) as process:
        process.run(f"context(); allocate({GIB})")
        device, _ = joined(process, reserved_bytes=claim_bytes, backed_bytes=GIB)
    low, high = device["attribution"]["own_bounds_bytes"]
    assert device["own_bytes"] is None
    assert device["non_torch_bytes"] is None
    assert device["attribution"]["source"] == "allocator_bound"
    assert low == GIB <= GIB + CONTEXT_BYTES <= high
    assert device["allocator_inconsistent"] is (claim_bytes == CLAIM_BYTES)


def test_a_claim_without_a_bound_of_its_own_is_one_as_far_as_it_can_be(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu, faults=HOST) as process:
        process.run(f"context(); allocate({GIB})")
        device, _ = joined(process, reserved_bytes=GIB)
        assert device["attribution"]["own_bounds_bytes"] == [GIB, GIB + CONTEXT_BYTES]
        device, _ = joined(process, reserved_bytes=CLAIM_BYTES)
        assert device["attribution"]["own_bounds_bytes"] == [None, GIB + CONTEXT_BYTES]
        assert "holds more than the device has in use" in device["attribution"]["reason"]


def test_a_lie_does_not_make_our_record_a_strangers(gpu: SimulatedGpu) -> None:
    """In a container a record smaller than what we hold is another's: not than what we claim."""
    with DeviceProcess(gpu, prefix=["unshare", "-pf", "--mount-proc"]) as process:
        process.run(f"context(); allocate({GIB})")
        device, _ = joined(process, reserved_bytes=CLAIM_BYTES, backed_bytes=GIB)
    assert device["attribution"]["source"] == "pid"
    assert device["own_bytes"] == CONTEXT_BYTES + GIB
    assert device["allocator_inconsistent"] is True


def test_the_ordinal_joins_where_names_differ(gpu: SimulatedGpu) -> None:
    """CUDA has a name of its own for a MIG instance."""
    with DeviceProcess(gpu) as process:
        process.run(f"context(); allocate({GIB})")
        device, torch = joined(process, uuid="GPU-other", reserved_bytes=GIB, cuda_ordinal=0)
        assert torch["uuid"] == device["uuid"]
        assert device["non_torch_bytes"] == CONTEXT_BYTES
        device, torch = joined(process, uuid="GPU-other", reserved_bytes=GIB)
        assert torch["uuid"] == "GPU-other"
        assert device["allocator_reserved_bytes"] is None


def test_without_an_allocator_nothing_is_said_of_one(gpu: SimulatedGpu) -> None:
    with DeviceProcess(gpu) as process:
        process.run("context()")
        device = process.read()
        assert device["allocator_reserved_bytes"] is None
        assert device["non_torch_bytes"] is None
        assert device["allocator_inconsistent"] is None
        device = process.read(0, allocator_reserved_bytes=100)
        assert device["non_torch_bytes"] == CONTEXT_BYTES - 100


@pytest.mark.parametrize("lies", [1, 9])
def test_a_claim_that_looks_false_is_read_again(gpu: SimulatedGpu, lies: int) -> None:
    """The cache may have been emptied between the allocator's reading and the device's.

    A claim that stays is false; one that changed is read anew, with the device.
    """
    with DeviceProcess(gpu) as process:
        found = process.run(
            f"""
import memacct
context(); allocate({GIB})
uuid, asked = reading()["uuid"], []
def account():
    asked.append(1)
    return [_core.AllocatorMemory(uuid, {5 * GIB} if len(asked) <= {lies} else {GIB}, 0)]
_core.set_allocator_reader(account)
device = memacct.snapshot().devices[0]
result = len(asked), device.allocator_inconsistent, device.non_torch_bytes
"""
        )
    true_bytes, false_bytes = CONTEXT_BYTES, CONTEXT_BYTES - 4 * GIB
    assert found == [2, lies == 9, true_bytes if lies == 1 else false_bytes]


def test_half_imported_torch_is_left_alone(gpu: SimulatedGpu) -> None:
    """Another thread may be importing it: it is there, and has not all of its names."""
    with DeviceProcess(gpu) as process:
        found = process.run(
            """
import memacct, types
from memacct import _allocators
context()
answers = []
for names in ({}, {"cuda": types.ModuleType("cuda")}):
    sys.modules["torch"] = types.ModuleType("torch")
    vars(sys.modules["torch"]).update(names)
    snapshot = memacct.snapshot()
    answers.append([snapshot.torch, len(snapshot.devices)])
result = answers, _allocators.notes, "memacct.integrations.torch" in sys.modules
"""
        )
    assert found == [[[None, 1], [None, 1]], [], False]
