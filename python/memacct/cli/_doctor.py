"""``memacct doctor``: what this machine lets us see and what not, and what to do about it."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memacct._errors import MemacctError
from memacct._units import format_bytes, parse_seconds
from memacct.cli._commands import BAD_NEWS

if TYPE_CHECKING:
    from rich.console import Console

    from memacct.doctor import Diagnosis
    from memacct.doctor.watching import Observation, WatchedGpu

SCHEMA_VERSION = 1
_TEXT_COLUMNS = 79
_TITLES = {
    "gpus": "GPUs",
    "driver": "Driver",
    "processes": "Who is who",
    "host": "Host memory",
    "kernel": "Kernel",
    "settings": "Settings",
    "engine": "Engine",
}
_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}


def doctor(
    python: Annotated[
        str | None,
        typer.Option(
            help="Interpreter whose vLLM and torch are looked at; default: of the vllm command, "
            "else memacct's own."
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Have a process make a CUDA context for a moment (some 400 MiB), and see whether "
            "it finds itself in the driver's list.",
        ),
    ] = False,
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Watch the GPUs for so long (10s), and recommend one and a utilization.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
) -> None:
    """Say what this machine lets memacct see, what not and why, and which settings hurt.

    Exit status: 0 there is no problem; 1 there is one; 2 wrong usage. See docs/doctor.md.
    """
    from memacct.doctor import examine

    watch_s = None if watch is None else parse_seconds(watch)
    diagnosis = examine(python=_engine_python(python), probe=probe)
    if not as_json:
        _show(diagnosis)
    seen = _watch(watch_s) if watch_s and diagnosis.of("gpus.memory") else None
    if as_json:
        watched = None if seen is None else seen.to_dict()
        data = {"schema_version": SCHEMA_VERSION, "kind": "doctor", **diagnosis.to_dict()}
        print(json.dumps({**data, "watch": watched}))
    elif seen is not None:
        _show_watched(seen)
    elif watch_s:
        print("\nthere is no GPU to watch")
    raise typer.Exit(BAD_NEWS if diagnosis.worst == "problem" else 0)


def _engine_python(python: str | None) -> str | None:
    if python is None and shutil.which("vllm"):
        from memacct.sim._programs import python_of

        return python_of("vllm")
    return python


def _watch(watch_s: float) -> Observation:
    from memacct.doctor.watching import observe
    from memacct.reservations import Reservations

    def began() -> None:
        print(f"\nwatching the GPUs for {watch_s:g} s", file=sys.stderr, flush=True)

    promised: dict[str, int] = {}
    with contextlib.suppress(MemacctError):  # then nobody can have reserved anything, either
        promised = Reservations().promised()
    return observe(watch_s, promised, began)


def _show_watched(seen: Observation) -> None:
    print(f"\nIn {seen.watched_s:.1f} s:")
    for gpu in seen.gpus:
        name = gpu.uuid if gpu.index is None else f"GPU {gpu.index}  {gpu.uuid}"
        print(
            f"{name}\n  {format_bytes(gpu.free_bytes)} of {format_bytes(gpu.total_bytes)} free "
            f"now, {format_bytes(gpu.lowest_free_bytes)} at the least"
        )
        for mover in gpu.movers:
            print(f"  {mover}")
        if not gpu.movers and gpu.moved_bytes:
            print(f"  {format_bytes(gpu.moved_bytes)} moved, by nobody who is listed")
        elif not gpu.movers:
            print("  nobody moved")
        if gpu.promised_bytes:
            print(f"  {format_bytes(gpu.promised_bytes)} reserved by starts of memacct run")
    _show_best(seen.best)


def _show_best(best: WatchedGpu | None) -> None:
    if best is None or best.share is None:
        print("\nNo GPU has room for an engine.")
        return
    share = best.share
    where = best.uuid if best.index is None else f"GPU {best.index}"
    text = (
        f"Most room is on {where}: gpu_memory_utilization {share.utilization:.2f} asks for "
        f"{format_bytes(share.asked_bytes)}. That leaves {format_bytes(share.margin_bytes)} for "
        "neighbours to grow by (as much as moved meanwhile, and no less than 256 MiB) and "
        f"{format_bytes(share.context_bytes)} for the engine's own CUDA context and libraries."
    )
    print(f"\n{textwrap.fill(text, _TEXT_COLUMNS)}\n")
    print(f"export CUDA_VISIBLE_DEVICES={best.uuid}")
    print(f"vllm serve MODEL --gpu-memory-utilization {share.utilization:.2f}")


def _show(diagnosis: Diagnosis) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    topic = ""
    for finding in diagnosis.findings:
        if finding.topic != topic:
            topic = finding.topic
            console.print(f"\n{_TITLES[topic]}", style="bold")
        _row(console, finding.level, finding.what, _STYLES[finding.level])
        for title, text in (("why", finding.why), ("do", finding.fix), ("see", finding.source)):
            if text:
                _row(console, "", f"{title}: {text}", "")
    counts = diagnosis.counts()
    said = [f"{n} {level}{'s' if n != 1 and level != 'ok' else ''}" for level, n in counts.items()]
    console.print("\n" + ", ".join(reversed(said)))


def _row(console: Console, tag: str, text: str, style: str) -> None:
    from rich.table import Table
    from rich.text import Text

    row: Any = Table.grid(padding=(0, 1))
    row.add_column(width=8)
    row.add_column()
    row.add_row(Text(tag, style=style), Text(text, style="" if tag else "dim"))
    console.print(row)
