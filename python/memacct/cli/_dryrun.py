"""``memacct dryrun``: the real engine on a card that one does not have."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from memacct._units import parse_bytes
from memacct.cli._commands import BAD_NEWS


def dryrun(  # noqa: PLR0917 (the command line's options)
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="vllm serve MODEL and its options.")
    ],
    gpu: Annotated[
        str, typer.Option(help="A card, such as h100 or a100-80, or total=80GiB.")
    ] = "h100",
    count: Annotated[int, typer.Option(help="GPUs of the machine.")] = 1,
    neighbour: Annotated[
        list[str] | None, typer.Option(help="What another process holds on each GPU, as 12GiB.")
    ] = None,
    python: Annotated[
        Path | None, typer.Option(help="The Python whose vLLM is run; default the one on PATH.")
    ] = None,
    limit: Annotated[float, typer.Option(help="Seconds after which the engine is ended.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Start the real vLLM with made-up weights on a simulated GPU, and tell what it takes.

    Needs the model's folder or its config.json; downloads nothing. All that follows -- is the
    engine's own command.

    Exit status: 0 it starts; 1 it does not fit; 2 it cannot be told.
    """
    from memacct.dry_run.as_json import to_json
    from memacct.dry_run.dryrun import dryrun as dry_run
    from memacct.dry_run.text import dryrun_text

    found = dry_run(
        command,
        gpu=gpu,
        count=count,
        neighbours_bytes=[parse_bytes(each) for each in neighbour or ()],
        python=python,
        limit_s=limit,
        say=_say,
    )
    print(json.dumps(to_json(found), indent=1) if as_json else dryrun_text(found))
    raise typer.Exit(BAD_NEWS if found.verdict == "does not fit" else 0)


dryrun.command_settings = {  # type: ignore[attr-defined]
    "context_settings": {"allow_interspersed_args": False}
}


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"memacct: {text}", file=sys.stderr)
