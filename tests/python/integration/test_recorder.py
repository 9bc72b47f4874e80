"""Recordings: made whole, read back after any end of their writer, and beside it.

More of it: MEMACCT_TEST_KILLS=200 MEMACCT_TEST_RECORDS=1000000. `make tsan` runs the recorder
under ThreadSanitizer.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from cpp_program import built

KILLS_COUNT = int(os.environ.get("MEMACCT_TEST_KILLS", "30"))
RECORDS_COUNT = int(os.environ.get("MEMACCT_TEST_RECORDS", "100000"))
SOURCES = ("recorder", "recording", "recording_file", "sample_record", "clock", "process")
SOURCES += ("proc_file", "process_stat")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorder")
    return built(folder, "check_recorder", "address,undefined", *SOURCES)


def run(program: Path, mode: str, *args: str | Path) -> str:
    command = [program, mode, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_known_answers(program: Path, tmp_path: Path) -> None:
    run(program, "known", tmp_path)


def test_damaged_files_give_whole_records_or_a_clear_error(program: Path, tmp_path: Path) -> None:
    run(program, "damage", tmp_path)


def test_sigkill_at_any_moment_loses_at_most_the_last_record(program: Path, tmp_path: Path) -> None:
    printed = run(program, "kill", tmp_path, str(KILLS_COUNT))
    assert printed.startswith(f"{KILLS_COUNT} writers killed after ")


def test_no_torn_record_is_read_beside_a_writer(program: Path, tmp_path: Path) -> None:
    printed = run(program, "live", tmp_path, str(RECORDS_COUNT))
    match = re.match(r"(\d+) records read beside (\d+) writes;", printed)
    assert match is not None
    assert int(match[1]) >= RECORDS_COUNT
