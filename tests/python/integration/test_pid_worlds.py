"""The eras of PID translation in real PID namespaces: right, or unknown with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess
from pid_namespace import in_pid_namespace, needs_unshare

from memacct._units import GIB, MIB
from memacct.sim import Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_unshare

CONTEXT_BYTES = 400 * MIB
NEIGHBOUR_BYTES = GIB + CONTEXT_BYTES
OUTER = Faults(pids="outer")  # era 1: the machine's numbers, for every caller
NAMESPACE_ONLY = "only processes of this pid namespace are listed"


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", reserved_bytes="500MiB") as machine:
        yield machine


def contained(
    gpu: SimulatedGpu,
    folder: Path,
    *,
    faults: Faults | str | None = None,
    pid: int | None = None,
    mount_proc: bool = True,
) -> DeviceProcess:
    prefix, env = in_pid_namespace(folder / "host-proc", pid=pid, mount_proc=mount_proc)
    return DeviceProcess(gpu, faults=faults, prefix=prefix, env=env)


def identify(process: DeviceProcess) -> dict[str, Any]:
    attribution: dict[str, Any] = process.run("result = attempt(_core.identify, 0)")
    return attribution


def assert_unknown(reading: dict[str, Any], low_bytes: int | None = None) -> None:
    assert reading["own_bytes"] is None
    assert reading["foreign_bytes"] is None
    assert reading["unattributed_bytes"] is None
    assert reading["attribution"]["own_bounds_bytes"] == [low_bytes, reading["device_used_bytes"]]
    assert reading["attribution"]["reason"]


# ---------------------------------------------------------------- era 1: the machine's numbers


def test_the_machines_numbers_in_a_container(gpu: SimulatedGpu, tmp_path: Path) -> None:
    with gpu.tenant("1GiB"), contained(gpu, tmp_path, faults=OUTER) as process:
        process.run("context()")
        before = process.read()
        assert_unknown(before)
        assert before["attribution"]["source"] == "none"
        assert before["tree_bytes"] == 0  # procfs says that there are no children

        found = identify(process)
        assert found["source"] == "fingerprint"
        outside = {row["pid"] for row in before["processes"]}
        assert found["own_pid"] in outside - {process.pid}
        after = process.read()
        assert after["own_bytes"] == CONTEXT_BYTES
        assert (after["tree_bytes"], after["foreign_bytes"]) == (0, NEIGHBOUR_BYTES)
        assert after["unattributed_bytes"] == 0


def test_the_machines_numbers_where_procfs_shows_them(gpu: SimulatedGpu, tmp_path: Path) -> None:
    with (
        gpu.tenant("1GiB"),
        contained(gpu, tmp_path, faults=OUTER, mount_proc=False) as process,
    ):
        process.run("context()")
        reading = process.read()
        assert reading["attribution"]["source"] == "nspid"
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert (reading["tree_bytes"], reading["foreign_bytes"]) == (0, NEIGHBOUR_BYTES)
        process.run(f"child = in_tree({MIB * 64})")
        assert process.read()["tree_bytes"] == CONTEXT_BYTES + 64 * MIB
        assert identify(process)["source"] == "nspid"


@pytest.mark.parametrize("reserved_bytes", [None, CONTEXT_BYTES])
def test_a_stranger_with_our_number_is_not_us(
    gpu: SimulatedGpu, tmp_path: Path, reserved_bytes: int | None
) -> None:
    """The machine's number of a neighbour is our getpid() in the container."""
    with (
        gpu.tenant("1GiB") as stranger,
        contained(gpu, tmp_path, faults=OUTER, pid=stranger.pid) as process,
    ):
        assert process.pid == stranger.pid
        process.run("context()")
        before = process.read(allocator_reserved_bytes=reserved_bytes)
        assert_unknown(before, reserved_bytes)
        assert "identify() can tell" in before["attribution"]["reason"]
        found = identify(process)
        assert (found["source"], found["own_pid"] == stranger.pid) == ("fingerprint", False)
        after = process.read()
        assert after["own_bytes"] == CONTEXT_BYTES
        assert after["foreign_bytes"] == NEIGHBOUR_BYTES


def test_a_stranger_with_our_number_while_we_hold_nothing(
    gpu: SimulatedGpu, tmp_path: Path
) -> None:
    with (
        gpu.tenant("1GiB") as stranger,
        contained(gpu, tmp_path, faults=OUTER, pid=stranger.pid) as process,
    ):
        assert process.read()["own_bytes"] == 0  # the driver is not initialised
        process.run("call('cuInit', 0)")
        assert_unknown(process.read())
        assert identify(process)["source"] == "none"


