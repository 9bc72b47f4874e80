"""Starts a program on a GPU that is free and still, and keeps other starts off its memory.

plan = make_plan(command, os.environ, need_bytes=20 * GIB)
chosen = wait_for_gpus(plan, Reservations(), wait_s=120, still_s=2)
status = run_program(command, start_environ(os.environ, chosen.gpus), Taking(chosen).tick)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct.launch._plan import Plan, make_plan
from memacct.launch._process import run_program
from memacct.launch._taking import Taking
from memacct.launch._waiting import Chosen, WaitedTooLongError, wait_for_gpus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memacct.accounting.choosing import Candidate

__all__ = [
    "Chosen",
    "Plan",
    "Taking",
    "WaitedTooLongError",
    "make_plan",
    "run_program",
    "start_environ",
    "wait_for_gpus",
]


def start_environ(
    base: Mapping[str, str],
    gpus: Sequence[Candidate],
    *,
    stock: bool = False,
    report_dir: Path | None = None,
    by_index: bool = False,
) -> dict[str, str]:
    """Returns the environment of a program that is to run on these GPUs.

    Args:
        base: what it is added to.
        gpus: empty: CUDA_VISIBLE_DEVICES stays as it is.
        stock: turn the native profiler off, instead of on.
        report_dir: where the engine's processes report; made if it is missing.
        by_index: name the GPUs by number, for programs that do not understand UUIDs.

    Raises:
        ConfigError: a MIG instance has no number.
    """
    environ = {**base, "MEMACCT_VLLM": "0" if stock else "1"}
    if by_index and any(gpu.index is None for gpu in gpus):
        raise ConfigError("a MIG instance has no index: name it by UUID")
    if gpus:
        names = [str(gpu.index) if by_index else gpu.uuid for gpu in gpus]
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    if gpus and by_index:
        environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if report_dir is not None:
        report_dir.mkdir(parents=True, exist_ok=True)
        environ["MEMACCT_REPORT_DIR"] = str(report_dir.absolute())
    return environ
