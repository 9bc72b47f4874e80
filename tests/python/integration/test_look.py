"""A look at the simulated GPU from outside: the equation about the machine and about a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.sim import Tenant

GIB = 1 << 30
MIB = 1 << 20
CONTEXT = 400 * MIB
MACHINE: dict[str, Any] = {
    "total_bytes": "32GiB",
    "count": 2,
    "reserved_bytes": "512MiB",
    "unattributed_bytes": "256MiB",
}


@pytest.fixture(scope="module")
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(**MACHINE) as made:
        yield made


@pytest.fixture(scope="module")
def tenants(gpu: SimulatedGpu) -> Iterator[tuple[Tenant, Tenant]]:
    with gpu.tenant("7GiB") as one, gpu.tenant("3GiB") as other:
        yield one, other


def ran(gpu: SimulatedGpu, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "memacct", *arguments]
    process = gpu.popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(program, process.returncode, out, err)


def told(gpu: SimulatedGpu, *arguments: str) -> dict[str, Any]:
    done = ran(gpu, "snap", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def holds(device: dict[str, Any]) -> bool:
    terms = ("free", "reserved", "own", "tree", "foreign", "unattributed")
    return device["total_bytes"] == sum(device[f"{term}_bytes"] for term in terms)


def test_the_machine(gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant]) -> None:
    first, second = told(gpu)["gpus"]
    assert holds(first)
    assert holds(second)
    assert first["foreign_bytes"] == 10 * GIB + 2 * CONTEXT
    assert (first["reserved_bytes"], first["unattributed_bytes"]) == (512 * MIB, 256 * MIB)
    assert [(each["pid"], each["process_used_bytes"]) for each in first["processes"]] == [
        (tenants[0].pid, 7 * GIB + CONTEXT),
        (tenants[1].pid, 3 * GIB + CONTEXT),
    ]
    assert {each["name"] for each in first["processes"]} == {"memacct_simctl"}
    assert first["processes"][0]["host"]["rss_bytes"] > 0
    assert (second["label"], second["processes"]) == ("1", [])


def test_one_process(gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant]) -> None:
    data = told(gpu, "--pid", str(tenants[0].pid))
    (device,) = data["gpus"]  # auto: only where it is
    assert holds(device)
    assert device["own_bytes"] == 7 * GIB + CONTEXT
    assert (device["tree_bytes"], device["foreign_bytes"]) == (0, 3 * GIB + CONTEXT)
    assert device["attribution"]["source"] == "pid"
    assert device["attribution"]["sure"] is True
    assert device["attribution"]["own_bounds_bytes"] == [device["own_bytes"]] * 2
    assert [each["owner"] for each in device["processes"]] == ["own", "foreign"]
    assert data["process"]["pid"] == tenants[0].pid
    assert len(told(gpu, "--pid", str(tenants[0].pid), "--devices", "all")["gpus"]) == 2


def test_descendants_are_tree(gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant]) -> None:
    data = told(gpu, "--pid", str(os.getpid()), "--tree")  # the tenants' parent
    (device,) = data["gpus"]
    assert holds(device)
    assert (device["own_bytes"], device["foreign_bytes"]) == (0, 0)
    assert device["tree_bytes"] == 10 * GIB + 2 * CONTEXT
    family = {each["pid"] for each in data["tree"]["processes"]}
    assert {os.getpid(), *(tenant.pid for tenant in tenants)} <= family


def test_devices_are_chosen_as_nvidia_smi_counts(gpu: SimulatedGpu) -> None:
    both = told(gpu)["gpus"]
    chosen = told(gpu, "--devices", f"1,{both[0]['uuid'][:-1]}0")["gpus"]
    assert [each["uuid"] for each in chosen] == [both[1]["uuid"], both[0]["uuid"]]
    for wrong, said in (("7", "'7' is no device"), ("GPU-", "'GPU-' is more than one device")):
        done = ran(gpu, "snap", "--devices", wrong)
        assert done.returncode == 2
        assert said in done.stderr
        assert both[0]["uuid"] in done.stderr


@pytest.mark.parametrize("options", [(), ("--tree",), ("--host", "rollup"), ("--host", "mappings")])
def test_the_text_has_the_row(
    gpu: SimulatedGpu, tenants: tuple[Tenant, Tenant], options: tuple[str, ...]
) -> None:
    done = ran(gpu, "snap", "--pid", str(tenants[0].pid), *options)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    row = next(line.split() for line in text.splitlines() if line.startswith("0 "))
    assert row[-7:] == ["32.00", "20.47", "7.39", "0.00", "3.39", "0.50", "0.25"]
    assert ["0", str(tenants[1].pid), "3.39", "foreign"] in [
        line.split()[:4] for line in text.splitlines()
    ]
    assert "sure" in text


def test_a_gpu_that_is_lost_is_not_passed_over_in_silence() -> None:
    with SimulatedGpu.scenario("lost-device") as gpu:
        done = ran(gpu, "watch", "--json", "--count", "6", "--interval", "0.1")
        looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["label"] for each in looks[0]["gpus"]] == ["0", "1"]
    assert [each["label"] for each in looks[-1]["gpus"]] == ["1"]
    assert "GPU is lost" in looks[-1]["gpus_notes"][0]


@pytest.mark.parametrize("scenario", ["lists-refused", "endless-list", "all-not-available"])
def test_a_list_that_does_not_answer_is_unknown_and_not_empty(scenario: str) -> None:
    with SimulatedGpu.scenario(scenario) as gpu:
        (machine,) = told(gpu)["gpus"]
        tenant = str(gpu.tenants[0].pid)
        (picked,) = told(gpu, "--pid", tenant, "--devices", "all")["gpus"]
        text = ran(gpu, "snap", "--pid", tenant, "--devices", "all").stdout
    assert (machine["foreign_bytes"], machine["unattributed_bytes"]) == (None, None)
    assert [picked[f"{term}_bytes"] for term in ("own", "tree", "foreign")] == [None] * 3
    assert picked["attribution"]["source"] == "none"
    assert picked["attribution"]["own_bounds_bytes"] == [0, machine["device_used_bytes"]]
    assert "not sure" in text


@pytest.mark.parametrize(
    ("scenario", "numbers"),
    [("namespace-machine-pids", "others"), ("namespace-own-pids", "perhaps")],
)
def test_a_container_is_not_sure_who_is_who(scenario: str, numbers: str) -> None:
    with SimulatedGpu.scenario(scenario) as gpu:
        if subprocess.run([*gpu.prefix, "true"], check=False, capture_output=True).returncode:
            pytest.skip("no namespaces here")
        program = [*gpu.prefix, sys.executable, "-c", IN_CONTAINER]
        process = gpu.popen(program, stdout=subprocess.PIPE, text=True)
        data = json.loads(process.communicate(timeout=60)[0])
    (device,) = data["gpus"]
    assert data["numbers"] == numbers
    assert device["attribution"]["sure"] is False
    assert device["attribution"]["reason"]
    if numbers == "others":
        assert (device["own_bytes"], device["tree_bytes"], device["foreign_bytes"]) == (None,) * 3
        assert {(each["name"], each["owner"]) for each in device["processes"]} == {("", "unknown")}


# A process with a context of its own, and the command beside it in the same container.
IN_CONTAINER = """
import ctypes, os, subprocess, sys
cuda = ctypes.CDLL("libcuda.so.1")
device, context = ctypes.c_int(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0
options = ["--pid", str(os.getpid()), "--devices", "all", "--json"]
sys.exit(subprocess.run([sys.executable, "-m", "memacct", "snap", *options]).returncode)
"""
