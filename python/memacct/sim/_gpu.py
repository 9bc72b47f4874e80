"""The simulated machine as a context manager: its settings, its processes, its state."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from memacct.cards import Card

from memacct._errors import ConfigError
from memacct._units import parse_bytes
from memacct.sim._build import build_runtime
from memacct.sim._card import card_settings
from memacct.sim._faults import Faults, ListName, faults_text, missing_symbols
from memacct.sim._libraries import DRIVER, NVML, REDIRECT, library_directory, make_link_directory
from memacct.sim._scenario import Scenario
from memacct.sim._status import MachineStatus, parse_status
from memacct.sim._tenant import Tenant, control_path

Size = int | str
Capability = tuple[int, int]
Command = Sequence[str | os.PathLike[str]]

_MACHINE_IN_USE = 3  # exit status of memacct_simctl create
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where shm_open puts it)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Device memory that libraries take, which differs by machine and is 0 unless set.

    Attributes:
        kernel_bytes: what a context grows by at the first launch of each kernel.
        kernels_limit_bytes: the most that this growth comes to; None for no limit.
        cublas_bytes: a cuBLAS handle.
        nccl_bytes: a communicator.
        nccl_first_bytes: a communicator's first collective.
        module_bytes: a module that the driver API loads.
        graph_bytes: an instantiated CUDA graph.
        graph_node_bytes: each node of one.
    """

    kernel_bytes: Size = 0
    kernels_limit_bytes: Size | None = None
    cublas_bytes: Size = 0
    nccl_bytes: Size = 0
    nccl_first_bytes: Size = 0
    module_bytes: Size = 0
    graph_bytes: Size = 0
    graph_node_bytes: Size = 0


