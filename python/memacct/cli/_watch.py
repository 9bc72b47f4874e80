"""``memacct watch``: the same as ``snap``, live."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def watch(
    pid: Annotated[
        int | None, typer.Option(min=1, help="Of this process; default the machine.")
    ] = None,
    devices: Annotated[
        str, typer.Option(help="all, none, or GPUs by index and UUID, such as 0,GPU-5f.")
    ] = "all",
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many; default never.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line and look.")] = False,
) -> None:
    """Watch who holds, takes and releases GPU and host memory. ? shows the keys.

    Where the output is no terminal: one frame of plain text after the other. docs/watch.md
    explains the screen.
    """
    from memacct.look.live import watch_json, watch_live, watch_plain
    from memacct.look.output import is_live
    from memacct.look.reading import Reader
    from memacct.look.session import Session

    reader = Reader("all" if devices == "auto" else devices)
    session = Session(reader, pid=pid, interval_s=interval)
    if as_json:
        watch_json(session, interval_s=interval, count=count, out=sys.stdout)
    elif is_live(sys.stdout):
        raise typer.Exit(watch_live(session, interval_s=interval, count=count, out=sys.stdout))
    else:
        watch_plain(session, interval_s=interval, count=count, out=sys.stdout)
