"""``memacct doctor`` on machines as people have met them: what it finds, by known answers."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from memacct._units import GIB, MIB
from memacct.sim import Faults, SimulatedGpu, scenarios

if TYPE_CHECKING:
    from collections.abc import Mapping

# The machine alone: which engine is installed is another test's.
LOOK = """
import json, os
from memacct.doctor import judge
from memacct.doctor._facts import read_machine
from memacct.doctor._probe import probe_own_record
own = probe_own_record(os.environ) if os.environ.get("PROBE") else None
print(json.dumps(judge(read_machine(os.environ, own)).to_dict()))
"""
JUDGED = ("gpus", "driver", "processes", "settings")


class Answer(NamedTuple):
    """What a scenario's findings are.

    Attributes:
        findings: key -> level of all that is not "ok", but for what any container is told.
        says: words that some finding's sentence has.
        probe: whether a process makes a context there.
    """

    findings: Mapping[str, str]
    says: tuple[str, ...] = ()
    probe: bool = False


CONTAINED = {"processes.namespace", "processes.broker"}
ANSWERS = {
    "bare-host": Answer({}, ("28.12 GiB of 32.00 GiB free; 1 process is listed, with 3.39 GiB",)),
    "host-pids": Answer(
        {"processes.other_numbers": "warning", "processes.own": "warning"},
        ("are no processes of this /proc", "does not find itself: none of the 2 listed"),
        probe=True,
    ),
    "zero-bytes": Answer(
        {"processes.zero_bytes": "warning", "processes.nobodys": "warning"},
        ("with 0 bytes, which says nothing", "3.39 GiB are in use by nobody who is listed"),
        probe=True,
    ),
    "container-pids": Answer(
        {"processes.nobodys": "warning"}, ("finds itself by 'pid', with 400.00 MiB",), probe=True
    ),
    "all-not-available": Answer(
        {"processes.not_available": "warning"}, ("without their bytes (N/A)",)
    ),
    "own-not-available": Answer(
        {"processes.own": "warning"}, ("lists this process", "does not tell its bytes"), probe=True
    ),
    "lists-refused": Answer(
        {"processes.refused": "warning"}, ("returned 4 (Insufficient Permissions)",)
    ),
    "records-v3-16-bytes": Answer({"driver.records": "note"}, ("records of 16 bytes (detected)",)),
    "records-v3-32-bytes": Answer({"driver.records": "note"}, ("records of 32 bytes (detected)",)),
    "records-v3-24-bytes": Answer({}, ("records of 24 bytes (detected)",)),
    "no-memory-info-v2": Answer({"driver.reserve": "note"}),
    "mig-parent": Answer({"gpus.mig": "note"}, ("is divided into 2 MIG instances: MIG-d16dcda0",)),
    "quota-hook": Answer(
        {"gpus.quota": "warning", "settings.quota": "note"},
        ("(libvgpu.so) shows 8.00 GiB in the place of",),
    ),
    "gh200": Answer({"gpus.unified": "note"}, ("is a NUMA node of the host",)),
    "zombie": Answer(
        {"processes.nobodys": "warning"}, ("9.91 GiB are in use by nobody who is listed",)
    ),
    "unlike-gpus": Answer({"settings.device_order": "warning"}, ("(NVIDIA H100, NVIDIA L4)",)),
    "endless-list": Answer({"processes.refused": "warning"}, ("returned 7 (Insufficient Size)",)),
    "namespace-machine-pids": Answer(
        {"processes.other_numbers": "warning"}, ("PID namespace of its own",)
    ),
    "namespace-own-pids": Answer({"processes.nobodys": "note"}, ("3.39 GiB are in use by nobody",)),
    "gb10": Answer({"gpus.unified": "note"}, ("shares its memory with the host",)),
    "jetson": Answer(
        {"driver.nvml": "warning"},
        ("the CUDA driver is here, NVML is not",),
    ),
}


@functools.cache
def can_run(prefix: tuple[str, ...]) -> bool:
    """Whether this machine lets us make the namespaces that a scenario's programs run in."""
    command = ["unshare", "-mpf", "true"]
    return not prefix or subprocess.run(command, check=False).returncode == 0


