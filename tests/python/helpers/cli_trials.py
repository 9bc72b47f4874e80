"""Command lines as a new user types them, each in a process of its own and all in little time.

A process that has imported the command line forks for each trial; the fork ends as a program
does. It has only what the wheel itself needs, and may not write where it stands.

Run as a program it is that process; imported it is the test's end of it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

# What a wheel without extras does not bring.
ABSENT = ("torch", "vllm", "prometheus_client", "plotly", "pyarrow", "pandas", "psutil", "IPython")
LIMIT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one trial ended; ``interrupted``: by Ctrl-C, since it went on."""

    status: int
    out: str
    err: str
    interrupted: bool


class Trials:
    """Runs trials in ``folder``; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stand = folder / "stand"
        self._stand.mkdir()
        self._stand.chmod(0o555)
        self._desk = folder / "desk"
        self._desk.mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MEMACCT", "_MEMACCT"))}
        plain = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "40", "HOME": str(self._stand)}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**kept, **plain},
            text=True,
        )

    def run(
        self,
        arguments: Sequence[str],
        *,
        closed: bool = False,
        writable: bool = False,
        patience_s: float = 20.0,
    ) -> Ending:
        """Returns how ``memacct ARGUMENTS`` ended.

        Args:
            arguments: of the command line.
            closed: nobody reads what it prints.
            writable: it may write where it stands.
            patience_s: when it is interrupted if it goes on.
        """
        out, err = self._folder / "out", self._folder / "err"
        stand = str(self._desk if writable else self._stand)
        task = {"arguments": list(arguments), "stand": stand, "patience_s": patience_s}
        task |= {"out": None if closed else str(out), "err": str(err)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ending(
            status=answer["status"],
            interrupted=answer["interrupted"],
            out="" if closed else out.read_text(),
            err=err.read_text(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(LIMIT_S)


# ---------------------------------------------------------------- that process's own functions


def _become(task: dict[str, Any]) -> None:
    """Makes a fork the process of a trial."""
    os.setsid()
    os.chdir(task["stand"])
    if task["out"] is None:
        reader, out = os.pipe()
        os.close(reader)
    else:
        out = os.open(task["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    err = os.open(task["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for old, new in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(old, new)
    os.closerange(3, 64)
    _obey_permissions()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.argv = ["memacct", *task["arguments"]]


def _obey_permissions() -> None:
    """Gives up what lets root write where it may not: CAP_DAC_OVERRIDE and _READ_SEARCH."""
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice
    if libc.capget(header, sets) == 0:
        for place in (0, 1):
            sets[place] &= ~0b110
        libc.capset(header, sets)


def _watch(pid: int, patience_s: float) -> dict[str, Any]:
    """Waits for the end of a trial, and interrupts it when patience ends."""
    begin_s, interrupted = time.monotonic(), False
    while (done := os.waitpid(pid, os.WNOHANG))[0] == 0:
        elapsed_s = time.monotonic() - begin_s
        if elapsed_s > patience_s and not interrupted:
            interrupted = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGINT)
        if elapsed_s > LIMIT_S:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.005)
    return {"status": os.waitstatus_to_exitcode(done[1]), "interrupted": interrupted}


def _end_of(main: Callable[[], None]) -> int:
    """Runs a program as the interpreter does, without the time that its teardown takes."""
    status: Any = 0
    try:
        main()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:  # noqa: BLE001 (as the interpreter)
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored in: stdout {error!r}", file=sys.stderr)
        status = 120
    sys.stderr.flush()
    return int(status)


def _main() -> None:
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]
    import memacct.cli
    from memacct.cli._commands import COMMANDS, _load

    # What every fork would import again.
    for name, entry in COMMANDS.items():
        _load(name, entry)
    for module in ("memacct.cli._app", "typer.rich_utils", "rich.markdown", "rich.table"):
        importlib.import_module(module)
    for line in sys.stdin:
        task = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(task)
            os._exit(_end_of(memacct.cli.main))
        print(json.dumps(_watch(pid, task["patience_s"])), flush=True)


if __name__ == "__main__":
    _main()
