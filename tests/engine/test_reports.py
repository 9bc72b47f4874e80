"""Reports of real engines: on request, in files, and where memacct is missing on a rank."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from memacct.cli import app
from memacct.demo import Bench, SimulatedWorld
from memacct.demo.engine import engine_environ
from memacct.report.engine_starts import NO_REPORT

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.engine

CHECKS = Path(__file__).with_name("report_checks.py")


def told_by(kind: str, bench: Bench, folder: Path) -> dict[str, Any]:
    """What the engine's reports say; its processes write theirs to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("vllm-*"):
        stale.unlink()
    world = SimulatedWorld(python=bench.python)
    with world.machine(device_count=2, host_pids=False) as machine:
        environ = engine_environ(
            machine.engine_environ(), {}, "memacct", bench.folder / "vllm-cache"
        )
        environ["PYTHONPATH"] += f":{CHECKS.parent}"
        done = subprocess.run(
            [bench.python, CHECKS, kind, bench.model, folder],
            env=environ,
            capture_output=True,
            text=True,
            timeout=bench.limit_s,
            check=False,
        )
    (folder / "log").write_text(done.stdout + done.stderr)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT"))
    return result


@pytest.fixture(scope="module")
def folder(bench: Bench) -> Path:
    return bench.folder / "reports-ranks"


@pytest.fixture(scope="module")
def ranks(bench: Bench, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    say("engine start: reports of two ranks, one of which has no memacct")
    return told_by("ranks", bench, folder)


def test_a_rank_tells_its_memory_now_and_its_start(ranks: dict[str, Any]) -> None:
    told = ranks["rpc"][0]
    assert (told["schema_version"], told["kind"], told["rank"]) == (1, "worker", 0)
    assert (told["status"], told["reason"]) == ("native", None)
    assert told["start"]["final_bytes"] > 0
    now = told["now"]
    host, device = now["snapshot"]["host"], now["snapshot"]["devices"][0]
    assert host["held_bytes"] + host["reclaimable_bytes"] == host["rss_bytes"]
    terms = [row["now_bytes"] for row in now["equation"]]
    assert sum(terms) == device["total_bytes"]
    # The KV cache is there by now, in torch's account of this device.
    (account,) = now["snapshot"]["torch"]
    assert account["allocated_bytes"] > told["start"]["final_bytes"] * 0.99
    assert now["foreign_delta_bytes"] == 0
    assert told["hooks"]["MemorySnapshot.measure"]


def test_a_rank_without_memacct_is_said_and_breaks_nothing(ranks: dict[str, Any]) -> None:
    assert (ranks["rpc"][1]["status"], ranks["rpc"][1]["reason"]) == ("missing", NO_REPORT)
    assert ranks["rpc"][1]["rank"] == 1
    assert ranks["ranks"] == [0, 1]


def test_all_of_an_engine_in_one_report(ranks: dict[str, Any]) -> None:
    live = ranks["live"]
    assert live["setup"]["world_size"] == 2
    assert live["main"]["now"]["snapshot"]["host"]["rss_bytes"] > 0
    (engine,) = live["engines"]
    assert engine["core"]["kind"] == "engine_core"
    assert engine["core"]["now"]["snapshot"]["host"]["rss_bytes"] > 0
    assert not engine["core"]["is_sleeping"]
    pids = {live["main"]["pid"], engine["core"]["pid"], *(w["pid"] for w in engine["workers"])}
    assert len(pids) == 4
    assert live["missing"] == [{"data_parallel_rank": 0, "rank": 1, "reason": NO_REPORT}]


def test_the_files_are_merged_to_the_same_rows(ranks: dict[str, Any], folder: Path) -> None:
    # Rank 1 wrote its file before it forgot how to report.
    result = CliRunner().invoke(app, ["report", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    (start,) = json.loads(result.output)["starts"]
    assert [row["rank"] for row in start["rows"]] == [0, 1]
    keys = ("budget_bytes", "requested_bytes", "own_bytes", "device", "pid", "status")
    live = ranks["live"]["rows"][0]
    assert {key: start["rows"][0][key] for key in keys} == {key: live[key] for key in keys}
    assert start["engines"][0]["core"]["state"] == "ready"


@pytest.mark.usefixtures("ranks")
def test_a_file_that_is_not_there_is_a_rank_that_is_said(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("vllm-*.json"):
        if not path.name.endswith("rank1.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert f"rank 1: no report: {NO_REPORT}" in result.output.splitlines()


def test_data_parallel_engines_are_merged(bench: Bench, say: Callable[[str], None]) -> None:
    say("engine start: reports of two data-parallel engines")
    folder = bench.folder / "reports-dp"
    live = told_by("data_parallel", bench, folder)["live"]
    assert [(row["data_parallel_rank"], row["rank"]) for row in live["rows"]] == [(0, 0), (1, 0)]
    assert live["missing"] == []
    result = CliRunner().invoke(app, ["report", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    (start,) = json.loads(result.output)["starts"]
    assert [row["pid"] for row in start["rows"]] == [row["pid"] for row in live["rows"]]
