"""More processes, and more devices, than anyone has: they are read like few."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from device_process import DeviceProcess

from memacct._units import MIB
from memacct.sim import SimulatedGpu
from memacct.sim._libraries import CONTROL, library_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

EACH_BYTES = 2 * MIB
CONTEXT_BYTES = 400 * MIB


@contextlib.contextmanager
def crowd(gpu: SimulatedGpu, count: int) -> Iterator[None]:
    """Has so many real processes that each hold EACH_BYTES of every device."""
    command = [str(library_directory() / CONTROL), "crowd", str(count), str(EACH_BYTES)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, env=dict(gpu.environ()), text=True, **pipes)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


@pytest.mark.parametrize(("devices_count", "processes_count"), [(1, 1_000), (16, 40)])
def test_all_are_told_apart(devices_count: int, processes_count: int) -> None:
    with (
        SimulatedGpu(count=devices_count) as gpu,
        crowd(gpu, processes_count),
        DeviceProcess(gpu) as process,
    ):
        process.run("context()")
        for _ in range(2):
            readings = process.run("result = attempt(_core.read_devices, 'all')")
            assert len(readings) == devices_count
            for reading in readings:
                assert reading["consistent"]
                assert reading["unattributed_bytes"] == 0
                assert reading["foreign_bytes"] == processes_count * EACH_BYTES
            assert readings[0]["own_bytes"] == CONTEXT_BYTES
            assert len(readings[0]["processes"]) == processes_count + 1
        open_files = process.run("result = len(os.listdir('/proc/self/fd'))")
        # One for each process while a quarter of the limit allows it.
        assert open_files <= 64 + os.sysconf("SC_OPEN_MAX") // 4
