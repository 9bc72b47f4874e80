"""The ring and its records: known answers, and a writer beside readers, under sanitizers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from cpp_program import built


def run(program: Path, *args: str) -> str:
    done = subprocess.run(
        [program, *args], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_known_answers(tmp_path: Path) -> None:
    run(built(tmp_path, "check_ring", "address,undefined", "sample_record"))


def test_readers_beside_a_writer_race_nowhere_and_get_no_torn_record(tmp_path: Path) -> None:
    printed = run(built(tmp_path, "tsan_ring", "thread", "sample_record"), "200000")
    match = re.fullmatch(r"200000 written, (\d+) read by 3 readers\n", printed)
    assert match is not None
    assert int(match[1]) > 0
