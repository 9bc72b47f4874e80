"""The command line: one sub-command a topic, no logic of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from memacct.cli._fast import run_fast
from memacct.cli._streams import orderly_streams

if TYPE_CHECKING:
    from memacct.cli._app import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> object:
    # Made when it is asked for: typer takes longer to import than a snapshot takes from the shell.
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from memacct.cli._app import app as made

    return made


def main() -> None:
    """Runs the command line."""
    with orderly_streams():
        if run_fast(sys.argv[1:]):
            return
        from memacct.cli._app import app as made

        made(prog_name="memacct")
