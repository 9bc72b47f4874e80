"""The typer application: every sub-command, help and completion."""

from __future__ import annotations

from typing import Annotated

import typer

from memacct.cli._commands import Commands

app = typer.Typer(
    name="memacct",
    cls=Commands,
    help="Whose memory is it? Memory accounting of processes and GPUs.",
    epilog="Exit status: 0 done; 1 done, and the answer is bad news; 2 wrong usage, or it cannot "
    "be done; 130 interrupted; 141 nobody reads its output. What runs a program ends as the "
    "program does.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from memacct._core import __version__

        print(f"memacct {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_version
        ),
    ] = False,
) -> None:
    pass
