"""``memacct dryrun``: the real engine on a card that one does not have."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from memacct._errors import ConfigError
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
    nvlink: Annotated[
        bool | None,
        typer.Option(help="Whether it joins the GPUs; default as such cards mostly are."),
    ] = None,
    driver: Annotated[
        str | None, typer.Option(help="Version of NVIDIA's driver; default a recent one.")
    ] = None,
    wsl: Annotated[bool, typer.Option("--wsl", help="Below Windows (WSL2).")] = False,
    costs: Annotated[
        Path | None,
        typer.Option(help="What memacct calibrate wrote; default the user's file, if any."),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(help="max-model-len, utilization, max-num-seqs, tp or gpu: what still fits."),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="Cards for a table, such as a100-80,h100,l40s.")
    ] = None,
    cache: Annotated[
        bool, typer.Option(help="Use and keep answers in XDG_CACHE_HOME/memacct/dryrun.")
    ] = True,
    limit: Annotated[float, typer.Option(help="Seconds after which the engine is ended.")] = 600.0,
    log: Annotated[Path | None, typer.Option(help="Where the engine's log goes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Start the real vLLM with made-up weights on a simulated GPU, and tell what it takes.

    Needs the model's folder or its config.json; downloads nothing. All that follows -- is the
    engine's own command.

    Exit status: 0 it starts; 1 it does not fit; 2 it cannot be told.
    """
    from memacct.cli._dryrun_search import run_compare, run_fit
    from memacct.dry_run.as_json import to_json
    from memacct.dry_run.as_json_search import versus_to_json
    from memacct.dry_run.dryrun import make_answers, make_request
    from memacct.dry_run.machine import machine
    from memacct.dry_run.neighbours import parse_neighbour
    from memacct.dry_run.text import dryrun_text
    from memacct.dry_run.text_search import versus_text
    from memacct.dry_run.versus_plan import versus_plan

    # Whatever ends this ends its engines too, and takes their folders away.
    signal.signal(signal.SIGTERM, _terminated)
    if fit is not None and compare is not None:
        raise ConfigError("--fit and --compare are two questions: ask one at a time")
    neighbours_bytes = list(map(parse_neighbour, neighbour or ()))
    where = machine(gpu, count, neighbours_bytes, nvlink=nvlink, driver=driver, wsl=wsl)
    request = make_request(command, where, python=python)
    answers = make_answers(cache=cache, limit_s=limit, costs=costs, say=_say, log=log)
    if fit is not None:
        run_fit(fit, request, answers, as_json=as_json)
    if compare is not None:
        run_compare(compare, request, answers, as_json=as_json)
    found = answers(request)
    versus = versus_plan(found)
    if as_json:
        print(json.dumps({**to_json(found), "plan": versus_to_json(versus)}, indent=1))
    else:
        print(f"{dryrun_text(found).rstrip()}\n\n{versus_text(versus)}")
    raise typer.Exit(BAD_NEWS if found.verdict == "does not fit" else 0)


dryrun.command_settings = {  # type: ignore[attr-defined]
    "context_settings": {"allow_interspersed_args": False}
}


def _terminated(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)  # as a shell tells of a signal


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"memacct: {text}", file=sys.stderr)
