"""Real process trees of known shape and size, which stand still until they are told otherwise."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import memacct
    from memacct import _core

MIB = 1 << 20

# What a family's script can use. Children read a pipe whose writing end only the parent has,
# so that they end with it.
PRELUDE = """
import ctypes, json, mmap, os, subprocess, sys
MIB = 1 << 20
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
def touched(size, flags=PRIVATE):
    block = mmap.mmap(-1, size, flags=flags)
    for offset in range(0, size, mmap.PAGESIZE):
        block[offset] = 1
    return block
def look(block):
    return sum(block[offset] for offset in range(0, len(block), mmap.PAGESIZE))
alive = os.pipe()
def child(work=lambda: None):
    ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(alive[1])
        work()
        os.write(ready[1], b"1")
        os.read(alive[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    for fd in ready:
        os.close(fd)
    return pid
def tell(value):
    # Says it, and waits for a word.
    print(json.dumps(value), flush=True)
    return sys.stdin.readline()
"""


class Family:
    """A running script and what it tells."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def told(self) -> Any:
        """What the script told last; waits for it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the family's parent has ended"
        return json.loads(line)

    def go_on(self) -> Any:
        """Lets the script go on; what it tells next."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.told()


@contextlib.contextmanager
def family(script: str) -> Iterator[Family]:
    """Runs a script in a session of its own, all of which is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Family(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def wait_until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    """Polls a condition that another process brings about."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def process_state(pid: int) -> str | None:
    """The state letter of /proc/<pid>/stat; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def by_pid(tree: memacct.TreeSnapshot) -> dict[int, _core.ProcessMemory]:
    return {process.pid: process for process in tree.processes}


def known(value: int | None) -> int:
    assert value is not None
    return value
