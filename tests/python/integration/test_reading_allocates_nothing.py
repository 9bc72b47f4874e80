"""A reading into room that is kept allocates nothing, with a driver that does not either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import table_driver

WARM_UP, ROUNDS = 5, 200
pytestmark = pytest.mark.skipif(table_driver.COMPILER is None, reason="a C compiler is needed")

# Counted over two runs of unlike length, so that what a call costs by itself cancels out.
PROGRAM = """
import ctypes, json, os, sys
from memacct import _core
from table_driver import set_table
count = ctypes.CDLL(None).allocations_count
count.restype = ctypes.c_ulong
devices, pids, warm_up, rounds = json.loads(sys.argv[1])
pids = [os.getpid() if pid == 0 else pid for pid in pids]
def allocations(n):
    before = count()
    assert _core._read_repeatedly("all", n) == devices
    return count() - before
def moved(n):  # the bytes of all who are listed
    set_table(pids, devices=devices, size_bytes=2**21 + n)
    return allocations(1)
set_table(pids, devices=devices)
allocations(warm_up)
short, long = allocations(1), allocations(rounds + 1)
(first, *_) = _core.read_devices("all")
json.dump({
    "of_one": short,
    "still": long - short,
    "moving": sum(moved(n) for n in range(1, 21)) - 20 * short,
    "owners": sorted(process.owner for process in first.processes),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("libraries")
    return {
        **os.environ,
        "MEMACCT_NVML_LIBRARY": str(table_driver.compile_table(folder)),
        "LD_PRELOAD": str(table_driver.compile_library("tests/cpp/count_allocations.c", folder)),
        "PYTHONPATH": str(Path(table_driver.__file__).parent),
    }


@pytest.mark.parametrize(
    ("devices", "lists_us", "neighbours_count"), [(1, True, 0), (2, True, 7), (2, False, 7)]
)
def test_no_allocation_after_the_first_readings(
    environ: dict[str, str], devices: int, neighbours_count: int, *, lists_us: bool
) -> None:
    neighbours = [table_driver.sleeper() for _ in range(neighbours_count)]
    try:
        pids = ([0] if lists_us else []) + [neighbour.pid for neighbour in neighbours]
        setup = json.dumps([devices, pids, WARM_UP, ROUNDS])
        command = [sys.executable, "-c", PROGRAM, setup]
        done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    assert found["still"] == 0
    assert found["of_one"] > 0  # it does count: the room itself
    if lists_us and table_driver.in_machines_namespace():
        assert found["moving"] == 0
        assert found["owners"] == [*["foreign"] * neighbours_count, "own"]
