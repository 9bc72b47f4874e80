"""Runs one request: a simulated machine, the real engine on it, the answer."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct.sim import SimulatedGpu
from memacct.sim._tenant import control_path

from .assemble import answer
from .engine_process import LOG, EngineProcess, engine_environ
from .machine import machine_settings
from .model_folder import make_folder
from .neighbours import start_neighbours
from .ranges import with_ranges
from .refusals import EngineError
from .request_costs import costs_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from .costs import Costs
    from .request import Request
    from .result import DryRun

LIMIT_S = 600.0


def run(request: Request, *, costs: Costs | None = None, **settings: Any) -> DryRun:
    """The same as `run_exact`, with the ranges that the costs leave open."""
    known = costs or costs_of(request)
    return with_ranges(run_exact(request, costs=known, **settings), known)


def run_exact(
    request: Request,
    *,
    limit_s: float = LIMIT_S,
    say: Callable[[str], None] = lambda _: None,
    costs: Costs | None = None,
    log: Path | None = None,
    stop: threading.Event | None = None,
) -> DryRun:
    """Starts the engine of `request` on its machine and tells how that went, without ranges.

    Args:
        request: what is asked.
        limit_s: after this many seconds the engine is ended.
        say: called with a line for people about what goes on.
        log: where the engine's log goes; default it is thrown away with an answer.
        costs: what kernels that do nothing do not show; default what `costs_of` knows.
        stop: set, by another thread, it ends the engine.

    Raises:
        CancelledError: `stop` was set.
        ConfigError: the model is none, or the engine refuses what it was given.
        EngineError: the engine hangs, crashes, or ends otherwise; its log is kept then.
    """
    folder = Path(tempfile.mkdtemp(prefix="memacct-dryrun-"))
    kept = None
    if log is not None:
        (folder / LOG).symlink_to(Path(log).absolute())
    try:
        return _run(request, folder, limit_s, say, costs or costs_of(request), stop=stop)
    except EngineError:
        kept = folder / LOG if log is None else None
        raise
    finally:
        _clear(folder, kept)


def _clear(folder: Path, kept: Path | None) -> None:
    """Takes away what an engine left, its compiled model too; all but `kept`."""
    if kept is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        elif each != kept:
            each.unlink()


def _run(
    request: Request,
    folder: Path,
    limit_s: float,
    say: Callable[[str], None],
    costs: Costs,
    *,
    stop: threading.Event | None,
) -> DryRun:
    made = make_folder(request.model, request.arguments, folder)
    line = ("--model", str(made.folder), *request.arguments, *made.options)
    machine = request.machine
    with ExitStack() as stack:
        settings = {
            **machine_settings(machine),
            "context_bytes": costs.simulated_context_bytes,
            "costs": costs.simulated(),
        }
        gpu = stack.enter_context(SimulatedGpu(**settings))
        neighbours = start_neighbours(gpu, machine)
        say(f"starting vLLM on {machine.title}")
        environ = gpu.environ(runtime=True, python=request.python)
        outcome = EngineProcess(
            python=request.python,
            line=line,
            environ=engine_environ(environ, request.environ, folder, control_path()),
            folder=folder,
            stop=stop,
        ).run(limit_s)
        return answer(
            request,
            outcome,
            context_bytes=costs.simulated_context_bytes,
            neighbours=[one.pid for one in neighbours],
            checkpoint_bytes=made.checkpoint_bytes,
            notes=made.notes,
        )
