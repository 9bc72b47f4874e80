"""``memacct report``: what an engine's processes wrote, and what ``memacct record`` did."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from memacct._errors import ConfigError, SourceUnavailableError
from memacct._units import format_bytes
from memacct.cli._commands import BAD_NEWS


def report(  # noqa: PLR0917 (the command line's options)
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="A file of memacct record, or the report_dir of engines."
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="All of it, as JSON (docs/run-file.md, docs/vllm.md).")
    ] = False,
    last: Annotated[bool, typer.Option("--last", help="Of DIR: only the newest start.")] = False,
    tree: Annotated[
        bool,
        typer.Option("--tree", help="Of DIR: also the steps of the start, from timelines in it."),
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a recording: a page that needs no net.")
    ] = None,
    perfetto: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a recording: a trace for Perfetto.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a recording: a row a sample.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same; needs pyarrow.")
    ] = None,
) -> None:
    """Show what a command held (PATH is a file of memacct record), or how vLLM started (a folder).

    Exit status of a recording: 0. Of a folder of engines' reports: 0 all is well; 1 a report is
    missing or unreadable, or a start failed, fell back to vLLM's own profiling or had its KV
    cache clamped. 2 wrong usage, or nothing to show there.
    """
    files = {"html": html, "perfetto": perfetto, "csv": csv, "parquet": parquet}
    wanted = {kind: file for kind, file in files.items() if file is not None}
    if not folder.is_dir():
        _show_run(folder, wanted, as_json=as_json)
        return
    if wanted:
        kind = next(iter(wanted))
        raise ConfigError(f"--{kind} is of a recording; {folder} is a folder")
    fine = _show(folder, as_json=as_json, last=last, tree=tree)
    raise typer.Exit(0 if fine else BAD_NEWS)


def _show_run(path: Path, files: dict[str, Path], *, as_json: bool) -> None:
    from memacct.recording import read_run
    from memacct.report.run_account import account_of
    from memacct.report.run_files import write_run
    from memacct.report.run_json import run_data
    from memacct.report.run_spans import spans_of

    run = read_run(path)
    account, spans = account_of(run), spans_of(run)
    for kind, file in files.items():
        size = write_run(account, spans, kind, file)
        print(f"{file}: {format_bytes(size)}", file=sys.stderr)
    if as_json:
        print(json.dumps(run_data(account, spans.tree)))
    elif not files:
        from memacct.cli._report_run import print_run

        print_run(account, spans)


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
