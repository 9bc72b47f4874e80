"""Real control groups with limits, below this process's own, and programs that run in them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# The shell joins before it becomes the program: all that the program takes is charged there.
JOIN = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A control group of this machine.

    Attributes:
        folder: where its files are.
        version: 1 or 2.
    """

    folder: Path
    version: int

    def limit(self, limit_bytes: int) -> None:
        """Sets the hard limit of memory."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (self.folder / name).write_text(f"{limit_bytes}\n")

    def start(self, script: str, *args: str) -> subprocess.Popen[str]:
        """Starts a Python program in the group, with its standard streams as pipes."""
        return subprocess.Popen(
            ["/bin/sh", "-c", JOIN, str(self.folder), sys.executable, "-c", script, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *args: str) -> str:
        """Returns what a Python program in the group prints."""
        with self.start(script, *args) as process:
            out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return out


def own_folder() -> tuple[Path, int]:
    """Returns the folder of the group that accounts this process's memory, and its version.

    Written without memacct, which is what is tested. Skips the test where there is none.
    """
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    v1 = [path for _, names, path in groups if "memory" in names.split(",")]
    path, version = (v1[0], 1) if v1 else (next(p for n, _, p in groups if n == "0"), 2)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        root, point = line.split()[3:5]
        kind, _, options = line.partition(" - ")[2].split(" ", 2)
        if kind != ("cgroup" if version == 1 else "cgroup2"):
            continue
        if (version == 2 or "memory" in options.split(",")) and path.startswith(root):
            return Path(point, path[len(root) :].lstrip("/")), version
    pytest.skip("this process is in no memory control group that a mount shows")


@contextlib.contextmanager
def made(parent: Path, version: int) -> Iterator[Group]:
    """Makes a group inside ``parent``, and removes it at the end. Skips where that is denied."""
    folder = parent / f"memacct-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made in {parent}: {error.strerror}")
    try:
        if version == 2 and not (folder / "memory.max").exists():
            pytest.skip(f"the memory controller is not delegated to the groups in {parent}")
        yield Group(folder=folder, version=version)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Removes the group once its last process, which was waited for, has left it."""
    deadline = time.monotonic() + 20
    while (folder / "cgroup.procs").read_text() and time.monotonic() < deadline:
        os.sched_yield()
    folder.rmdir()


@contextlib.contextmanager
def limited_group(limit_bytes: int) -> Iterator[Group]:
    """Makes a group with a hard limit, inside this process's own or beside it (v2).

    v2 allows no processes in a group that has the controller for its children, so there it is
    made beside the own group, where that is delegated.
    """
    own, version = own_folder()
    with made(own.parent if version == 2 else own, version) as group:
        try:
            group.limit(limit_bytes)
        except PermissionError:
            pytest.skip("limits cannot be written")
        yield group
