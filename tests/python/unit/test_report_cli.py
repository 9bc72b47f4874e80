"""``memacct report DIR``: real files of every kind, and every mistake in one sentence."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from engine_reports import core, main, worker, write
from typer.testing import CliRunner

import memacct
from memacct.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def rows_of(result: Result) -> list[str]:
    """The lines that start with a rank."""
    return [line for line in result.output.splitlines() if line[:1].isdigit()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two ranks of one engine."""
    write(tmp_path, main(world_size=2), core(150), worker(200, 0), worker(201, 1))
    return tmp_path


def test_all_is_well(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert len(rows_of(result)) == 2


def test_json_is_versioned_and_has_all_of_it(folder: Path) -> None:
    told = json.loads(run(folder, "--json").output)
    assert (told["schema_version"], told["kind"], told["problems"]) == (1, "engine_starts", [])
    (start,) = told["starts"]
    assert start["engines"][0]["workers"][1]["final_bytes"] == start["rows"][1]["budget_bytes"]


def test_a_missing_rank_is_said_and_is_status_1(folder: Path) -> None:
    (folder / "vllm-201-rank1.json").unlink()
    result = run(folder)
    assert result.exit_code == 1
    assert "rank 1: no report: plugin not loaded (VLLM_PLUGINS) or not installed there" in (
        result.output
    )


def test_a_clamped_budget_is_status_1(folder: Path) -> None:
    write(folder, worker(201, 1, clamped=True))
    result = run(folder)
    assert result.exit_code == 1
    assert "CLAMPED" in result.output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vllm-9-rank9.json", b'{"schema_version": 1, "ki', "torn, or not JSON"),
        ("vllm-9-rank9.json", b"", "torn, or not JSON"),
        ("vllm-9-rank9.json", b"\xff\xfe", "torn, or not JSON"),
        ("vllm-9-rank9.json", b"[" * 100_000, "torn, or not JSON"),
        ("notes.json", b'{"a": 1}', "not a report of memacct"),
        ("notes.json", b"[1, 2]", "not a report of memacct"),
        ("vllm-9-rank9.json", b'{"schema_version":1,"kind":"worker","pid":9}', "without its rank"),
        ("vllm-9-rank9.part", b"", "its process ended while it wrote this"),
    ],
)
def test_a_file_that_is_no_report_is_one_sentence(
    folder: Path, name: str, content: bytes, said: str
) -> None:
    (folder / name).write_bytes(content)
    result = run(folder)
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith(name)]
    assert said in line
    assert len(rows_of(result)) == 2, "the rest is still shown"


def test_other_files_are_nobodys_business(folder: Path) -> None:
    (folder / "engine.log").write_text("x")
    assert run(folder).exit_code == 0


@pytest.mark.parametrize("version", [2, "x"])
def test_another_schema_is_shown_as_far_as_it_goes(folder: Path, version: object) -> None:
    write(folder, {**worker(201, 1), "schema_version": version, "shiny": True})
    result = run(folder)
    assert f"of schema_version {version!r}, shown as far as 1 goes" in result.output
    assert len(rows_of(result)) == 2


def test_a_file_of_before_there_was_a_schema_is_shown(tmp_path: Path) -> None:
    old = {key: worker(200)[key] for key in ("rank", "profiler", "pid", "final_bytes", "device")}
    (tmp_path / "vllm-200-rank0.json").write_text(json.dumps({**old, "overhead_ns": 1}))
    result = run(tmp_path)
    assert "written by an older memacct" in result.output
    assert len(rows_of(result)) == 1
    assert result.exit_code == 1


def test_data_parallel_engines_are_one_start(tmp_path: Path) -> None:
    setup = {"data_parallel_size": 2, "data_parallel_size_local": 2}
    for rank in (0, 1):
        keys = {"data_parallel_rank": rank}
        write(tmp_path, core(150 + rank, **keys), worker(200 + rank, **keys))
    write(tmp_path, main(**setup))
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "engine 0 rank 0" in result.output
    assert "engine 1 rank 0" in result.output


