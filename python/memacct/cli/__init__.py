"""The command line: one sub-command a topic, no logic of its own."""

from __future__ import annotations

import sys

import typer

from memacct._errors import MemacctError
from memacct.cli import _blackbox, _broker, _demo, _report, _sim

app = typer.Typer(
    name="memacct",
    help="Whose memory is it? Memory accounting of processes and GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(_blackbox.app, name="blackbox")
app.add_typer(_sim.app, name="sim")
app.command()(_demo.demo)
app.command()(_broker.broker)
app.command()(_report.report)


def main() -> None:
    """Runs the command line; an error of memacct is one sentence on stderr."""
    try:
        app()
    except (MemacctError, ValueError) as error:
        print(f"memacct: {error}", file=sys.stderr)
        sys.exit(1)
