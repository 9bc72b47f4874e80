"""A program that stands still at marks, while its memory is read from outside."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from memacct._core import snapshot
from memacct._errors import MemacctError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

_TAIL_CHARS = 600
_END_S = 10.0


class CalibrationError(MemacctError):
    """A program that measures ended, or hung, before it had told all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One program at one place.

    Attributes:
        name: of the place.
        held_bytes: what the process holds of its GPU outside PyTorch's allocator.
        by_process: the driver told it for this process; else it is the whole device's use, which
            is right if nobody else moves.
        told: what else the program said.
    """

    name: str
    held_bytes: int
    by_process: bool
    told: Mapping[str, Any] = field(default_factory=dict)


class StandingProgram:
    """A started program; a context manager that ends it.

    Args:
        command: what is run; it imports ``memacct_mark``.
        environ: its environment.
        log: where its output goes.
        limit_s: the longest way from one mark to the next.
    """

    def __init__(
        self, command: Sequence[str], *, environ: Mapping[str, str], log: Path, limit_s: float
    ) -> None:
        self._command = list(command)
        self._environ = dict(environ)
        self._log = log
        self._limit_s = limit_s
        self._go = -1
        self._lines: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        told_here, told_there = os.pipe()
        go_there, self._go = os.pipe()
        self._environ["MEMACCT_MARK_FDS"] = f"{told_there},{go_there}"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(told_there, go_there),
            )
        os.close(told_there)
        os.close(go_there)
        self._lines = os.fdopen(told_here, "rb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.close(self._go)  # a program that stands still then ends
        if self._process is not None:
            try:
                self._process.wait(0 if kind else _END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._lines is not None:
            self._lines.close()

    def next(self, name: str) -> Mark:
        """The next mark; the program stands still there until `go`.

        Raises:
            CalibrationError: it ended or hung, or is somewhere else.
        """
        line = self._line(name)
        values = json.loads(line)
        if values["mark"] != name:
            raise CalibrationError(f"{self._what()} is at {values['mark']!r}, not at {name!r}")
        used, by_process = _held_by(values)
        return Mark(
            name=name,
            held_bytes=used - values["reserved_bytes"],
            by_process=by_process,
            told=values,
        )

    def go(self) -> None:
        """Lets it go on; one that has ended meanwhile is told at the next mark."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"g")

    def at(self, name: str) -> Mark:
        """The next mark, after which it goes on at once."""
        found = self.next(name)
        self.go()
        return found

    def _line(self, name: str) -> bytes:
        if self._lines is None:
            raise RuntimeError("StandingProgram is a context manager: use it in a with statement")
        deadline = time.monotonic() + self._limit_s
        while not select.select([self._lines], [], [], max(deadline - time.monotonic(), 0))[0]:
            if time.monotonic() >= deadline:
                raise CalibrationError(
                    f"{self._what()} has not come to {name!r} within {self._limit_s:g} s"
                )
        line = self._lines.readline()
        if not line:
            tail = self._log.read_text(errors="replace")[-_TAIL_CHARS:].strip()
            raise CalibrationError(f"{self._what()} ended before {name!r}: {tail}")
        return line

    def _what(self) -> str:
        return next(word for word in self._command if word.endswith(".py")).rpartition("/")[2]


def _held_by(values: Mapping[str, Any]) -> tuple[int, bool]:
    """What a process holds of its device: by the driver's list, else all that is taken."""
    wanted = values["device"].removeprefix("GPU-")
    for device in snapshot(host="counters", devices="all").devices or ():
        if device.uuid.removeprefix("GPU-") != wanted:
            continue
        for process in device.processes:
            if process.pid == values["pid"] and process.process_used_bytes:
                return process.process_used_bytes, True
    return values["total_bytes"] - values["free_bytes"], False
