"""The timelines that engines' processes wrote beside their reports, as trees of their starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._errors import MemacctError
from memacct._printable import printable
from memacct._timeline_read import is_alive, read_timeline
from memacct.report.startup_tree import start_tree

if TYPE_CHECKING:
    from pathlib import Path

    from memacct.report.startup_types import StartTree


def trees_in(folder: Path) -> tuple[StartTree | None, str | None]:
    """Returns the starts that the timelines in ``folder`` tell of; None: there are none.

    The second is a sentence if they could not be read.
    """
    if not any(folder.glob("timeline-*.jsonl")):
        return None, None
    try:
        return start_tree(read_timeline(folder), is_alive=is_alive), None
    except MemacctError as error:
        return None, printable(f"the timelines could not be read: {error}")
