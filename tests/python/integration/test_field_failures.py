"""The table of docs/field-failures.md, line by line, as measured on the simulated GPU."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from field_replays import LAYS_OVER_PROC, REPLAYS, Row

from memacct.sim import SimulatedGpu

TABLE = Path(__file__).parents[3] / "docs" / "field-failures.md"


def can_mount() -> bool:
    with SimulatedGpu.scenario("gb10") as gpu:
        command = [*gpu.prefix, "true"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


def lines_of(name: str) -> list[str]:
    """The cells of the table's lines of one replay, which its first column names."""
    rows = (line.strip().strip("|").split(" | ") for line in TABLE.read_text().splitlines())
    return [
        " | ".join(cell.strip() for cell in cells[2:])
        for cells in rows
        if cells[0].strip().split(":")[0] == name
    ]


@pytest.mark.parametrize("name", REPLAYS)
def test_a_replay_says_what_the_table_says(name: str) -> None:
    if name in LAYS_OVER_PROC and not can_mount():
        pytest.skip("no right to mount over a file of /proc")
    found = REPLAYS[name]()
    rows = (found,) if isinstance(found, Row) else found
    assert [row.cells() for row in rows] == lines_of(name)


def test_the_table_has_no_line_that_is_not_replayed() -> None:
    body = TABLE.read_text().split("|---")[-1].splitlines()[1:]
    names = {
        line.strip("| ").split(":")[0].split(" | ")[0] for line in body if line.startswith("|")
    }
    assert names == set(REPLAYS)
