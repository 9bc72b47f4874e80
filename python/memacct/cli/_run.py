"""``memacct run``: starts a program on a GPU that is free and still."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memacct._errors import MemacctError, SourceUnavailableError
from memacct._units import format_bytes, parse_bytes, parse_seconds

if TYPE_CHECKING:
    from memacct.launch import Chosen
    from memacct.reservations import Reservations

# As of timeout(1) and of shells; the program's own status is passed on.
TIMED_OUT, OWN_FAILURE, NOT_EXECUTABLE, NOT_FOUND = 124, 125, 126, 127
_NO_GPU = "none"

Command = Annotated[list[str], typer.Argument(help="The program and its arguments.")]
Gpu = Annotated[
    str,
    typer.Option(
        metavar="auto|IDX|UUID|none",
        help="Which GPU: auto is the one with the most free; several are joined by commas.",
    ),
]
Count = Annotated[
    int | None,
    typer.Option(min=1, help="How many; default 1, or the ranks that a vLLM command names."),
]
Need = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="What must be free of each, such as 20GiB; default the program's "
        "--gpu-memory-utilization, if it has one.",
    ),
]
Wait = Annotated[str, typer.Option(metavar="TIME", help="How long to wait for it at most.")]
Still = Annotated[str, typer.Option(metavar="TIME", help="How long nobody may have moved there.")]
ReportDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the engine's processes report (memacct report)."),
]
Stock = Annotated[bool, typer.Option("--stock", help="Leave vLLM's own profiling as it is.")]
ByIndex = Annotated[
    bool,
    typer.Option("--by-index", help="Name the GPU by number, for programs that know no UUIDs."),
]


def run(  # noqa: PLR0917 (the command line's options)
    command: Command,
    gpu: Gpu = "auto",
    count: Count = None,
    need: Need = None,
    wait: Wait = "120s",
    still: Still = "2s",
    report_dir: ReportDir = None,
    stock: Stock = False,
    by_index: ByIndex = False,
) -> None:
    """Start a program on a GPU that is free and still, and end as it does.

    Exit status: the program's own, 128 + n if signal n ended it; 124 the memory was not free in
    time; 125 memacct could not start it; 126 it is not executable; 127 not found. See docs/run.md.
    """
    from memacct.launch import WaitedTooLongError, start_environ

    if shutil.which(command[0], mode=os.F_OK) is None:  # told before anything is waited for
        _say(f"{command[0]}: not found")
        raise typer.Exit(NOT_FOUND)
    try:
        chosen = None if gpu == _NO_GPU else _choose(command, gpu, count, need, wait, still)
        gpus = () if chosen is None else chosen.gpus
        environ = start_environ(
            os.environ, gpus, stock=stock, report_dir=report_dir, by_index=by_index
        )
    except WaitedTooLongError as error:
        _say(str(error))
        raise typer.Exit(TIMED_OUT) from None
    except (MemacctError, ValueError) as error:
        raise _own_failure(str(error)) from None
    except OSError as error:
        name = f": {error.filename}" if error.filename is not None else ""
        raise _own_failure(f"{error.strerror or error}{name}") from None
    _warn_of_plugins(environ, stock=stock)
    raise typer.Exit(_run(command, environ, chosen))


run.command_settings = {  # type: ignore[attr-defined]
    "context_settings": {"allow_interspersed_args": False}
}


def _choose(  # noqa: PLR0917 (the command's options)
    command: list[str], gpu: str, count: int | None, need: str | None, wait: str, still: str
) -> Chosen:
    from memacct.launch import make_plan, wait_for_gpus

    wait_s, still_s = parse_seconds(wait), parse_seconds(still)
    need_bytes = None if need is None else parse_bytes(need)
    try:
        plan = make_plan(command, os.environ, gpu=gpu, count=count, need_bytes=need_bytes)
    except SourceUnavailableError as error:
        raise SourceUnavailableError(
            "no GPU can be read", f"{error.reason} (--gpu none starts without choosing)"
        ) from error
    chosen = wait_for_gpus(
        plan,
        _reservations(),
        wait_s=wait_s,
        still_s=still_s,
        what=Path(command[0]).name,
        say=_say,
    )
    why = f" ({plan.need_text} by {plan.why})" if plan.why else ""
    where = ", ".join(
        f"{each} ({each.uuid}), {format_bytes(each.available_bytes)} available"
        for each in chosen.gpus
    )
    _say(f"after {chosen.waited_s:.1f} s on {where}{why}: {Path(command[0]).name}")
    return chosen


def _reservations() -> Reservations | None:
    from memacct.reservations import Reservations

    try:
        return Reservations()
    except SourceUnavailableError as error:
        _say(f"other starts are not told of this one: {error}")
        return None


def _warn_of_plugins(environ: dict[str, str], *, stock: bool) -> None:
    plugins = environ.get("VLLM_PLUGINS")
    if not stock and plugins is not None and "memacct" not in plugins.split(","):
        _say(f"VLLM_PLUGINS={plugins} leaves memacct's plugin out: the profiling stays vLLM's own")


def _run(command: list[str], environ: dict[str, str], chosen: Chosen | None) -> int:
    from memacct.launch import Taking, run_program

    taking = None if chosen is None else Taking(chosen)
    try:
        return run_program(command, environ, *(() if taking is None else (taking.tick,)))
    except FileNotFoundError:
        _say(f"{command[0]}: not found")
        return NOT_FOUND
    except OSError as error:
        _say(f"{command[0]}: {error.strerror or error}")
        return NOT_EXECUTABLE
    finally:
        if taking is not None:
            taking.close()


def _own_failure(text: str) -> Any:
    _say(text)
    return typer.Exit(OWN_FAILURE)


def _say(text: str) -> None:
    print(f"memacct: {text}", file=sys.stderr, flush=True)