class SimulatedGpu:
    """GPUs that the processes started on them share.

    Args:
        total_bytes: memory of each device, as NVML reports it; one for all or one each.
        count: devices, at most 16.
        context_bytes: what a process's CUDA context takes.
        reserved_bytes: what the driver keeps of each device; one for all or one each.
        unattributed_bytes: what is held by nobody who is listed.
        cuda_total_bytes: the total that CUDA reports, if less than NVML's.
        mig: which devices are divided into MIG instances, and the size of each instance; a
            size of 0 leaves its place empty. Or the sizes on device 0 alone.
        mig_reserved_bytes: what the driver keeps of each instance.
        mig_monitor: programs may see who is on a divided device, as administrators do.
        speeds: one number for each device: CUDA counts the fastest first.
        integrated: the devices share the host's memory; NVML tells no totals then, or with
            "wrong-totals" untrue ones.
        numa_node: the host's kernel manages the devices' memory, as this node and those that
            follow; what a process held stays taken after its end.
        name: the devices' name; one for all or one each.
        compute_capability: theirs, which their kernels' limits follow from; default (9, 0), and
            (12, 1) where they are integrated. One for all or one each.
        sm_count: their multiprocessors; default an H100's 132.
        l2_bytes: their L2 cache; default an H100's 50 MiB.
        peers: how they reach each other's memory.
        costs: what libraries take.
        faults: what the driver does wrong, for every program that is started here and says
            nothing else.
        machine: name of a machine that other commands can join and that stays; default
            one of its own, gone at the end of the ``with`` block.

    Attributes:
        tenants: the neighbours that a scenario begins with.

    Raises:
        ConfigError: the named machine is in use with other settings.
    """

    def __init__(
        self,
        *,
        total_bytes: Size | Sequence[Size] = "81559MiB",
        count: int = 1,
        context_bytes: Size = "400MiB",
        reserved_bytes: Size | Sequence[Size] = 0,
        unattributed_bytes: Size = 0,
        cuda_total_bytes: Size | None = None,
        mig: Mapping[int, Sequence[Size]] | Sequence[Size] = (),
        mig_reserved_bytes: Size = 0,
        mig_monitor: bool = False,
        speeds: Sequence[int] = (),
        integrated: bool | Literal["wrong-totals"] = False,
        numa_node: int | None = None,
        name: str | Sequence[str] = "NVIDIA H100 80GB HBM3",
        compute_capability: Capability | Sequence[Capability] | None = None,
        sm_count: int | Sequence[int] | None = None,
        l2_bytes: Size | Sequence[Size] | None = None,
        peers: Literal["nvlink", "pcie", "none"] = "nvlink",
        costs: Costs | None = None,
        faults: Faults | str | None = None,
        machine: str | None = None,
    ) -> None:
        totals = _bytes_text(total_bytes)
        self._faults = faults
        self._stays = machine is not None
        self._joins = False
        self.machine = machine or f"{os.getpid()}-{secrets.token_hex(4)}"
        costs = costs or Costs()
        self._settings = {
            "MEMACCT_SIM_MACHINE": self.machine,
            "MEMACCT_SIM_TOTAL_BYTES": totals,
            "MEMACCT_SIM_CUDA_TOTAL_BYTES": _bytes_text(cuda_total_bytes or totals.split(",")),
            "MEMACCT_SIM_MIG": _mig_text(mig),
            "MEMACCT_SIM_MIG_RESERVED_BYTES": str(parse_bytes(mig_reserved_bytes)),
            "MEMACCT_SIM_MIG_MONITOR": str(int(mig_monitor)),
            "MEMACCT_SIM_SPEEDS": ",".join(map(str, speeds)),
            "MEMACCT_SIM_DEVICES": str(count),
            "MEMACCT_SIM_CONTEXT_BYTES": str(parse_bytes(context_bytes)),
            "MEMACCT_SIM_RESERVED_BYTES": _bytes_text(reserved_bytes),
            "MEMACCT_SIM_UNATTRIBUTED_BYTES": str(parse_bytes(unattributed_bytes)),
            "MEMACCT_SIM_INTEGRATED": "yes" if integrated is True else integrated or "",
            "MEMACCT_SIM_NUMA_NODE": "" if numa_node is None else str(numa_node),
            "MEMACCT_SIM_NAME": name if isinstance(name, str) else "|".join(name),
            "MEMACCT_SIM_CAPABILITY": _capability_text(compute_capability),
            "MEMACCT_SIM_SM_COUNT": "" if sm_count is None else _bytes_text(sm_count),
            "MEMACCT_SIM_PEERS": peers,
            "MEMACCT_SIM_L2_BYTES": "" if l2_bytes is None else _bytes_text(l2_bytes),
            **_costs_environ(costs),
        }
        self._exit = contextlib.ExitStack()
        self._links: Path | None = None
        self._scenario = Scenario(name="", description="")
        self.tenants: tuple[Tenant, ...] = ()

    @classmethod
    def scenario(cls, scenario: str | Scenario, /, **settings: Any) -> SimulatedGpu:
        """Returns the machine of a named scenario, with its faults and its neighbours.

        Args:
            scenario: one of ``memacct.sim.scenarios.SCENARIOS``, by its name or itself.
            settings: what is to differ from the scenario's own.

        Raises:
            ConfigError: there is no such scenario.
        """
        from memacct.sim.scenarios import find

        found = find(scenario) if isinstance(scenario, str) else scenario
        gpu = cls(**{**found.settings, "faults": found.faults, **settings})
        gpu._scenario = found
        return gpu

    @classmethod
    def of_card(cls, card: str | Card, /, **settings: Any) -> SimulatedGpu:
        """Returns a machine of one or more such cards, by what the catalogue tells of them.

        Args:
            card: its name in the catalogue, or the catalogue's entry.
            settings: of the machine, and what is to differ from the card's own.

        Raises:
            ConfigError: there is no such card.
        """
        return cls(**{**card_settings(card), **settings})

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that the scenario's programs are run by; mostly empty."""
        if not self._scenario.files or self._links is None:
            return self._scenario.prefix
        return (*_laid_over(self._links / "files", self._scenario.files), *self._scenario.prefix)

    @classmethod
    def join(cls, machine: str) -> SimulatedGpu:
        """Returns the named machine as it stands, made with its settings by somebody else."""
        gpu = cls(machine=machine)
        gpu._settings = {"MEMACCT_SIM_MACHINE": machine}
        gpu._joins = True
        return gpu

    @staticmethod
    def exists(machine: str) -> bool:
        """Returns whether there is a machine of that name."""
        return _shared_memory(machine).exists()

    def __enter__(self) -> Self:
        self._links = Path(tempfile.mkdtemp(prefix="memacct-sim-"))
        self._exit.callback(shutil.rmtree, self._links, ignore_errors=True)
        if self._joins:
            return self
        made = self._control("create", check=False)
        if made.returncode != 0:
            self._exit.close()
            raise ConfigError(
                f"machine={self.machine!r} cannot be made: "
                + (
                    "it is in use with other settings"
                    if made.returncode == _MACHINE_IN_USE
                    else made.stderr.strip()
                )
            )
        if not self._stays:
            self._exit.callback(self._remove_machine)
        try:
            self.tenants = tuple(
                self.tenant(
                    one.holds,
                    device=one.device,
                    context_bytes=one.context_bytes,
                    lists=one.lists,
                )
                for one in self._scenario.tenants
            )
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    def environ(
        self,
        base: Mapping[str, str] | None = None,
        *,
        runtime: bool = False,
        python: str | os.PathLike[str] | None = None,
        faults: Faults | str | None = None,
    ) -> dict[str, str]:
        """Returns the environment for a program on this machine.

        Args:
            base: what it is added to; default this process's.
            runtime: also the CUDA runtime, cuBLAS and NCCL for an unmodified CUDA build of
                PyTorch; built first if needed, which takes half a minute.
            python: the Python whose wheels the runtime is for; default this one.
            faults: instead of the machine's.
        """
        text = faults_text(self._faults if faults is None else faults)
        links = self._link_directory(missing_symbols(text))
        environ = dict(os.environ if base is None else base)
        environ.update(self._settings)
        environ.update(self._scenario.env)
        environ["MEMACCT_SIM_FAULTS"] = text
        environ["MEMACCT_SIM_CONTAINER"] = secrets.token_hex(8)
        directories = [links]
        preload = [library_directory() / name for name in self._scenario.preload]
        if runtime:
            directories.append(build_runtime(python=python or sys.executable))
            environ["LD_AUDIT"] = str(links / REDIRECT)
            preload += _preloaded(*directories)
            environ["TRITON_LIBCUDA_PATH"] = str(links)
            environ["MEMACCT_SIM_PATH"] = ":".join(map(str, directories))
        if preload:
            environ["LD_PRELOAD"] = ":".join(map(str, preload))
        before = environ.get("LD_LIBRARY_PATH")
        environ["LD_LIBRARY_PATH"] = ":".join(
            [*map(str, directories), *([before] if before else [])]
        )
        return environ

    def run(
        self,
        command: Command,
        *,
        runtime: bool = False,
        python: str | os.PathLike[str] | None = None,
        faults: Faults | str | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """Runs a program on this machine, as subprocess.run does; see `environ`."""
        environ = self.environ(env, runtime=runtime, python=python, faults=faults)
        full = [*self.prefix, *command]
        return subprocess.run(full, env=environ, **options)  # noqa: PLW1510 (the caller's)

    def popen(
        self,
        command: Command,
        *,
        runtime: bool = False,
        python: str | os.PathLike[str] | None = None,
        faults: Faults | str | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Starts a program on this machine, as subprocess.Popen does; see `environ`."""
        environ = self.environ(env, runtime=runtime, python=python, faults=faults)
        return subprocess.Popen([*self.prefix, *command], env=environ, **options)

    def status(self) -> MachineStatus:
        """Returns the true state of every device."""
        return parse_status(self._control("status").stdout)

    def tenant(
        self,
        holds: Size = 0,
        *,
        device: int | str = 0,
        context_bytes: Size | None = None,
        lists: Sequence[ListName] = ("compute",),
    ) -> Tenant:
        """Starts a neighbour that holds `holds` bytes besides its context.

        Args:
            holds: what it allocates at once, in whole pages of 2 MiB.
            device: the machine's device, or a UUID: that of a MIG instance.
            context_bytes: its context; default the machine's.
            lists: those of NVML's lists that it stands in.

        Raises:
            TenantError: out of memory, or no such device.
        """
        environ = {**os.environ, **self._settings}
        environ.pop("CUDA_VISIBLE_DEVICES", None)
        environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        if isinstance(device, str):
            environ["CUDA_VISIBLE_DEVICES"], device = device, 0
        if context_bytes is not None:
            environ["MEMACCT_SIM_CONTEXT_BYTES"] = str(parse_bytes(context_bytes))
        environ["MEMACCT_SIM_LISTS"] = ",".join(lists)
        tenant = Tenant(environ, device)
        self._exit.callback(tenant.close)
        if parse_bytes(holds):
            tenant.allocate(holds)
        return tenant

    def change_unattributed(self, delta_bytes: int, *, device: int = 0) -> None:
        """Adds bytes that nobody who is listed holds, or takes them away again."""
        self._control("unattributed", str(device), str(delta_bytes))

    def _control(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **self._settings}
        return subprocess.run(
            [control_path(), *arguments], env=environ, check=check, text=True, capture_output=True
        )

    def _link_directory(self, missing: tuple[str, ...]) -> Path:
        if self._links is None:
            raise RuntimeError("SimulatedGpu is a context manager: use it in a with statement")
        where = self._links / ("lib-" + str(abs(hash(missing))) if missing else "lib")
        if not where.exists():
            make_link_directory(where, missing)
        return where

    def _remove_machine(self) -> None:
        _shared_memory(self.machine).unlink(missing_ok=True)


def _bytes_text(sizes: Size | Sequence[Size]) -> str:
    each = (sizes,) if isinstance(sizes, int | str) else sizes
    return ",".join(str(parse_bytes(size)) for size in each)


def _capability_text(given: Capability | Sequence[Capability] | None) -> str:
    if given is None:
        return ""
    each = [given] if isinstance(given[0], int) else given
    return ",".join("{}.{}".format(*one) for one in each)  # type: ignore[misc]


def _costs_environ(costs: Costs) -> dict[str, str]:
    limit = costs.kernels_limit_bytes
    return {
        "MEMACCT_SIM_KERNEL_BYTES": str(parse_bytes(costs.kernel_bytes)),
        "MEMACCT_SIM_KERNELS_LIMIT_BYTES": "" if limit is None else str(parse_bytes(limit)),
        "MEMACCT_SIM_CUBLAS_BYTES": str(parse_bytes(costs.cublas_bytes)),
        "MEMACCT_SIM_NCCL_BYTES": str(parse_bytes(costs.nccl_bytes)),
        "MEMACCT_SIM_NCCL_FIRST_BYTES": str(parse_bytes(costs.nccl_first_bytes)),
        "MEMACCT_SIM_MODULE_BYTES": str(parse_bytes(costs.module_bytes)),
        "MEMACCT_SIM_GRAPH_BYTES": str(parse_bytes(costs.graph_bytes)),
        "MEMACCT_SIM_GRAPH_NODE_BYTES": str(parse_bytes(costs.graph_node_bytes)),
    }


def _mig_text(mig: Mapping[int, Sequence[Size]] | Sequence[Size]) -> str:
    by_device = mig if isinstance(mig, Mapping) else {0: mig} if mig else {}
    return ";".join(f"{device}={_bytes_text(sizes)}" for device, sizes in by_device.items())


def _laid_over(where: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    """A command that runs another one with these texts in the place of the kernel's files."""
    where.mkdir(exist_ok=True)
    mounts = []
    for number, (path, text) in enumerate(files.items()):
        (where / str(number)).write_text(text)
        mounts.append(shlex.join(["mount", "--bind", str(where / str(number)), path]))
    # Whoever is not root becomes root of a user namespace of its own first.
    unshare = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-rm")
    return (*unshare, "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh")


def _shared_memory(machine: str) -> Path:
    return _SHARED_MEMORY / f"memacct_sim.{machine}"


def _preloaded(links: Path, runtime: Path) -> list[Path]:
    """The libraries that the dynamic linker shall bind by their SONAME, in its order."""
    found = [links / DRIVER, links / NVML]
    for pattern in ("libcudart.so.*", "libcublasLt.so.*", "libcublas.so.*", "libnccl.so.2"):
        found += sorted(runtime.glob(pattern))
    return found
