"""``memacct.dryrun``: from a command and a card's name to the answer."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .answers import Answers
from .cache import Cache, default_folder
from .command import parse_command
from .engine_python import about, find_python
from .machine import machine
from .model_folder import find_model
from .ranges import with_ranges
from .request import Request
from .request_costs import costs_of, told_costs
from .start import LIMIT_S, run_exact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .costs import Costs
    from .request import Machine
    from .result import DryRun

# Set in a shell, these change an engine as if they stood before its command.
_HEEDED = ("VLLM_", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


def make_request(
    command: str | Sequence[str],
    where: Machine,
    *,
    python: str | os.PathLike[str] | None = None,
) -> Request:
    """The request that a command stands for.

    Args:
        command: ``vllm serve MODEL ...``, as one string or as words; variables may come first.
        where: the machine that it is for.
        python: the interpreter whose vLLM is run; default the one that `find_python` finds.

    Raises:
        ConfigError: any of it is wrong; the sentence names it.
    """
    parsed = parse_command(command)
    model = find_model(parsed.model)
    engine = about(find_python(python or parsed.python))
    exported = {name: value for name, value in os.environ.items() if name.startswith(_HEEDED)}
    return Request(
        model=model,
        arguments=parsed.arguments,
        machine=where,
        python=engine.python,
        environ={**exported, **parsed.environ},
    )


def dryrun(
    command: str | Sequence[str],
    *,
    gpu: str = "h100",
    count: int = 1,
    neighbours_bytes: Sequence[int] = (),
    python: str | os.PathLike[str] | None = None,
    nvlink: bool | None = None,
    driver: str | None = None,
    wsl: bool = False,
    costs: str | os.PathLike[str] | None = None,
    cache: bool = True,
    limit_s: float = LIMIT_S,
    say: Callable[[str], None] = lambda _: None,
    log: str | os.PathLike[str] | None = None,
) -> DryRun:
    """Starts the real engine, with made-up weights, on a simulated GPU; tells what it would take.

    Args:
        command: ``vllm serve MODEL ...``, as one string or as words; variables may come first.
            Of the model only its folder or config.json is needed.
        gpu: a card's name, or "total=80GiB".
        count: GPUs of the machine.
        neighbours_bytes: what others hold on every GPU, one process each.
        python: the interpreter whose vLLM is run; default MEMACCT_ENGINE_PYTHON, that of the
            `vllm` on PATH, or this one.
        nvlink: whether it joins the GPUs; default as cards of that name mostly are.
        driver: the version of NVIDIA's driver; default a recent one.
        wsl: below Windows.
        costs: a file that ``memacct calibrate`` wrote; default the user's, if there is one.
        cache: answer without a start where an equal request was answered before, or where it can
            be reckoned exactly from one (docs/dryrun-search.md); and keep this answer.
        limit_s: after this many seconds the engine is ended, and that is an error.
        say: called with a line for people about what goes on.
        log: where the engine's log goes; default it is thrown away once there is an answer. With
            it, an engine is started in any case.

    Returns:
        The answer; that the engine does not fit is one, with numbers.

    Raises:
        ConfigError: no such card, model or option.
        MemacctError: the engine hangs or crashes; the sentence names its log.

    Cost:
        A start of the engine: twenty seconds to minutes, 1 to 2 GiB of this machine's memory;
        below a second from the cache.
    """
    where = machine(gpu, count, neighbours_bytes, nvlink=nvlink, driver=driver, wsl=wsl)
    request = make_request(command, where, python=python)
    return make_answers(cache=cache, limit_s=limit_s, costs=costs, say=say, log=log)(request)


def make_answers(
    *,
    cache: bool,
    limit_s: float = LIMIT_S,
    costs: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
    log: str | os.PathLike[str] | None = None,
) -> Answers:
    """What answers requests: from the cache if it may, else by starting engines.

    Args:
        cache: use and fill the folder of answers.
        limit_s: after this many seconds an engine is ended.
        costs: a file that ``memacct calibrate`` wrote; default the user's, if there is one.
        say: called with a line for people about what goes on.
        log: where an engine's log goes; an answer from the cache has none, so there is a start.
    """
    stop = threading.Event()
    where = None if log is None else Path(log)
    file = None if costs is None else Path(costs)

    def known(request: Request) -> Costs:
        return costs_of(request, calibration=file)

    return Answers(
        run=lambda request: run_exact(
            request, limit_s=limit_s, say=say, costs=known(request), log=where, stop=stop
        ),
        stop=stop,
        costs=lambda request: told_costs(known(request)),
        finish=lambda found: with_ranges(found, known(found.request)),
        cache=Cache(folder=default_folder()) if cache and log is None else None,
    )
