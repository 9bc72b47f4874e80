"""The short way to commands that are asked for all the time: typer takes longer than the answer.

Only what typer would accept in the same way goes it. All else (help, completion, a mistake, an
error while it runs) goes the long way from the start and is told there, so there is one voice.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of ``snap``: option -> the argument of run_snap(), and whether it takes a value.
_SNAP = {
    "--pid": ("pid", True),
    "--tree": ("tree", False),
    "--host": ("host", True),
    "--devices": ("devices", True),
    "--json": ("as_json", False),
}


def run_fast(arguments: Sequence[str]) -> bool:
    """Runs a command line; False if it is not one of those, or could not be run.

    Nothing has been written if it could not.
    """
    if not arguments or arguments[0] != "snap" or "_MEMACCT_COMPLETE" in os.environ:
        return False
    given = parse_snap(arguments[1:])
    if given is None:
        return False
    from memacct._errors import MemacctError
    from memacct.cli._snap_run import run_snap

    try:
        run_snap(**given)
    except (MemacctError, ValueError, OSError):
        return False
    return True


def parse_snap(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Returns the arguments of ``run_snap()``; None for anything out of the ordinary."""
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in _SNAP:
            return None
        key, takes_value = _SNAP[name]
        if takes_value != bool(equals or rest) and takes_value:
            return None
        if not takes_value:
            if equals:
                return None
            given[key] = True
            continue
        given[key] = value if equals else rest.pop(0)
    if "pid" in given:
        if not (given["pid"].isascii() and given["pid"].isdecimal() and int(given["pid"])):
            return None
        given["pid"] = int(given["pid"])
    return given
