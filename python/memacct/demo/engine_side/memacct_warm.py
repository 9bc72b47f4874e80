"""A process that has imported vLLM, and forks one in-process engine for each request.

Most of an engine's start is imports: without them it takes one or two seconds. Nothing of CUDA is
touched before the fork, so each engine initialises the device by itself, as in a fresh process.

    python memacct_warm.py SOCKET_FD MODULES_FILE

A request is one packet of JSON with one socket attached, by which the engine tells "pid N",
"pause N" (waits for an answer), "result" (its JSON is written; waits for an answer if told to
stay). MODULES_FILE keeps what engines imported besides; later forks find it imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import memacct_engine_main  # type: ignore[import-not-found] # in this folder
import memacct_stage  # type: ignore[import-not-found] # in this folder

# What calls are counted as; the numbers are those of memacct_calls.cpp.
KINDS = ("readings", "memory", "launches", "graphs", "nvml")
REQUEST_BYTES = 1 << 18
# The steps of a start, as (owner, method): the worker's own, and its runner's.
WORKER_STEPS = (
    "load_model",
    "determine_available_memory",
    "initialize_from_config",
    "compile_or_warm_up_model",
)
RUNNER_STEPS = ("profile_run", "profile_cudagraph_memory", "capture_model")


# The engine, held to the end of its process: to take it apart takes as long as to start it.
kept: list[Any] = []


class Pause(ctypes.Structure):
    """Stand still before this call of its kind."""

    _fields_ = (("kind", ctypes.c_uint32), ("call", ctypes.c_uint32))


class Marks:
    """How many calls of each kind had been made at each step of the start."""

    def __init__(self) -> None:
        """Finds the preloaded library; without it nothing is counted."""
        self.library = ctypes.CDLL(None)
        self.taken: list[tuple[str, list[int], int]] = []

    def watch(self, channel: socket.socket, pauses: list[list[int]]) -> None:
        """Starts to count, with pauses of (kind, call)."""
        array = (Pause * len(pauses))(*[Pause(*pause) for pause in pauses])
        size = ctypes.c_size_t(len(pauses))
        self.library.memacct_calls_watch(channel.fileno(), array, size)

    def take(self, name: str) -> None:
        """Notes the counts and the time (CLOCK_MONOTONIC, ns) under `name`."""
        counts = (ctypes.c_uint64 * len(KINDS))()
        self.library.memacct_calls_counts(counts)
        self.taken.append((name, list(counts), time.monotonic_ns()))

    def around(self, owner: Any, name: str) -> None:
        """Takes a mark before and after each call of `owner.name`, if there is such a thing."""
        original = getattr(owner, name, None)
        if original is None:
            return

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.take(f"{name} begins")
            try:
                return original(*args, **kwargs)
            finally:
                self.take(f"{name} ends")

        setattr(owner, name, wrapper)

    def follow(self) -> None:
        """Marks the baseline and, through the stage's extension, the steps after init_device."""
        from vllm.utils.mem_utils import MemorySnapshot

        # vLLM's own readings of the device; the first is what it starts from.
        self.around(MemorySnapshot, "measure")
        set_up = memacct_stage.set_up

        def set_up_and_follow(worker: Any, stage: Any) -> None:
            set_up(worker, stage)
            for name in WORKER_STEPS:
                self.around(worker, name)
            for name in RUNNER_STEPS:
                self.around(worker.model_runner, name)

        memacct_stage.set_up = set_up_and_follow


def import_listed(modules: Path) -> None:
    """Imports what engines before imported; what fails is left for the engine itself."""
    import torch

    listed = modules.read_text().split() if modules.exists() else []
    for name in listed:
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    if torch.cuda.is_initialized():
        raise RuntimeError("an import has initialised CUDA: a forked engine could not use it")
    gc.collect()
    gc.freeze()


def list_new(modules: Path, before: frozenset[str]) -> None:
    """Adds to the list what this engine imported and is not in it."""
    listed = set(modules.read_text().split()) if modules.exists() else set()
    new = sorted(set(sys.modules) - before - listed)
    if new:
        with modules.open("a") as file:
            file.write("\n".join(new) + "\n")


def run_engine(request: dict[str, Any], channel: socket.socket) -> dict[str, Any]:
    """One start, its report and a few tokens; what went wrong is the result."""
    marks = Marks()
    if request["count"]:
        marks.watch(channel, request["pauses"])
        marks.follow()
    started_s = time.monotonic()
    llm = None
    try:
        llm = memacct_engine_main.make_engine(request)
        if marks.taken:
            marks.take("started")
        result: dict[str, Any] = memacct_engine_main.run(
            llm, time.monotonic() - started_s, steps=request["steps"]
        )
    except Exception as error:  # noqa: BLE001 - whatever stops the engine is the result
        traceback.print_exc()
        result = {"outcome": "failed", "error": type(error).__name__, "message": str(error)}
    kept.append(llm)
    result["marks"] = marks.taken
    return result


def child(request: dict[str, Any], channel: socket.socket, before: frozenset[str]) -> None:
    """The forked process, up to its end."""
    memacct_engine_main.end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environ"])
    folder = Path(request["folder"])
    log = os.open(folder / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    channel.send(f"pid {os.getpid()}".encode())
    result = run_engine(request, channel)
    list_new(Path(request["modules"]), before)
    result["versions"] = memacct_engine_main.versions()
    memacct_engine_main.write_json(folder / "result.json", result)
    sys.stdout.flush()
    channel.send(b"result")
    if request["stay"]:
        channel.recv(16)


def fork(request: dict[str, Any], channel: socket.socket) -> None:
    """Forks a child for one request; returns in the parent only."""
    before = frozenset(sys.modules)
    if os.fork() != 0:
        return
    status = 1
    try:
        child(request, channel, before)
        status = 0
    except BaseException:  # noqa: BLE001 - the child never returns to the parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> int:
    """Serves requests until the starter is gone, as the end of its socket tells."""
    control = socket.socket(fileno=int(sys.argv[1]))
    modules = Path(sys.argv[2])
    import vllm.entrypoints.llm

    assert vllm.entrypoints.llm  # noqa: S101 - imported for the engines
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children here
    known_bytes = -1
    control.send(b"ready")
    while True:
        packet, fds, _, _ = socket.recv_fds(control, REQUEST_BYTES, 1)
        if not packet:
            return 0
        size_bytes = modules.stat().st_size if modules.exists() else 0
        if size_bytes != known_bytes:
            known_bytes = size_bytes
            import_listed(modules)
        with socket.socket(fileno=fds[0]) as channel:
            fork({**json.loads(packet), "modules": str(modules)}, channel)


if __name__ == "__main__":
    sys.exit(main())