def test_children_under_the_machines_numbers_are_unknown(gpu: SimulatedGpu, tmp_path: Path) -> None:
    with gpu.tenant("1GiB"), contained(gpu, tmp_path, faults=OUTER) as process:
        process.run(f"context(); child = in_tree({64 * MIB})")
        identify(process)
        reading = process.read()
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert (reading["tree_bytes"], reading["foreign_bytes"]) == (None, None)
        assert "children cannot be told from neighbours" in reading["attribution"]["reason"]


def test_neighbours_inside_and_outside_under_the_machines_numbers(
    gpu: SimulatedGpu, tmp_path: Path
) -> None:
    with gpu.tenant("1GiB"), contained(gpu, tmp_path, faults=OUTER, pid=4321) as process:
        process.run(f"context(); other = unrelated({16 * MIB})")
        assert_unknown(process.read())
        assert identify(process)["source"] == "fingerprint"
        reading = process.read()
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["tree_bytes"] == 0
        assert reading["foreign_bytes"] == NEIGHBOUR_BYTES + CONTEXT_BYTES + 16 * MIB
        assert reading["unattributed_bytes"] == 0


# ---------------------------------------------------------------- eras 2 and 3: our own numbers


@pytest.mark.parametrize("told", [0, None])
def test_our_own_number_without_bytes(gpu: SimulatedGpu, tmp_path: Path, told: int | None) -> None:
    faults = Faults(pid_bytes={"all": told})
    with gpu.tenant("1GiB"), contained(gpu, tmp_path, faults=faults) as process:
        process.run("context()")
        for _ in range(2):
            reading = process.read()
            assert reading["own_bytes"] is None
            assert reading["unattributed_bytes"] is None
            assert reading["attribution"]["own_pid"] == process.pid
            found = identify(process)
            assert found["source"] == "none"
            assert "tells no process's bytes" in found["reason"]
        assert gpu.status().devices[0].free_bytes == reading["free_bytes"]


def test_our_own_number_with_bytes(gpu: SimulatedGpu, tmp_path: Path) -> None:
    """Others are not listed: 0 of those that are, the rest is nobody's, and it says so."""
    with gpu.tenant("1GiB"), contained(gpu, tmp_path) as process:
        process.run("context()")
        reading = process.read()
        assert (reading["attribution"]["source"], reading["own_bytes"]) == ("pid", CONTEXT_BYTES)
        assert (reading["tree_bytes"], reading["foreign_bytes"]) == (0, 0)
        assert reading["unattributed_bytes"] == NEIGHBOUR_BYTES
        assert NAMESPACE_ONLY in reading["attribution"]["reason"]
        assert identify(process)["source"] == "pid"
        process.run("_core.forget_identity(); call('cuDevicePrimaryCtxReset_v2', 0)")
        assert process.read()["own_bytes"] is None  # an empty list says nothing


def test_children_siblings_and_nested_namespaces(gpu: SimulatedGpu, tmp_path: Path) -> None:
    """In one container: a child, a child in a namespace below, and one that is no relation."""
    nested = ["unshare", "-pf", "--mount-proc", "--kill-child"]
    # Not number 1, to which the container's orphans come.
    with gpu.tenant("1GiB"), contained(gpu, tmp_path, pid=4321) as process:
        process.run("context()")
        process.run(f"child = in_tree({64 * MIB}); below = in_tree({32 * MIB}, prefix={nested!r})")
        process.run(f"other = unrelated({16 * MIB})")
        reading = process.read()
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["tree_bytes"] == 2 * CONTEXT_BYTES + 96 * MIB
        assert reading["foreign_bytes"] == CONTEXT_BYTES + 16 * MIB
        assert reading["unattributed_bytes"] == NEIGHBOUR_BYTES
        assert reading["attribution"]["source"] == "pid"


def test_a_parent_namespace_sees_the_containers_process(gpu: SimulatedGpu, tmp_path: Path) -> None:
    with contained(gpu, tmp_path) as inside, DeviceProcess(gpu) as process:
        inside.run(f"context(); allocate({GIB})")
        process.run("context()")
        reading = process.read()
        assert reading["own_bytes"] == CONTEXT_BYTES
        assert reading["foreign_bytes"] == NEIGHBOUR_BYTES
