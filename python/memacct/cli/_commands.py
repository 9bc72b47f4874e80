"""The sub-commands: where each lives, loaded when it is asked for, and how each ends."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from memacct._errors import MemacctError

#: Exit codes of every command. ``record``, ``run`` and ``sim run`` end as their program does.
BAD_NEWS, WRONG, INTERRUPTED = 1, 2, 130


class Entry(NamedTuple):
    """One sub-command.

    Attributes:
        module: in this package; what it imports, only that command pays.
        attribute: the function, or the ``typer.Typer`` of a group of them.
        panel: under which heading ``memacct --help`` lists it.
    """

    module: str
    attribute: str
    panel: str


_LOOK, _RECORD, _ENGINES, _MACHINE = "Look", "Record", "Engines", "Machine"

#: In the order of ``memacct --help``, which reads as a table of contents.
COMMANDS = {
    "snap": Entry("_snap", "snap", _LOOK),
    "watch": Entry("_watch", "watch", _LOOK),
    "record": Entry("_record", "record", _RECORD),
    "blackbox": Entry("_blackbox", "app", _RECORD),
    "report": Entry("_report", "report", _RECORD),
    "run": Entry("_run", "run", _ENGINES),
    "plan": Entry("_plan", "plan", _ENGINES),
    "dryrun": Entry("_dryrun", "dryrun", _ENGINES),
    "calibrate": Entry("_calibrate", "calibrate", _ENGINES),
    "demo": Entry("_demo", "demo", _ENGINES),
    "metrics": Entry("_metrics", "metrics", _MACHINE),
    "sim": Entry("_sim", "app", _MACHINE),
    "doctor": Entry("_doctor", "doctor", _MACHINE),
    "broker": Entry("_broker", "broker", _MACHINE),
}


class Commands(TyperGroup):
    """Loads a sub-command when it is named; an error of memacct is one sentence on stderr."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (click's signature)
        """Returns the names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Loads the module of one command; None if there is no such command."""
        return _load(cmd_name, COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def invoke(self, ctx: Any) -> Any:
        """Runs the command.

        Raises:
            typer.Exit: with WRONG or INTERRUPTED, after one sentence on stderr.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _exit("interrupted", INTERRUPTED) from None
        except (MemacctError, ValueError) as error:
            raise _exit(str(error), WRONG) from None
        except BrokenPipeError:
            raise
        except OSError as error:  # a file that the user named, or the disk under it
            name = f": {error.filename}" if error.filename is not None else ""
            raise _exit(f"{error.strerror or error}{name}", WRONG) from None


def _load(name: str, entry: Entry) -> Any:
    found = getattr(importlib.import_module(f"memacct.cli.{entry.module}"), entry.attribute)
    one = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False, add_completion=False)
    if isinstance(found, typer.Typer):
        one.add_typer(found, name=name, rich_help_panel=entry.panel)
        return typer.main.get_group(one).commands[name]
    settings = getattr(found, "command_settings", {})
    one.command(name, rich_help_panel=entry.panel, **settings)(found)
    return typer.main.get_command(one)


def _exit(text: str, code: int) -> typer.Exit:
    print(f"memacct: {text}", file=sys.stderr)
    return typer.Exit(code)
