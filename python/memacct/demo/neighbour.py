"""Commands a neighbour: a process of its own that holds memory of the same GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from memacct._errors import MemacctError

from .engine import ENGINE_SIDE

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT = ENGINE_SIDE / "memacct_neighbour.py"


class NeighbourError(MemacctError):
    """The neighbour could not do what it was told, or has ended."""


class Neighbour:
    """A process that holds device memory; a context manager: leaving it ends the process.

    Each command returns when the driver has carried it out, so that the caller knows the order of
    events across processes.
    """

    def __init__(self, environ: Mapping[str, str], device: int = 0) -> None:
        self.environ, self.device = dict(environ), device
        self.process: subprocess.Popen[str] | None = None
        self.last: dict[str, Any] = {}

    def __enter__(self) -> Neighbour:
        """Starts the process and waits for its context."""
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.device)],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read("start")
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process, which gives its memory back."""
        if self.process is None:
            return
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self) -> int:
        """Of the process."""
        if self.process is None:
            raise NeighbourError("not started")
        return self.process.pid

    def command(self, line: str) -> None:
        """Sends one command of engine_side/memacct_neighbour.py and waits until it is done.

        Raises:
            NeighbourError: the driver refused, or the process has ended.
        """
        if self.process is None or self.process.stdin is None:
            raise NeighbourError("not started")
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        self._read(line)

    def _read(self, line: str) -> None:
        if self.process is None or self.process.stdout is None:
            raise NeighbourError("not started")
        text = self.process.stdout.readline()
        self.last = json.loads(text) if text else {"error": "the process has ended"}
        if self.last.get("error"):
            raise NeighbourError(f"{line}: {self.last['error']}")


def probe(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Name, free and total bytes of the first CUDA device, or None if there is none."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--probe"],
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0 or not done.stdout:
        return None
    report: dict[str, Any] = json.loads(done.stdout)
    return report
