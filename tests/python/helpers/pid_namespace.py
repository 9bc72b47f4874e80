"""Commands that run a program in a PID namespace of its own, and what the machine calls it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

# Mounts of the inner command are its own, so nothing has to be undone.
_KEEP_PROC = 'mount --bind /proc "$1" && shift && exec "$@"'
# The next process of a namespace gets the number after this one.
_CHOOSE_PID = 'echo "$1" > /proc/sys/kernel/ns_last_pid && shift && "$@"; exit $?'


def in_pid_namespace(
    folder: Path, *, pid: int | None = None, mount_proc: bool = True
) -> tuple[list[str], dict[str, str]]:
    """Returns a prefix and the environment that goes with it.

    Args:
        folder: an empty one, in which the simulated driver finds the machine's own procfs.
        pid: the number that the program gets in there.
        mount_proc: it has a procfs of its own.
    """
    folder.mkdir(exist_ok=True)
    keep = ["unshare", "-m", "sh", "-c", _KEEP_PROC, "sh", str(folder)]
    inner = ["unshare", "-pf", "--kill-child", *(["--mount-proc"] if mount_proc else [])]
    choose = [] if pid is None else ["sh", "-c", _CHOOSE_PID, "sh", str(pid - 1)]
    return [*keep, *inner, *choose], {"MEMACCT_SIM_HOST_PROC": str(folder)}


def works(command: list[str]) -> bool:
    """Whether that command can be run here."""
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


def initial() -> bool:
    """Whether this is the machine's own PID namespace."""
    return Path("/proc/self/ns/pid").readlink().name == "pid:[4026531836]"


needs_unshare = pytest.mark.skipif(
    not works(["unshare", "-pf", "--mount-proc", "true"]),
    reason="no right to make a pid namespace",
)
needs_initial: Callable[..., pytest.MarkDecorator] = pytest.mark.skipif(
    not initial(), reason="not in the machine's own pid namespace"
)
