"""Child processes that keep timelines: they report by lines of JSON, and wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

MIB = 1 << 20
PRELUDE = """
import json, mmap, os, sys, threading
import memacct
MIB = 1 << 20
def grow(size_bytes):
    # MAP_PRIVATE: what mmap gives by default counts as shared memory.
    block = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, size_bytes, mmap.PAGESIZE):
        block[offset] = 1
    return block
def report(value):
    print(json.dumps(value), flush=True)
def wait():
    sys.stdin.readline()
"""


class Child:
    """A process that runs a script; killed, if it has not ended, when the block ends."""

    def __init__(self, script: str, folder: Path | None = None, **options: Any) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MEMACCT_")
        }
        if folder is not None:
            environment["MEMACCT_TIMELINE_DIR"] = str(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            **options,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def report(self) -> Any:
        """The next thing that the child reports; it may end instead only by an error."""
        line = _pipe(self.process.stdout).readline()
        if not line:
            raise AssertionError(_pipe(self.process.stderr).read())
        return json.loads(line)

    def go_on(self) -> None:
        pipe = _pipe(self.process.stdin)
        pipe.write("\n")
        pipe.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        """Lets the child come to its end; returns what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return str(errors)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
