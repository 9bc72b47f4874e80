"""``memacct record``: a command or a process with its whole tree, in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memacct._errors import MemacctError
from memacct._units import format_bytes, parse_seconds
from memacct.cli._commands import WRONG

if TYPE_CHECKING:
    from memacct.recording._sources import DeviceKeys

_FAILED = 125  # as env, nohup and timeout tell their own failure from the command's


def record(  # noqa: PLR0917 (the command line's options)
    command: Annotated[
        list[str] | None, typer.Argument(help="The program and its arguments, after --.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file; an earlier one is kept as FILE.old.")
    ] = Path("run.memacct"),
    pid: Annotated[
        int | None, typer.Option(min=1, help="Or a process that runs; until it ends, or Ctrl-C.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="With --pid: end after that long, as 90s.")
    ] = None,
    hz: Annotated[float, typer.Option(help="Samples a second, up to 50.")] = 10.0,
    host: Annotated[
        str, typer.Option(help="counters, breakdown, or rollup: pss too, 10 ms a GiB.")
    ] = "breakdown",
    devices: Annotated[
        str, typer.Option(help="all, none, or GPUs by index or UUID, with commas.")
    ] = "all",
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Have engines write their start-up tree, too.")
    ] = False,
    budget: Annotated[
        float, typer.Option(help="Part of one CPU that sampling may take; the rate gives way.")
    ] = 0.02,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing at the end.")] = False,
) -> None:
    """Sample a command and its tree until it ends, and exit as it does: `record -- CMD ARGS`.

    Every sample is in the file at once: what was written stays, however this or the command ends.
    `memacct report FILE` shows it. Exit status: the command's, 128 + the signal that ended it; 127
    no such program, 126 not executable, 125 memacct's own failure (with --pid: 2).
    """
    values = {
        "output": output,
        "command": tuple(command or ()),
        "pid": pid,
        "hz": hz,
        "budget_ratio": budget,
        "host": host,
        "devices": _devices(devices),
        "duration_s": duration,
        "timeline": timeline,
    }
    raise typer.Exit(_record(values, quiet=quiet))


def _record(values: dict[str, Any], *, quiet: bool) -> int:
    """Records; returns the exit status."""
    from memacct.recording import Settings
    from memacct.recording import record as record_run

    try:
        if values["duration_s"] is not None:
            values = {**values, "duration_s": parse_seconds(values["duration_s"])}
        ending = record_run(Settings(**values))
    except (MemacctError, ValueError, OSError) as error:
        print(f"memacct: {error}", file=sys.stderr)
        own: int = getattr(error, "code", _FAILED if values["command"] else WRONG)
        return own
    if ending.lost is not None:
        print(f"memacct: the recording is not whole: {ending.lost}", file=sys.stderr)
    elif not quiet:
        print(_last_words(values["output"], ending.record), file=sys.stderr)
    return ending.exit_code


# What follows the command's name is the command's.
record.command_settings = {  # type: ignore[attr-defined]
    "context_settings": {"allow_interspersed_args": False, "ignore_unknown_options": False}
}


def _devices(text: str) -> DeviceKeys:
    if text in ("all", "none"):
        return "all" if text == "all" else "none"
    return tuple(int(key) if key.isdigit() else key for key in text.split(",") if key)


def _last_words(output: Path, end: dict[str, Any]) -> str:
    peak = end["host_peak_bytes"]
    parts = [f"samples: {end['samples_count']}; processes: {end['processes_count']}"]
    if peak is not None:
        parts.append(f"host peak {format_bytes(peak)}")
    parts += [
        f"GPU {each['device']} peak {format_bytes(each['tree_bytes'])}"
        for each in end["device_peaks"]
        if each["tree_bytes"]
    ]
    share = f"{end['sampling_cpu_ratio']:.1%} of one CPU"
    parts.append(f"sampling took {end['sampling_cpu_ns'] / 1e9:.2f} s, {share}")
    return f"memacct: {'; '.join(parts)}\nmemacct: see memacct report {output}"
