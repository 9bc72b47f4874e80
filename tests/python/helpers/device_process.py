"""A real process on a simulated GPU that runs what a test tells it to, and its side of the pipe.

The process reads lines of JSON text, each the source of some Python, runs it and answers with
the JSON of what it left in ``result``. Run as a program it is that process; imported it is the
test's end of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct import MemacctError, _core

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    from memacct.sim import Faults, SimulatedGpu

# ---------------------------------------------------------------- the test's end


class DeviceProcess:
    """One such process; ends with its ``with`` block.

    Args:
        gpu: the simulated machine; None is the real one.
        faults: what the simulated driver does wrong there.
        prefix: a command that runs it.
        env: more of its environment.
    """

    def __init__(
        self,
        gpu: SimulatedGpu | None,
        *,
        faults: Faults | str | None = None,
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        environ = dict(os.environ) if gpu is None else gpu.environ(faults=faults)
        environ.update(env or {})
        self._process = subprocess.Popen(
            [
                *(() if gpu is None else gpu.prefix),
                *prefix,
                sys.executable,
                str(Path(__file__).resolve()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            text=True,
        )
        self.pid: int = self.run("result = os.getpid()")

    def run(self, source: str) -> Any:
        """Runs `source` there and returns its ``result``; an error there is one here."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(source) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process ended with {self._process.wait(10)}"
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(f"in the process:\n{answer['error']}")
        return answer["result"]

    def read(self, key: int | str = 0, **options: Any) -> dict[str, Any]:
        """Returns its reading of a device as plain data."""
        reading: dict[str, Any] = self.run(f"result = reading({key!r}, **{options!r})")
        return reading

    def kill(self) -> None:
        """Ends it as SIGKILL does, and waits until it has ended."""
        self._process.kill()
        self._process.communicate()

    def ended(self) -> bool:
        """Returns whether it has ended; if so it has been reaped."""
        return self._process.poll() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(30)


# ---------------------------------------------------------------- that process's own functions

_pointers: list[int] = []
_pipes: list[int] = []


def cuda() -> ctypes.CDLL:
    """Returns the CUDA driver, loading it."""
    return ctypes.CDLL("libcuda.so.1")


def call(name: str, *args: Any) -> None:
    """Calls a driver function, which must succeed."""
    code = getattr(cuda(), name)(*args)
    if code != 0:
        raise OSError(code, name)


def context(device: int = 0, *, current: bool = True) -> None:
    """Makes the primary context, and leaves it current or not."""
    call("cuInit", 0)
    handle = ctypes.c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(handle), device)
    call("cuCtxSetCurrent", handle)
    if not current:
        call("cuCtxSetCurrent", None)


@contextlib.contextmanager
def primary(device: int = 0) -> Iterator[None]:
    """Has the primary context current on this thread meanwhile."""
    handle = ctypes.c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(handle), device)
    call("cuCtxPushCurrent_v2", handle)
    try:
        yield
    finally:
        call("cuCtxPopCurrent_v2", ctypes.byref(handle))
        call("cuDevicePrimaryCtxRelease_v2", device)


def allocate(size_bytes: int, device: int = 0) -> None:
    """Allocates with the driver, whatever context is current."""
    pointer = ctypes.c_uint64()
    with primary(device):
        call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes))
    _pointers.append(pointer.value)


def release(device: int = 0) -> None:
    """Frees the last allocation."""
    with primary(device):
        call("cuMemFree_v2", ctypes.c_uint64(_pointers.pop()))


def reading(key: int | str = 0, **options: Any) -> dict[str, Any]:
    """Returns a reading as plain data."""
    return _core.read_device(key, **options).to_dict()


def attempt(function: Any, *args: Any, **options: Any) -> Any:
    """Returns the plain data of a call, or {"raised": class, "text": message} of our errors."""
    try:
        value = function(*args, **options)
    except (MemacctError, ValueError) as error:
        return {"raised": type(error).__name__, "text": str(error)}
    if isinstance(value, tuple):
        return [item.to_dict() for item in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


def in_fork(source: str, *, faults: str | None = None, limit_s: int = 30) -> Any:
    """Runs `source` in a fork of this process and returns its result, or how it ended.

    With `faults`, this process must not have loaded the simulated libraries yet: they read
    their faults when they are first called.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(limit_s)
        if faults is not None:
            os.environ["MEMACCT_SIM_FAULTS"] = faults
        with os.fdopen(writer, "w") as out:
            json.dump(_answer(source), out)
            out.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        text = answers.read()
    _, status = os.waitpid(pid, 0)
    ended = os.waitstatus_to_exitcode(status)
    return json.loads(text) if ended == 0 and text else {"ended": ended}


class in_tree:  # noqa: N801 (reads as a function does)
    """A child of this process, a program of its own, that holds `size_bytes`; ends with us."""

    def __init__(
        self, size_bytes: int, *, context: bool = True, prefix: Sequence[str] = ()
    ) -> None:
        source = f"context(); allocate({size_bytes})" if context else "pass"
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(source) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def end(self) -> None:
        """Ends it and waits until it has."""
        self.process.communicate()


def become_another_program() -> None:
    """Starts this program afresh in this process (exec), which answers for it."""
    here = str(Path(__file__).resolve())
    answer = json.dumps({"result": None})
    source = (
        f"import runpy; print({answer!r}, flush=True);runpy.run_path({here!r}, run_name='__main__')"
    )
    os.execv(sys.executable, [sys.executable, "-c", source])  # noqa: S606 (no shell is wanted)


def unrelated(size_bytes: int) -> None:
    """Starts a program that holds `size_bytes`, in our pid namespace but not of our tree.

    It ends when we do. Its parent, which is us for a moment, has ended when this returns.
    """
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    ours, theirs = os.pipe()  # closed when we end
    source = (
        f"import runpy, os, sys; d = runpy.run_path({str(Path(__file__).resolve())!r});"
        f"d['context'](); d['allocate']({size_bytes}); os.write({writer}, b'.');"
        "sys.stdin.read()"
    )
    pid = os.fork()
    if pid == 0:
        subprocess.Popen([sys.executable, "-c", source], stdin=ours, pass_fds=[writer])
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    os.close(ours)
    _pipes.append(theirs)
    assert os.read(reader, 1) == b"."
    os.close(reader)


def _answer(source: str) -> dict[str, Any]:
    names: dict[str, Any] = globals()
    names["result"] = None
    try:
        exec(source, names)  # noqa: S102 (the test's own text)
    except BaseException:  # noqa: BLE001 (whatever it is, the test shall see it)
        return {"error": traceback.format_exc()}
    return {"result": names["result"]}


def main() -> None:
    """Answers until the pipe is closed."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
