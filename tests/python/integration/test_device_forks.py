"""What a fork's child knows of its devices, whatever its parent's session said."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from device_process import DeviceProcess

from memacct._units import GIB, MIB
from memacct.sim import CallFault, Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_BYTES = 400 * MIB
NEW_NAMESPACE = ("unshare", "-pf", "--kill-child")


def can_unshare() -> bool:
    tool = shutil.which("unshare")
    command = [*NEW_NAMESPACE, "true"]
    return (
        tool is not None
        and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", reserved_bytes="500MiB") as machine:
        yield machine


@pytest.mark.skipif(not can_unshare(), reason="no right to make a pid namespace")
def test_a_child_with_its_parents_pid_has_a_session_of_its_own(gpu: SimulatedGpu) -> None:
    """Both are pid 1, each of its own namespace. With the parent's session it would wait forever.

    The watchdog is a thread in C: a signal would not end a namespace's first process.
    """
    with DeviceProcess(gpu, prefix=NEW_NAMESPACE) as process:
        assert process.pid == 1
        process.run("context()")
        assert process.read()["own_bytes"] == CONTEXT_BYTES
        answer = process.run(
            """
assert ctypes.CDLL(None, use_errno=True).unshare(0x20000000) == 0  # CLONE_NEWPID
result = in_fork('''
import faulthandler
faulthandler.dump_traceback_later(20, exit=True)
result = [os.getpid(), _core.driver_state(), reading()["own_bytes"]]
faulthandler.cancel_dump_traceback_later()
''')
"""
        )
        assert answer == {"result": [1, "uninitialised", 0]}


@pytest.mark.parametrize("code", [34, 802, 999])
def test_an_odd_answer_in_the_parent_is_no_proof_for_its_child(
    gpu: SimulatedGpu, code: int
) -> None:
    """In a world of foreign numbers, where only the driver's word could say "holds nothing"."""
    odd = CallFault(function="cuDeviceGetCount", error=code, for_count=1)
    with DeviceProcess(gpu, faults=Faults(pids="host", calls=[odd])) as process:
        process.run("cuda(); reading()")
        answer = process.run(
            f"""
result = in_fork('''
context(); allocate({GIB})
result = [reading()["own_bytes"], _core.identify(0).source, reading()["own_bytes"]]
''')
"""
        )
        assert answer == {"result": [None, "fingerprint", GIB + CONTEXT_BYTES]}
