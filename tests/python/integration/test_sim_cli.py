"""``memacct sim``: what commands of different shells see of one machine."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMACCT = [sys.executable, "-m", "memacct", "sim"]


@pytest.fixture
def machine() -> Iterator[str]:
    name = f"cli-{secrets.token_hex(4)}"
    yield name
    Path(f"/dev/shm/memacct_sim.{name}").unlink(missing_ok=True)


def memacct(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MEMACCT, *arguments], check=False, text=True, capture_output=True, timeout=60
    )


def test_run_hold_and_status_share_a_machine(machine: str) -> None:
    program = "import ctypes, sys; sys.exit(40 + ctypes.CDLL('libcuda.so.1').cuInit(0))"
    options = ("--machine", machine, "--total", "16GiB", "--count", "2", "--no-runtime")
    assert memacct("run", *options, "--", sys.executable, "-c", program).returncode == 40
    with subprocess.Popen(
        [*MEMACCT, "hold", "7GiB", "--device", "1", "--machine", machine],
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert "holds 7.00 GiB" in holder.stdout.readline()
        told = memacct("status", "--machine", machine).stdout.splitlines()
        assert told[0].startswith("GPU 0  16.00 GiB free of 16.00 GiB")
        assert told[1].startswith("GPU 1  8.61 GiB free of 16.00 GiB")
        assert "7.39 GiB" in told[2]
        refused = memacct("run", "--machine", machine, "--total", "8GiB", "--no-runtime", "true")
        assert refused.returncode == 2
        assert "in use with other settings" in refused.stderr
        holder.kill()
    with SimulatedGpu.join(machine) as gpu:  # its tenant ends with it
        assert [device.total_bytes for device in gpu.status().devices] == [16 << 30] * 2


def test_hold_acts_on_a_condition(machine: str, tmp_path: Path) -> None:
    condition = ("--when", f"file_exists={tmp_path}", "--then", "allocate:1GiB")
    done = memacct("hold", "2GiB", "--machine", machine, *condition, "--for", "2")
    assert done.returncode == 0
    assert "allocate 1.00 GiB: now holds 3.00 GiB" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("hold", "much"), "'much' is not a size"),
        (("hold", "1GiB", "--then", "free"), "--when and --then go together"),
        (("hold", "1GiB", "--when", "moon=full", "--then", "free"), "'moon=full' is not KEY=VALUE"),
        (("hold", "900GiB"), "out of memory"),
        (("build", "--python", "/no/python"), "cannot be run"),
    ],
)
def test_errors_are_one_sentence(machine: str, arguments: tuple[str, ...], sentence: str) -> None:
    where = () if arguments[0] == "build" else ("--machine", machine)
    done = memacct(*arguments, *where)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_scenario_by_name(machine: str) -> None:
    listed = memacct("scenarios").stdout.splitlines()
    assert any(line.startswith("host-pids ") and "the host's PIDs" in line for line in listed)
    script = (
        "from memacct import _core; d, = _core.read_devices('all');"
        "print(len(d.processes), d.total_bytes >> 30)"
    )
    options = ("--machine", machine, "--scenario", "host-pids", "--no-runtime")
    done = memacct("run", *options, "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (0, "1 32\n"), done.stderr
    refused = memacct("run", "--scenario", "moon", "--no-runtime", "--", "true")
    assert refused.returncode == 2
    assert "scenario='moon' does not exist" in refused.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--scenario", "moon"), ("--total", "3XB")], ids=["scenario", "size"]
)
def test_a_wrong_machine_is_told_before_a_missing_pytorch(option: str, value: str) -> None:
    refused = memacct("run", option, value, "--", sys.executable, "-c", "pass")
    assert refused.returncode == 2
    assert repr(value) in refused.stderr
    assert "PyTorch" not in refused.stderr
