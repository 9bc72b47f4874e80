"""Engines that are forked from a process that has imported vLLM (see engine_host.py)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct.demo.engine import EngineRun, engine_environ
from memacct.demo.world import COSTS, SimulatedMachine
from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from memacct.demo.runner import Machine

DEVICE_BYTES = 32 << 30
HOST = Path(__file__).with_name("engine_host.py")
SETTLE_S = 20.0
# Kernels that are left out of the environments, and which some versions demand on such a GPU.
WITHOUT = {"VLLM_USE_DEEP_GEMM": "0", "VLLM_MOE_USE_DEEP_GEMM": "0"}


class HostError(RuntimeError):
    """The host ended, or could not import vLLM."""


class Child:
    """A process of the host, with what EngineRun asks of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        """None while it runs; its exit status is the kernel's secret."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return None

    def wait(self) -> None:
        """Until it has ended."""
        while self.poll() is None:
            time.sleep(0.01)


class EngineHost:
    """A process that has imported vLLM; a context manager.

    Args:
        python: the engine's interpreter.
        environ: of the machine on which all its engines run.
        folder: for its log.
    """

    def __init__(self, python: Path, environ: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.python, self.log_path = python, folder / "host.log"
        self.environ = engine_environ(environ, WITHOUT, "none", folder / "vllm-cache")
        self.process: subprocess.Popen[str] | None = None
        self.imported: list[str] = []

    def __enter__(self) -> EngineHost:
        """Waits until it is ready."""
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                [self.python, str(HOST)],
                env=self.environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.imported = self._answer()["imported"]
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it; the engines end with it."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def start(self, order: Mapping[str, Any]) -> Child:
        """Forks an engine.

        Raises:
            HostError: the host has ended.
        """
        if self.process is None or self.process.stdin is None:
            raise HostError("not started")
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return Child(int(self._answer()["pid"]))

    def _answer(self) -> dict[str, Any]:
        """The next line of JSON: what it imports may print too."""
        if self.process is None or self.process.stdout is None:
            raise HostError("not started")
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise HostError(f"vLLM cannot be imported: {self.log_path.read_text()[-800:].strip()}")

    def make_run(self, *args: Any, **kwargs: Any) -> HostedRun:
        """For `Bench.make_run`."""
        return HostedRun(self, *args, **kwargs)


class HostedRun(EngineRun):
    """An EngineRun whose process is forked by the host."""

    def __init__(self, host: EngineHost, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environ = {**WITHOUT, **self.environ}
        self.host = host

    def __enter__(self) -> HostedRun:
        """Starts the engine."""
        order = {
            "request": str(self.folder / "request.json"),
            "log": str(self.log_path),
            "environ": self.environ,
        }
        self.process = self.host.start(order)  # type: ignore[assignment]
        self.started_s = time.monotonic()
        return self


@dataclass(frozen=True, kw_only=True)
class OneMachine:
    """A world whose machine stays: two simulated GPUs for all scenarios of a version."""

    gpu: SimulatedGpu
    python: Path
    name: str = "two SIMULATED GPUs of 32 GiB"
    simulated: bool = True

    @property
    def kept(self) -> SimulatedMachine:
        """The machine."""
        return SimulatedMachine(gpu=self.gpu, python=self.python, faults=None)

    @contextmanager
    def machine(self, *, device_count: int, host_pids: bool) -> Iterator[Machine]:
        """The machine, once everybody has left it.

        Raises:
            HostError: somebody stays.
        """
        if host_pids or device_count > len(self.gpu.status().devices):
            raise HostError("this machine has two GPUs and one PID namespace")
        self.wait_until_empty()
        yield self.kept
        self.wait_until_empty()

    def wait_until_empty(self) -> None:
        """Until no process is on any of its devices."""
        deadline_s = time.monotonic() + SETTLE_S
        while left := [p for device in self.gpu.status().devices for p in device.processes]:
            if time.monotonic() > deadline_s:
                raise HostError(f"still on the simulated GPU: {left}")
            time.sleep(0.05)


@contextmanager
def hosted_gpu(python: Path, folder: Path) -> Iterator[tuple[OneMachine, EngineHost]]:
    """A machine with two simulated GPUs and a host on it."""
    with SimulatedGpu(total_bytes=DEVICE_BYTES, count=2, costs=COSTS) as gpu:
        world = OneMachine(gpu=gpu, python=python)
        with EngineHost(python, world.kept.engine_environ(), folder) as host:
            yield world, host