def look(gpu: SimulatedGpu, *, probe: bool = False) -> dict[str, Any]:
    env = {**os.environ, "MALLOC_ARENA_MAX": "4", **({"PROBE": "1"} if probe else {})}
    done = gpu.run(
        [sys.executable, "-c", LOOK], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("name", ANSWERS)
def test_a_machine_s_findings(name: str) -> None:
    answer = ANSWERS[name]
    with scenarios.open(name) as gpu:
        if not can_run(gpu.prefix):
            pytest.skip("no right to make namespaces")
        told = look(gpu, probe=answer.probe)
    judged = [f for f in told["findings"] if f["topic"] in JUDGED and f["key"] not in CONTAINED]
    bad = {f["key"]: f["level"] for f in judged if f["level"] != "ok"}
    assert bad == answer.findings
    said = "\n".join(f["what"] for f in told["findings"])
    for words in answer.says:
        assert words in said
    for finding in told["findings"]:
        if finding["level"] in ("warning", "problem"):
            assert finding["why"] or finding["fix"], finding
    assert (
        "processes.namespace" in {f["key"] for f in told["findings"] if f["level"] == "note"}
    ) == (name.startswith("namespace-"))


@pytest.fixture(scope="module")
def hall() -> Any:
    """A machine with two GPUs."""
    with SimulatedGpu(total_bytes="32GiB", count=2, reserved_bytes="500MiB") as gpu:
        yield gpu


# Reads the machine once and judges it with each of the settings that it is given.
LOOK_WITH = """
import dataclasses, json, sys
from memacct.doctor import judge
from memacct.doctor._facts import read_machine
machine = read_machine({})
machines = [dataclasses.replace(machine, environ=environ) for environ in json.load(sys.stdin)]
print(json.dumps([judge(each).to_dict() for each in machines]))
"""
HURTING: list[tuple[dict[str, str], str, str, str]] = [
    ({"CUDA_VISIBLE_DEVICES": ""}, "settings.visible_devices", "problem", "set and empty"),
    ({"CUDA_VISIBLE_DEVICES": "0,7"}, "settings.visible_devices", "warning", "makes 1 of 2"),
    ({"CUDA_VISIBLE_DEVICES": "GPU-x"}, "settings.visible_devices", "problem", "makes 0 of 1"),
    ({"CUDA_VISIBLE_DEVICES": "0,0"}, "settings.visible_devices", "problem", "makes 0 of 2"),
    (
        {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64, expandable_segments:True"},
        "settings.expandable_segments",
        "warning",
        "PYTORCH_CUDA_ALLOC_CONF has",
    ),
    ({"VLLM_PLUGINS": "lora"}, "settings.plugins", "warning", "leaves memacct's plugin out"),
    ({"MEMACCT_VLLM": "yes"}, "settings.memacct", "problem", "MEMACCT_VLLM=yes"),
    ({"MEMACCT_REPORTDIR": "x"}, "settings.memacct", "warning", "is no setting of memacct"),
    ({"MALLOC_ARENA_MAX": "1"}, "settings.arenas", "note", "MALLOC_ARENA_MAX=1"),
    (
        {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0"},
        "settings.cuda_graphs",
        "warning",
        "ESTIMATE_CUDAGRAPHS=0",
    ),
]
HARMLESS = (
    {"CUDA_VISIBLE_DEVICES": "1,0"},
    {"VLLM_PLUGINS": "lora,memacct"},
    {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"},
    {"MEMACCT_VLLM": "1", "MEMACCT_SIM_MACHINE": "x"},
)


def test_settings_that_hurt_and_such_as_do_not(hall: SimulatedGpu) -> None:
    environs = [{"MALLOC_ARENA_MAX": "4", **each} for each in (*(h[0] for h in HURTING), *HARMLESS)]
    done = hall.run(
        [sys.executable, "-c", LOOK_WITH],
        input=json.dumps(environs),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = [
        [f for f in each["findings"] if f["topic"] == "settings"]
        for each in json.loads(done.stdout)
    ]
    for (setting, key, level, says), found in zip(HURTING, told, strict=False):
        assert [(f["key"], f["level"]) for f in found] == [(key, level)], setting
        assert says in found[0]["what"]
        assert found[0]["why"] or found[0]["fix"]
    for setting, found in zip(HARMLESS, told[len(HURTING) :], strict=True):
        assert [f["key"] for f in found] == ["settings.all"], setting


def doctor(gpu: SimulatedGpu, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    return gpu.popen(
        [sys.executable, "-m", "memacct", "doctor", *arguments],
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_neighbour_s_move_is_told_to_the_byte(hall: SimulatedGpu) -> None:
    with hall.tenant("3GiB", device=0) as tenant:
        process = doctor(hall, "--watch", "2s", "--json")
        assert process.stderr is not None
        while "watching the GPUs" not in process.stderr.readline():
            assert process.poll() is None
        tenant.allocate("512MiB")
        # Some samples later, of which each asks once for the memory of each GPU.
        tenant.when(pid=process.pid, nvml_memory_queries=60, then="free:128MiB")
        told = json.loads(process.communicate(timeout=60)[0])["watch"]
        first, second = told["gpus"]
        (mover,) = first["movers"]
        assert (mover["pid"], mover["name"]) == (tenant.pid, "memacct_simctl")
        # Whether the sampler comes between the two moves or not, the sum is the same.
        assert mover["change_bytes"] == 384 * MIB == first["foreign_change_bytes"]
        assert first["free_bytes"] == hall.status().devices[0].free_bytes
        assert first["lowest_free_bytes"] <= first["free_bytes"]
        assert (second["movers"], second["moved_bytes"]) == ([], 0)
    assert told["recommended_uuid"] == second["uuid"]
    share = second["share"]
    # 31.51 GiB free - 256 MiB - 1 GiB = 30.26 GiB: 94 % of 32 GiB.
    assert (share["utilization"], share["margin_bytes"]) == (0.94, 256 * MIB)
    assert share["asked_bytes"] <= second["lowest_free_bytes"] - 256 * MIB - GIB


def test_the_export_line_is_ready_to_paste_and_80_columns_wide(hall: SimulatedGpu) -> None:
    with hall.tenant("20GiB", device=0):
        process = doctor(hall, "--watch", "200ms")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    uuid = hall.status().devices[1].uuid
    assert f"\nexport CUDA_VISIBLE_DEVICES={uuid}\n" in out
    assert "--gpu-memory-utilization 0.94" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_a_problem_is_status_1(hall: SimulatedGpu) -> None:
    process = doctor(hall, CUDA_VISIBLE_DEVICES="")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "problem" in out
    assert "1 problem," in out


def test_another_interpreter_is_asked_and_a_wrong_one_is_one_sentence(hall: SimulatedGpu) -> None:
    told = json.loads(doctor(hall, "--json", "--python", sys.executable).communicate(timeout=60)[0])
    assert told["schema_version"] == 1
    (vllm,) = [f for f in told["findings"] if f["key"] == "engine.vllm"]
    assert vllm["what"] == f"no vLLM in {sys.executable}"
    process = doctor(hall, "--python", "/nonexistent/python")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("memacct: python='/nonexistent/python' cannot be asked")
    assert "Traceback" not in err


def test_a_neighbour_that_is_listed_with_0_bytes_is_unknown() -> None:
    zero = Faults(pid_bytes={"all": 0})
    with SimulatedGpu(total_bytes="32GiB", faults=zero) as gpu, gpu.tenant("3GiB") as tenant:
        findings = look(gpu)["findings"]
    (found,) = [f for f in findings if f["key"] == "processes.zero_bytes"]
    assert f"pid {tenant.pid} in the driver's list with 0 bytes" in found["what"]
    assert found["level"] == "warning"
