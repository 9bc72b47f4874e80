"""``memacct report``: what an engine's processes wrote, in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from memacct._errors import SourceUnavailableError
from memacct.cli._commands import BAD_NEWS


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The report_dir of one or more engines.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="All of it, as JSON (docs/vllm.md has the schema).")
    ] = False,
    last: Annotated[bool, typer.Option("--last", help="Only the newest start.")] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="Also the steps of the start, from timelines in DIR.")
    ] = False,
) -> None:
    """Show the starts that vLLM's processes reported to DIR: a row for each rank.

    Exit status: 0 all is well; 1 a report is missing or unreadable, or a start failed, fell back
    to vLLM's own profiling or had its KV cache clamped; 2 wrong usage, or no reports there.
    """
    fine = _show(folder, as_json=as_json, last=last, tree=tree)
    raise typer.Exit(0 if fine else BAD_NEWS)


def _show(folder: Path, *, as_json: bool, last: bool, tree: bool) -> bool:
    from memacct.report.engine_files import Folder, read_folder
    from memacct.report.engine_starts import is_fine
    from memacct.report.engine_text import start_text
    from memacct.report.engine_tree import trees_in

    steps, unread = trees_in(folder) if tree else (None, None)
    try:
        found = read_folder(folder)
    except SourceUnavailableError:
        if steps is None:
            raise
        found = Folder(starts=(), problems=())  # timelines alone: MEMACCT_TIMELINE_DIR
    found = Folder(
        starts=found.starts[-1:] if last else found.starts,
        problems=(*found.problems, *([unread] if unread else [])),
    )
    if as_json:
        data = found.to_dict()
        print(json.dumps({**data, "tree": steps.as_data() if steps else None}, indent=1))
    else:
        texts = [start_text(start) for start in found.starts]
        print("\n\n".join([*texts, *([str(steps)] if steps else [])]))
        for problem in found.problems:
            print(problem)
        if tree and steps is None and not unread:
            print("no timelines are in this folder: turn them on by MEMACCT_TIMELINE=1")
    return not found.problems and all(is_fine(start) for start in found.starts)
