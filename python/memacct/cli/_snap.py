"""``memacct snap``: one look at the machine's memory, or at one process's."""

from __future__ import annotations

from typing import Annotated

import typer

from memacct.cli._snap_run import run_snap


def snap(
    pid: Annotated[
        int | None, typer.Option(min=1, help="Of this process; default the machine.")
    ] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Of its descendants, too.")] = False,
    host: Annotated[
        str, typer.Option(help="How deep: counters, breakdown, rollup or mappings.")
    ] = "breakdown",
    devices: Annotated[
        str,
        typer.Option(help="auto, all, none, or GPUs by index and UUID, such as 0,GPU-5f."),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
) -> None:
    """Show whose memory it is: every GPU's equation, who holds it, and the host's limits.

    The machine as this shell sees it, or with --pid one process: its own part, its descendants'
    and the others'. Looking takes no GPU memory. docs/watch.md explains the columns.
    """
    run_snap(pid=pid, tree=tree, host=host, devices=devices, as_json=as_json)
