"""Where a scenario takes place: the machine's own GPU if it has one, else a simulated one."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memacct._units import KIB, format_bytes
from memacct.sim import Costs, Faults, SimulatedGpu

from .neighbour import probe
from .scenarios import DEVICE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Round figures of the order that one sees on a H100, so that graphs are not free of charge.
COSTS = Costs(graph_bytes=512 * KIB)


@dataclass(frozen=True, kw_only=True)
class SimulatedMachine:
    """One simulated machine; `python` is the interpreter whose wheels the engine uses."""

    gpu: SimulatedGpu
    python: Path
    faults: Faults | None
    total_bytes: int = DEVICE_BYTES

    def engine_environ(self) -> Mapping[str, str]:
        """For a process with a CUDA build of torch."""
        return self.gpu.environ(runtime=True, python=self.python, faults=self.faults)

    def neighbour_environ(self) -> Mapping[str, str]:
        """For a process that uses only the driver's interface."""
        return self.gpu.environ()


@dataclass(frozen=True, kw_only=True)
class SimulatedWorld:
    """Simulated GPUs of 32 GiB.

    Attributes:
        faults: what the driver does wrong for the engines, in every scenario.
        reason: why not the real GPU that is there, for people; None: there is none, or it
            was not asked for.
    """

    python: Path
    reason: str | None = None
    faults: Faults | None = None
    name: str = "a SIMULATED GPU of 32 GiB (no real GPU is used)"
    simulated: bool = True

    @contextmanager
    def machine(self, *, device_count: int, host_pids: bool) -> Iterator[SimulatedMachine]:
        """A machine of its own, gone afterwards."""
        faults = Faults(pids="host") if host_pids else self.faults
        with SimulatedGpu(total_bytes=DEVICE_BYTES, count=device_count, costs=COSTS) as gpu:
            yield SimulatedMachine(gpu=gpu, python=self.python, faults=faults)


@dataclass(frozen=True, kw_only=True)
class RealMachine:
    """This machine as it is."""

    total_bytes: int

    def engine_environ(self) -> Mapping[str, str]:
        """This process's environment."""
        return dict(os.environ)

    def neighbour_environ(self) -> Mapping[str, str]:
        """The same."""
        return dict(os.environ)


@dataclass(frozen=True, kw_only=True)
class RealWorld:
    """The machine's own first GPU; what cannot be had there is simulated.

    Attributes:
        fallback: for scenarios that need several GPUs or another PID namespace.
    """

    device_name: str
    total_bytes: int
    fallback: SimulatedWorld
    simulated: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"the REAL GPU {self.device_name}"

    @contextmanager
    def machine(
        self, *, device_count: int, host_pids: bool
    ) -> Iterator[RealMachine | SimulatedMachine]:
        """The machine itself; nothing on it is changed."""
        if device_count > 1 or host_pids:
            with self.fallback.machine(device_count=device_count, host_pids=host_pids) as machine:
                yield machine
        else:
            yield RealMachine(total_bytes=self.total_bytes)


# The driver and the display take some; the scenarios leave so much untouched.
ENOUGH_FREE_BYTES = DEVICE_BYTES * 9 // 10


def choose_world(python: Path, *, simulate: bool = False) -> SimulatedWorld | RealWorld:
    """The real GPU if it has the memory (and `simulate` is not set), else a simulated one."""
    return world_on(None if simulate else probe(os.environ), python)


def world_on(found: Mapping[str, Any] | None, python: Path) -> SimulatedWorld | RealWorld:
    """The world for the device that `probe` found, or for none."""
    if found is None:
        return SimulatedWorld(python=python)
    if found["free_bytes"] < ENOUGH_FREE_BYTES:
        reason = (
            f"{found['name']} has {format_bytes(found['free_bytes'])} free, but the scenarios "
            f"need {format_bytes(ENOUGH_FREE_BYTES)}"
        )
        return SimulatedWorld(python=python, reason=reason)
    return RealWorld(
        device_name=found["name"],
        total_bytes=found["total_bytes"],
        fallback=SimulatedWorld(python=python),
    )
