"""Runs all cases of one version in its environment."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct._errors import MemacctError
from memacct.demo import Bench, Runner
from memacct.demo.setup import make_model
from memacct.sim import build_runtime

from . import run_cpu
from .cases import cases
from .hosted import HostError, hosted_gpu
from .run_gpu import CaseRunner, no_turn

if TYPE_CHECKING:
    from .environment import Environment
    from .versions import Target

Say = Callable[[str], None]
# Entered around each start; a machine that several share may put a lock here.
turn: Callable[[], Any] = no_turn


class NotRunError(RuntimeError):
    """The version is installed, but nothing could be started with it."""


def keys(target: Target) -> list[str]:
    """The keys of all its cases."""
    return run_cpu.keys() if target.is_cpu else [case.key for case in cases(target)]


def run(
    target: Target,
    environment: Environment,
    folder: Path,
    *,
    limit_s: float,
    wanted: Sequence[str],
    say: Say,
) -> Iterator[dict[str, Any]]:
    """Yields the cells of one version, each when it is done.

    Args:
        wanted: keys of the cases to run; empty: all.

    Raises:
        NotRunError: its runtime, model or interpreter failed.
    """
    python = environment.python
    try:
        with turn():
            model = make_model(python, folder / "model", say)
        bench = Bench(python=python, model=model, folder=folder / "runs", limit_s=limit_s)
        if target.is_cpu:
            yield from run_cpu.run(bench, wanted, say, turn)
        else:
            yield from run_gpu(target, bench, wanted, say)
    except (MemacctError, HostError) as error:
        raise NotRunError(str(error)) from error


def run_gpu(
    target: Target, bench: Bench, wanted: Sequence[str], say: Say
) -> Iterator[dict[str, Any]]:
    """On one machine of simulated GPUs, with vLLM imported once."""
    build_runtime(python=bench.python, progress=say)
    with ExitStack() as stack:
        with turn():
            world, host = stack.enter_context(hosted_gpu(bench.python, bench.folder))
        say(f"vLLM is imported: {', '.join(host.imported)}")
        hosted = replace(bench, make_run=host.make_run)
        runner = CaseRunner(Runner(hosted, world, say), say, turn)
        for case in cases(target):
            if not wanted or case.key in wanted:
                yield runner.run(case)


def remove_model(folder: Path) -> None:
    """Takes the model and vLLM's caches off the disk; logs stay."""
    for name in ("model", "runs/vllm-cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
