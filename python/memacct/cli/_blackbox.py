"""``memacct blackbox``: recordings of processes that run, or do no more."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Flight recorders' files, whatever became of their process.")

_FOLLOW_S = 0.5


@app.command()
def read(
    file: Annotated[Path, typer.Argument(help="The recording.")],
    tail: Annotated[int, typer.Option(min=0, help="Show at most that many records.")] = 40,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Show only the last seconds of it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show new records until its process ends.")
    ] = False,
) -> None:
    """Show how a process ended, who moved, and its last records (the last first)."""
    from memacct._blackbox import read_blackbox
    from memacct._blackbox_text import blackbox_text

    if follow:
        _follow(file, tail)
        return
    box = read_blackbox(file)
    if as_json:
        print(json.dumps(box.to_dict()))
    else:
        print(blackbox_text(box, tail_count=tail, seconds=seconds))


@app.command(name="list")
def list_folder(
    folder: Annotated[Path, typer.Argument(help="Where recordings are.")] = Path(),
) -> None:
    """Show the recordings in a folder."""
    from memacct._blackbox import find_blackboxes
    from memacct._blackbox_text import listing_text

    listed = list(find_blackboxes(folder))
    for found in listed:
        print(listing_text(found))
    if not listed:
        print(f"no recordings in {folder}", file=sys.stderr)


def _follow(file: Path, tail: int) -> None:
    from memacct._blackbox import read_blackbox
    from memacct._blackbox_text import blackbox_lines, header

    print(header(), flush=True)
    seen: set[tuple[int, str]] = set()
    while True:
        box = read_blackbox(file)
        lines = [line for line in blackbox_lines(box) if (line.taken_ns, line.of) not in seen]
        for line in lines if seen else lines[-tail:]:
            print(line.text, flush=True)
        seen |= {(line.taken_ns, line.of) for line in lines}
        if box.ending != "running":
            print(box.ending)
            return
        time.sleep(_FOLLOW_S)
