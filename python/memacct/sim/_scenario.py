"""What a named scenario of the simulated GPU consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memacct.sim._faults import Faults, ListName

Size = int | str

# One card for most of them, so that every answer can be compared with every other.
CARD: Mapping[str, Any] = {"total_bytes": "32GiB", "reserved_bytes": "500MiB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioTenant:
    """A neighbour that is there from the beginning.

    Attributes:
        holds: what it allocates besides its context, in whole pages of 2 MiB.
        device: the machine's device, or the UUID of a MIG instance.
        context_bytes: its context; None: the machine's.
        lists: those of NVML's lists that it stands in.
    """

    holds: Size = 0
    device: int | str = 0
    context_bytes: Size | None = None
    lists: tuple[ListName, ...] = ("compute",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One machine as somebody has met it: its devices, its driver, its tenants.

    Attributes:
        name: words with hyphens, such as "host-pids".
        description: one line: what is special here, and where it was seen.
        settings: arguments of ``SimulatedGpu``.
        faults: what the driver does wrong, or differently, for every program started there.
        tenants: the neighbours.
        env: more of the programs' environment.
        preload: libraries of memacct's own that the programs are started with, by file name.
        prefix: a command that runs the programs, such as one that makes a PID namespace.
        files: texts that the programs see in the place of the kernel's files, by path; laid
            over them in a mount namespace, which takes root or a user namespace.
    """

    name: str
    description: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    tenants: tuple[ScenarioTenant, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    preload: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
