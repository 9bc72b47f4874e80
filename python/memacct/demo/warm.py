"""Engines that start in a second or two: forked from a process that has imported vLLM.

For tests and measurements that need many starts. Such an engine is the real one, in one process
(VLLM_ENABLE_V1_MULTIPROCESSING=0), on a simulated machine; what it lacks is the imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memacct._errors import MemacctError

from .engine import ENGINE_SIDE, EngineOptions, EngineResult, engine_environ, root_cause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .runner import Bench
    from .world import SimulatedMachine

CALLS_SOURCE = ENGINE_SIDE / "memacct_calls.cpp"
# What calls are counted as (memacct_calls.cpp): readings of free memory by the CUDA runtime or
# driver; allocations and frees; kernel launches; graph captures; NVML's calls about a device.
KINDS = ("readings", "memory", "launches", "graphs", "nvml")
READY_LIMIT_S = 180.0
_PACKET_BYTES = 64


class WarmError(MemacctError):
    """The warm process did not come up, or has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The engine stands still before the `call`-th call of `kind`, counted from 0."""

    kind: str
    call: int


class WarmEngines:
    """A warm process on one simulated machine; a context manager: leaving it ends all of it.

    A machine's faults are those of the warm process, since its imports load NVML.

    Args:
        bench: the interpreter with vLLM, the model, and the folder for logs.
        machine: where the engines run; empty again after each engine's end.
        count: engines stop at `pauses`, and their results tell `marks`; needs a C++ compiler.
    """

    def __init__(self, bench: Bench, machine: SimulatedMachine, *, count: bool = True) -> None:
        self.bench, self.machine, self.count = bench, machine, count
        self._exit = contextlib.ExitStack()
        self._environ: dict[str, str] = {}
        self._control: socket.socket | None = None

    def __enter__(self) -> WarmEngines:
        """Starts the process and waits for its imports (5 to 20 s)."""
        self.bench.folder.mkdir(parents=True, exist_ok=True)
        cache = self.bench.folder / "vllm-cache"
        self._environ = engine_environ(self.machine.engine_environ(), {}, "none", cache)
        if self.count:
            library = str(build_calls(self.bench.folder))
            before = self._environ.get("LD_PRELOAD", "")
            self._environ["LD_PRELOAD"] = f"{library}:{before}" if before else library
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = self._exit.enter_context(ours)
        modules = self.bench.folder / "warm-modules.txt"
        log_path = self.bench.folder / f"warm-{os.getpid()}-{id(self):x}.log"
        with theirs, log_path.open("wb") as log:
            process = subprocess.Popen(
                [
                    self.bench.python,
                    ENGINE_SIDE / "memacct_warm.py",
                    str(theirs.fileno()),
                    modules,
                ],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
            )
        self._exit.callback(process.wait)
        self._exit.callback(process.kill)  # its children have asked to end with it
        ours.settimeout(READY_LIMIT_S)
        if ours.recv(_PACKET_BYTES) != b"ready":
            self._exit.close()
            raise WarmError(f"the warm process has ended: {log_path.read_text()[-800:]}")
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the warm process and with it every engine."""
        self._exit.close()

    def start(
        self,
        options: EngineOptions,
        name: str,
        *,
        pauses: Sequence[Pause] = (),
        stay: bool = False,
        limit_s: float = 120.0,
    ) -> WarmStart:
        """Forks an engine. It runs while the caller goes on.

        Args:
            options: as for the other engines; one process unless its environment says else.
            name: of the folder for its log, result and reports.
            pauses: where it waits for `WarmStart.go`; reached as "pause N", in any order.
            stay: it holds its memory after its result until `go`.
            limit_s: after this many seconds without a word it is ended.
        """
        if self._control is None:
            raise WarmError("WarmEngines is a context manager: use it in a with statement")
        folder = self.bench.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        for stale in [*folder.glob("*.json"), *folder.glob("memacct/*.json*")]:
            stale.unlink()
        extra = {
            "MEMACCT_REPORT_DIR": str(folder / "memacct"),
            "MEMACCT_STAGE_DIR": str(folder),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            **options.environ,
        }
        cache = self.bench.folder / "vllm-cache"
        request = {
            "engine": options.engine_arguments(self.bench.model, self.machine.total_bytes),
            "steps": options.steps,
            "folder": str(folder),
            "environ": engine_environ(self._environ, extra, options.plugins, cache),
            "count": self.count,
            "pauses": [[KINDS.index(pause.kind), pause.call] for pause in pauses],
            "stay": stay,
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
        return WarmStart(folder, ours, limit_s)


class WarmStart:
    """One forked engine, from its fork to its end."""

    def __init__(self, folder: Path, channel: socket.socket, limit_s: float) -> None:
        self.folder, self.limit_s = folder, limit_s
        self._channel = channel
        self._started_s = time.monotonic()
        self._timed_out = False
        channel.settimeout(limit_s)
        said = self._receive()
        if not said.startswith("pid "):
            raise WarmError("the warm process has ended, or could not fork")
        self.pid = int(said[4:])
        self._end = os.pidfd_open(self.pid)

    def wait(self) -> str:
        """Waits for the next word: "pause N", "result", or "" when the engine has ended.

        After "pause N", and after "result" if it was told to stay, it waits for `go`.
        """
        return self._receive()

    def _receive(self) -> str:
        try:
            return self._channel.recv(_PACKET_BYTES).decode()
        except TimeoutError:
            self._timed_out = True
            self.kill()
        except ConnectionResetError:
            pass
        return ""

    def go(self) -> None:
        """Lets the engine go on. Nothing happens if it has ended."""
        with contextlib.suppress(OSError):
            self._channel.send(b"go")

    def kill(self) -> None:
        """Ends it as SIGKILL does."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._end, signal.SIGKILL)

    def finish(self) -> EngineResult:
        """Lets it go on to its end, whatever it waits for, and says how it went."""
        self.go()
        while self._receive():
            self.go()
        # The packets end before the process does, and with the process its memory.
        select.select([self._end], [], [], self.limit_s)
        os.close(self._end)
        self._channel.close()
        return self._result()

    def _result(self) -> EngineResult:
        path, log_path = self.folder / "result.json", self.folder / "engine.log"
        raw = json.loads(path.read_text()) if path.exists() else {}
        outcome = raw.get("outcome", "timeout" if self._timed_out else "failed")
        workers = tuple(raw.get("workers", ()))
        error = None
        if outcome != "served":
            said = f"{raw['error']}: {raw['message']}" if "error" in raw else None
            error = said or root_cause(log_path.read_text(errors="replace")) or outcome
        return EngineResult(
            outcome=outcome,
            log_path=log_path,
            wall_s=time.monotonic() - self._started_s,
            kv_cache_bytes=workers[0]["kv_cache_bytes"] if workers else None,
            error=error,
            start_s=raw.get("start_s"),
            workers=workers,
            versions=raw.get("versions", {}),
            raw=raw,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A step of a start: "load_model begins", "load_model ends" and so on.

    Attributes:
        name: the method that begins or ends; "measure" is vLLM's reading of the device.
        calls: by kind, how many had been made.
        at_ns: CLOCK_MONOTONIC.
    """

    name: str
    calls: Mapping[str, int]
    at_ns: int


def marks(result: EngineResult) -> tuple[Mark, ...]:
    """All steps of a start, in their order."""
    return tuple(
        Mark(name=name, calls=dict(zip(KINDS, counts, strict=True)), at_ns=at_ns)
        for name, counts, at_ns in result.raw.get("marks", ())
    )


def last_marks(result: EngineResult) -> dict[str, Mark]:
    """The last mark of each name."""
    return {mark.name: mark for mark in marks(result)}


def build_calls(folder: Path) -> Path:
    """Compiles the library that counts calls, unless it is there; returns it."""
    library = folder / "libmemacct_calls.so"
    if library.exists() and library.stat().st_mtime > CALLS_SOURCE.stat().st_mtime:
        return library
    part = library.with_suffix(f".{os.getpid()}.part")
    compiler = os.environ.get("CXX", "c++")
    flags = ("-std=c++20", "-O2", "-fPIC", "-shared")
    command = [compiler, *flags, str(CALLS_SOURCE), "-o", str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WarmError(f"{compiler} could not compile {CALLS_SOURCE.name}: {done.stderr[-500:]}")
    part.replace(library)
    return library
