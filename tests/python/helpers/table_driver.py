"""A driver that lists what it is told to, for tests whose processes are all that matters."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[3]
COMPILER = shutil.which(os.environ.get("CC", "cc"))
MACHINES_OWN_NAMESPACE = "pid:[4026531836]"
SLEEP = shutil.which("sleep") or "/bin/sleep"


def in_machines_namespace() -> bool:
    """Whether a listed pid means what it says; elsewhere it may be a stranger's."""
    return str(Path("/proc/self/ns/pid").readlink()) == MACHINES_OWN_NAMESPACE


def compile_library(source: str, folder: Path) -> Path:
    """Compiles a C file of this repository."""
    library = folder / f"{Path(source).stem}.so"
    assert COMPILER is not None
    command = [COMPILER, "-O2", "-shared", "-fPIC", str(ROOT / source), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def compile_table(folder: Path) -> Path:
    """Compiles the driver, to be named by MEMACCT_NVML_LIBRARY."""
    return compile_library("bench/cpp/table_nvml.c", folder)


def set_table(pids: Sequence[int], *, devices: int = 1, size_bytes: int = 1 << 21) -> None:
    """In a process with that driver: every device lists these from now on."""
    table = ctypes.CDLL(os.environ["MEMACCT_NVML_LIBRARY"])
    numbers = (ctypes.c_uint * max(len(pids), 1))(*pids)
    table.table_set(devices, numbers, len(pids), ctypes.c_ulonglong(size_bytes))


def sleeper() -> subprocess.Popen[bytes]:
    """A process that does nothing."""
    return subprocess.Popen([SLEEP, "300"])