def test_starts_are_apart_the_oldest_first(folder: Path) -> None:
    later = {"instance_id": "later", "written_unix_ns": 1_900_000_000_000_000_000, "ppid": 300}
    write(folder, {**main(300), **later}, {**core(350), **later}, {**worker(350), **later})
    result = run(folder)
    heads = [line.split(",")[0] for line in result.output.splitlines() if ", vLLM" in line]
    assert heads == ["engine 1795310242947245416", "engine later"]
    assert len(rows_of(run(folder, "--last"))) == 1


def test_api_servers_are_no_starts_of_their_own(folder: Path) -> None:
    write(folder, {**main(102), "ppid": 100, "instance_id": "a"})
    write(folder, {**main(103), "ppid": 100, "instance_id": "b"})
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "2 API servers besides" in result.output


def test_a_process_that_was_named_anew_is_found_by_its_parent(folder: Path) -> None:
    for child in (core(150), worker(200, 0), worker(201, 1)):
        write(folder, {**child, "instance_id": "named anew"})
    result = run(folder)
    assert result.exit_code == 0, result.output


def test_a_configuration_that_was_not_used_is_no_start(folder: Path) -> None:
    (folder / "vllm-100-main-2.json").write_text(json.dumps({**main(), "instance_id": "unused"}))
    assert run(folder).exit_code == 0


def test_a_worker_that_was_initialised_again_is_one_row(folder: Path) -> None:
    again = {**worker(201, 1, clamped=True), "written_unix_ns": 1_900_000_000_000_000_000}
    (folder / "vllm-201-rank1-2.json").write_text(json.dumps(again))
    result = run(folder)
    assert len(rows_of(result)) == 2
    assert "CLAMPED" in rows_of(result)[1]


def test_a_wrong_path_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "x.json").write_text("{}")
    for name, said in {
        "absent": "no such file or folder",
        "file": "this file is no recording of memacct record",
        "empty": "no report of an engine is in this folder",
        "foreign": "no report of an engine is in this folder (x.json: not a report of memacct)",
        "a\nb": "no such file or folder",
    }.items():
        result = run(tmp_path / name)
        assert result.exit_code == 2, name
        (line,) = result.stderr.splitlines()
        assert line.startswith("memacct: ")
        assert line.endswith(said)


def test_a_folder_that_cannot_be_read_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read anything, so the refusal is made.
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(folder), "iterdir", refuse)
    result = run(folder)
    assert result.exit_code == 2
    assert result.stderr == f"memacct: {folder}: Permission denied\n"


def test_a_file_that_cannot_be_read_is_one_sentence(folder: Path) -> None:
    (folder / "loop.json").symlink_to("loop.json")
    result = run(folder)
    assert result.exit_code == 1
    assert "loop.json: could not be read" in result.output


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "wait.json")
    result = run(folder)
    assert result.exit_code == 1
    assert "wait.json: could not be read: not a file" in result.output


def test_the_steps_of_the_start_are_shown_from_timelines(folder: Path) -> None:
    assert "no timelines are in this folder" in run(folder, "--tree").output
    with memacct.Timeline(folder, name="EngineCore") as timeline, timeline.span("load_model"):
        pass
    result = run(folder, "--tree")
    assert result.exit_code == 0, result.output
    assert "load_model" in result.output
    assert "load_model" in json.dumps(json.loads(run(folder, "--tree", "--json").output)["tree"])
    (path,) = folder.glob("timeline-*.jsonl")
    path.unlink()
    path.mkdir()
    damaged = run(folder, "--tree")
    assert damaged.exit_code == 1
    assert "the timelines could not be read" in damaged.output


def test_ctrl_c_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("memacct.report.engine_files.read_folder", interrupt)
    result = run(folder)
    assert result.exit_code == 130
    assert result.stderr == "memacct: interrupted\n"


def test_timelines_alone_are_shown_as_a_tree(tmp_path: Path) -> None:
    with memacct.Timeline(f"{tmp_path}/", name="main") as timeline, timeline.span("load"):
        pass
    assert run(tmp_path).exit_code == 2
    result = run(tmp_path, "--tree")
    assert result.exit_code == 0, result.output
    assert "load" in result.output
    assert "equal" in result.output
