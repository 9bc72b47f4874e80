"""``memacct report RUN``: each format read back by what people read it with, known answers."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from recorded_run import CHILD, NEIGHBOUR, PARENT, UUID, at, records, write_run
from typer.testing import CliRunner

from memacct._units import GIB, MIB
from memacct.cli import app
from memacct.recording import read_run
from memacct.report.run_account import account_of
from memacct.report.run_series import thin

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def report(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run.memacct")


# ---------------------------------------------------------------- the account


def test_who_peaked_when(run_file: Path) -> None:
    account = account_of(read_run(run_file))
    assert account.host_totals == tuple(
        size * MIB for size in (100, 100, 550, 450, 120)
    )  # the child's end takes all of it away
    assert account.host_peak is not None
    assert account.host_peak.at_ns == at(0.2)
    assert [(p.pid, size) for p, size in account.host_peak.holders] == [
        (CHILD, 400 * MIB),
        (PARENT, 150 * MIB),
    ]
    child, parent = account.rows
    assert (child.peak_bytes, child.exact, child.sampled_at_ns) == (410 * MIB, True, at(0.2))
    assert (child.growth_bytes, child.device_peak_bytes) == (-100 * MIB, 6 * GIB)
    assert (parent.growth_bytes, parent.device_peak_bytes) == (20 * MIB, None)
    assert account.growers(5) == [parent]


def test_the_equation_at_the_peak_and_the_neighbour(run_file: Path) -> None:
    account = account_of(read_run(run_file))
    (peak,) = account.device_peaks
    assert (peak.point.at_ns, peak.of_tree, peak.holds) == (at(0.3), True, True)
    assert peak.equation() == {
        "own": 0,
        "tree": 6 * GIB,
        "foreign": 3 * GIB,
        "unattributed": GIB // 2,
        "reserved": GIB // 2,
        "free": 6 * GIB,
    }
    ((device, event),) = account.events()
    assert (device.uuid, event.pid, event.name) == (UUID, NEIGHBOUR, "other")
    assert (event.kind, event.change_bytes) == ("grow", GIB)
    # After the sample in which it had not moved yet, and before that in which it had.
    assert (event.after_ns, event.before_ns) == (at(0.2), at(0.3) + 2000)


def test_a_term_that_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    wanted = records()
    for record in wanted:
        for device in record.get("devices", ()) if record["kind"] == "sample" else ():
            device |= {"foreign_bytes": None, "unattributed_bytes": None}
    account = account_of(read_run(write_run(tmp_path / "run", wanted)))
    (peak,) = account.device_peaks
    assert peak.holds is None
    assert peak.equation()["foreign"] is None
    assert account.events() == []
    assert "not all is known" in report(tmp_path / "run").output


@pytest.mark.parametrize("count", [0, 1, 2, 59, 60, 61, 1000])
def test_thinning_keeps_the_ends_and_the_peak(count: int) -> None:
    weights = [(7 * place) % 101 for place in range(count)]
    kept = thin(weights, 60)
    assert kept == sorted(set(kept))
    assert len(kept) == min(count, 60)
    if count:
        assert {0, count - 1} <= set(kept)
        assert max(weights[place] for place in kept) == max(weights)


# ---------------------------------------------------------------- the terminal


def test_the_summary_is_80_columns_wide_and_says_it_all(run_file: Path) -> None:
    result = report(run_file)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(result.output.split())
    for text in (
        "peak 550.00 MiB (rss, all processes) at 0.20 s",
        "python serve.py",
        "=<b>[red]</script>\\udcff",
        "the sum, to the byte",
        "pid 900 other took 1.00 GiB",
        "exited with 3",
        "python serve.py 100 +20.00 MiB",
        "2.0% of one",
        "2 samples left out",
    ):
        assert text in said
    assert "\x1b" not in result.output


def test_one_is_called_one(tmp_path: Path) -> None:
    lone = [*records()[:3], {**records()[-1], "skipped_count": 1}]
    file, page = write_run(tmp_path / "run", lone), tmp_path / "page.html"
    said = " ".join(report(file, "--html", page).output.split())
    said += " ".join(report(file).output.split()) + page.read_text()
    assert "1 sample, 1 process; exited" in said
    assert ", 1 process<" in said
    assert "1 sample left out" in said
    assert not re.search(r"\b1 (samples|processes|moves)\b", said)


def test_a_recording_that_was_cut_off_says_so(tmp_path: Path) -> None:
    file = write_run(tmp_path / "run", records()[:-1])
    file.write_bytes(file.read_bytes() + b"00000")
    said = " ".join(report(file).output.split())
    assert "the recording stopped short" in said
    assert "5 bytes at the end were written half" in said


def test_one_that_has_nothing_but_its_beginning_is_shown(tmp_path: Path) -> None:
    for count in (1, 2, 3, 4):
        file = write_run(tmp_path / "run", records()[:count])
        for arguments in ((), ("--json",), ("--html", tmp_path / "x"), ("--csv", tmp_path / "y")):
            result = report(file, *arguments)
            assert result.exit_code == 0, (count, arguments, result.output)
        assert report(file, "--perfetto", tmp_path / "z").exit_code == 0


# ---------------------------------------------------------------- files


def test_csv_and_parquet_round_trip_in_pandas(run_file: Path, tmp_path: Path) -> None:
    csv, parquet = tmp_path / "run.csv", tmp_path / "run.parquet"
    assert report(run_file, "--csv", csv, "--parquet", parquet).exit_code == 0
    one, other = pd.read_csv(csv), pd.read_parquet(parquet)
    assert list(one.columns) == list(other.columns)
    pd.testing.assert_frame_equal(one, other, check_dtype=False)
    host = other[other.scope == "process"]
    totals = host.groupby("taken_ns").rss_bytes.sum().tolist()
    assert totals == list(account_of(read_run(run_file)).host_totals)
    devices = other[other.scope == "device"]
    assert devices.tree_bytes.tolist() == [0, 5 * GIB, 6 * GIB, 0]
    listed = other[(other.scope == "device_process") & (other.owner == "foreign")]
    assert listed.process_used_bytes.tolist() == [2 * GIB, 2 * GIB, 3 * GIB, 3 * GIB]
    assert set(listed.name) == {"other"}
    assert other.elapsed_s.min() == 0.0
    assert host.pss_bytes.isna().all()  # unknown, not 0


def test_json_is_versioned_and_has_all_of_it(run_file: Path) -> None:
    told = json.loads(report(run_file, "--json").output)
    assert (told["schema_version"], told["kind"], told["state"]) == (1, "run", "finished")
    assert told["host_peak"]["total_bytes"] == 550 * MIB
    (device,) = told["devices"]
    assert device["peak"]["equation_bytes"]["tree"] == 6 * GIB
    assert [point["tree_bytes"] for point in device["points"]] == [0, 5 * GIB, 6 * GIB, 0]
    assert [event["change_bytes"] for event in device["events"]] == [GIB]
    by_pid = {process["pid"]: process for process in told["processes"]}
    assert [point["rss_bytes"] for point in by_pid[CHILD]["points"]] == [400 * MIB, 300 * MIB]
    assert by_pid[CHILD]["points"][0]["pss_bytes"] is None


@pytest.mark.parametrize("option", ["--html", "--perfetto", "--csv", "--parquet"])
def test_a_file_that_cannot_be_written_is_one_sentence(
    run_file: Path, tmp_path: Path, option: str
) -> None:
    for file in (tmp_path / "none" / "x", tmp_path, run_file):
        before = run_file.read_bytes()
        result = report(run_file, option, file)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("memacct: ")
        assert run_file.read_bytes() == before
    result = report(tmp_path, option, tmp_path / "x")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    header = {**records()[0], "schema_version": 2}
    result = report(write_run(tmp_path / "run", [header]))
    assert result.exit_code == 2
    assert "schema 2; this memacct reads 1" in result.stderr
