"""The questions for a real GPU, asked of the simulated one, whose answers are known.

That the experiments measure right is shown here; what a real driver answers is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from questions import NAMES
from questions.nvml import RawList
from questions.run import run_question
from questions.sessions import end_session, members

from memacct._units import MIB
from memacct.sim import SimulatedGpu

COMMAND = Path(__file__).parents[3] / "bench" / "gpu" / "answer.py"
TOTAL_BYTES = 16384 * MIB
CONTEXT_BYTES = 400 * MIB
RESERVED_BYTES = 500 * MIB
NOBODYS_BYTES = 300 * MIB
CUDA_LESS_BYTES = 638 * MIB
PAGE_BYTES = 2 * MIB


def machine(**options: Any) -> SimulatedGpu:
    return SimulatedGpu(
        total_bytes=TOTAL_BYTES,
        context_bytes=CONTEXT_BYTES,
        reserved_bytes=RESERVED_BYTES,
        unattributed_bytes=NOBODYS_BYTES,
        cuda_total_bytes=TOTAL_BYTES - CUDA_LESS_BYTES,
        **options,
    )


def ask(name: str, faults: str = "", **options: Any) -> dict[str, Any]:
    with machine() as gpu:
        return run_question(name, short=True, env=gpu.environ(faults=faults), **options)


def disagreements(answer: dict[str, Any]) -> list[str]:
    return [check["expected"] for check in answer["checks"] if check["agrees"] is False]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("gpu") / "answers.json"
    command = [sys.executable, COMMAND, "--short", "--installed", "--out", out]
    with machine() as gpu:
        done = gpu.run(command, text=True, capture_output=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found == json.loads(out.read_text())
    found["returncode"] = done.returncode
    return found


@pytest.fixture(scope="module")
def answers(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {answer["name"]: answer for answer in result["answers"]}


def test_all_nine_are_answered_and_nothing_disagrees(result: dict[str, Any]) -> None:
    assert [answer["name"] for answer in result["answers"]] == list(NAMES)
    assert {answer["question"] for answer in result["answers"]} >= set(range(1, 10))
    assert result["failed"] == []
    # Of speed nothing can be known on a machine that others use too.
    assert {each["name"] for each in result["disagreements"]} <= {"sampler", "latency"}
    assert result["returncode"] == int(bool(result["disagreements"]))
    assert result["free_change_bytes"] == 0
    for answer in result["answers"]:
        assert answer["status"] in ("answered", "partly", "not_asked")
        assert bool(answer["not_asked"]) == (answer["status"] != "answered")
        assert answer["answer"]


def test_the_machine_is_described(result: dict[str, Any]) -> None:
    gpu = result["machine"]["gpu"]
    assert (gpu["name"], gpu["total_bytes"]) == ("NVIDIA H100 80GB HBM3", TOTAL_BYTES)
    assert gpu["driver"] == "580.65.06"
    assert gpu["devices_count"] == 1
    assert result["machine"]["host"]["uid"] == os.getuid()


def test_records_of_this_driver(answers: dict[str, dict[str, Any]]) -> None:
    figures = answers["records"]["figures"]
    strides = {name: row["stride"] for name, row in figures.items() if row["count"]}
    distances = {name: row["distance_of_known_pids"] for name, row in figures.items()}
    assert strides == {"Compute": 16, "Compute_v2": 24, "Compute_v3": 24,
                       "DetailList compute": 32, "DetailList all": 32}  # fmt: skip
    assert {name: distances[name] for name in strides} == strides
    assert figures["Compute_v2"]["count_without_room"] == 2


def test_a_context_and_what_asking_costs(answers: dict[str, dict[str, Any]]) -> None:
    figures = answers["context"]["figures"]
    assert figures["own"] == figures["taken_of_free"] == CONTEXT_BYTES
    assert figures["second_context"]["listed"] == CONTEXT_BYTES
    assert set(answers["passive"]["figures"]["taken_by"].values()) == {0}


def test_sums(answers: dict[str, dict[str, Any]]) -> None:
    figures = answers["equation"]["figures"]
    assert figures["idle"]["v2"]["used"] == NOBODYS_BYTES
    assert figures["two_processes"]["used_minus_listed"] == NOBODYS_BYTES
    assert figures["two_processes"]["listed_sum"] == 2 * CONTEXT_BYTES + 1536 * MIB
    assert figures["v2"]["reserved"] == RESERVED_BYTES
    assert figures["cuda_minus_nvml"] == {"total": -CUDA_LESS_BYTES, "free": 0}


def test_own_by_kind_of_memory(answers: dict[str, dict[str, Any]]) -> None:
    for kind in ("cuMemAlloc", "cuMemAllocAsync", "cuMemCreate"):
        gains = {row["size"]: row["own"] for row in answers["own"]["figures"][kind]}
        assert gains[PAGE_BYTES - 1] == gains[PAGE_BYTES] == PAGE_BYTES
        assert gains[PAGE_BYTES + 1] == 2 * PAGE_BYTES
        assert gains[1] in (0, PAGE_BYTES)
    assert {row["own"] for row in answers["own"]["figures"]["cuMemAllocHost"]} == {0}
    assert answers["own"]["not_asked"] == ["memory opened by IPC: cuIpcGetMemHandle returned 801"]


def test_managed_memory_is_nobodys(answers: dict[str, dict[str, Any]]) -> None:
    rows = answers["managed"]["figures"]["cuMemAllocManaged"]
    assert [(row["own"], row["unattributed"], row["free"]) for row in rows] == [
        (0, 2 * MIB, -2 * MIB),
        (0, 64 * MIB, -64 * MIB),
    ]


def test_the_rest_is_found(answers: dict[str, dict[str, Any]]) -> None:
    rule = answers["fingerprint"]["figures"]["rule"]
    assert [count for _, count in rule["matches_by_pid"]] == [rule["rounds"]]
    assert answers["fingerprint"]["figures"]["moves_count"] > 0
    assert answers["release"]["figures"]["left"] == [0, 0]
    assert answers["latency"]["figures"]["list_by_processes"]["4 processes"]["p50_us"] > 0
    assert answers["sampler"]["figures"]["sampled by another"]["sampler"]["samples_count"] > 0


def test_records_of_another_length_are_told() -> None:
    answer = ask("records", "records: v1=24 v3=32")
    assert answer["figures"]["Compute_v3"]["stride"] == 32
    assert answer["figures"]["Compute"]["stride"] == 24
    assert disagreements(answer) == ["nvmlDeviceGetComputeRunningProcesses writes records of 16"]


@pytest.mark.parametrize(
    ("faults", "era"),
    [
        ("bytes: self=0", "own pid with 0 bytes"),
        ("bytes: self=na", "own pid without bytes (N/A)"),
        ("pids: host", "pids of another namespace"),
    ],
)
def test_eras_of_pids_are_told(faults: str, era: str) -> None:
    answer = ask("namespaces", faults)
    assert answer["figures"]["here"]["era"] == era
    told = [check for check in answer["checks"] if check["found"] == era]
    assert told
    assert not any(check["agrees"] for check in told)
    # What memacct says is right, or that it does not know.
    assert all("unasked" not in text and "after" not in text for text in disagreements(answer))


def test_a_reading_that_takes_memory_is_told() -> None:
    answer = ask("passive", "cuDevicePrimaryCtxGetState: charge=+2MiB for=1")
    assert answer["figures"]["taken_by"]["cuDevicePrimaryCtxGetState"] == 2 * MIB
    assert any("takes 0 bytes" in text for text in disagreements(answer))


def test_a_question_that_hangs_or_breaks_costs_only_itself() -> None:
    answer = ask("context", "cuInit: latency_us=60000000", limit_s=2.0, grace_s=0.0)
    assert (answer["status"], answer["agrees"]) == ("timed_out", None)
    answer = ask("context", "cuInit: error=999")
    assert answer["status"] == "failed"
    assert "cuInit" in answer["answer"]


def test_what_a_question_started_ends_with_it() -> None:
    # A shell that hands its child a group of its own, as ninja does with each job.
    script = "set -m; sleep 600 & echo $!; wait"
    with subprocess.Popen(
        ["/bin/bash", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        assert os.getpgid(child) != shell.pid
        assert set(members(shell.pid)) == {shell.pid, child}
        end_session(shell.pid)
    assert members(shell.pid) == []


def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, COMMAND], check=False, text=True, capture_output=True, timeout=60
    )
    if "no GPU here" not in done.stderr:
        pytest.skip("this machine has a GPU")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_stride_is_read_off_what_was_written(count: int, size: int) -> None:
    record = (77).to_bytes(8, "little") + bytes(size - 8)
    written = (record * count).ljust(64 * 32, b"\xaa")
    assert RawList(0, count, written).stride_bytes == size
    assert RawList(0, 0, written).stride_bytes is None
