"""The table of docs/field-failures.md, line by line, as measured on the simulated GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from field_replays import REPLAYS, Row

TABLE = Path(__file__).parents[3] / "docs" / "field-failures.md"


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
    found = REPLAYS[name]()
    rows = (found,) if isinstance(found, Row) else found
    assert [row.cells() for row in rows] == lines_of(name)


def test_the_table_has_no_line_that_is_not_replayed() -> None:
    body = TABLE.read_text().split("|---")[-1].splitlines()[1:]
    names = {
        line.strip("| ").split(":")[0].split(" | ")[0] for line in body if line.startswith("|")
    }
    assert names == set(REPLAYS)
