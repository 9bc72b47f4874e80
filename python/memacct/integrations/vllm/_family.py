"""Own means the engine: which processes are one engine's, as they register themselves.

The process that configures an engine names it (``MEMACCT_ENGINE_ID``); the engine's processes
inherit the name and put themselves into a folder of that name, where a worker looks for them.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
from typing import TYPE_CHECKING, Any

from memacct.integrations.vllm._family_files import Entry, Registry, sweep
from memacct.integrations.vllm._family_processes import pid_namespace, start_ticks

if TYPE_CHECKING:
    from memacct._core import DeviceMemory

logger = logging.getLogger("vllm.memacct")

ID_VARIABLE = "MEMACCT_ENGINE_ID"
#: The engine's process that started this one; what a daemon of unknown parents is charged to.
PROCESS_VARIABLE = "MEMACCT_ENGINE_PROCESS"
# A name that memacct made: the next engine of the same process gets another. Any other name
# is the user's, who joins commands to one engine by it, and stays.
_MADE = "made-by-memacct-"

WORKER = "worker"
ENGINE_CORE = "EngineCore"
API_SERVER = "API server"
USER = "the user's process"
WEIGHT_CACHE = "weight-cache daemon"


class Family:
    """This process's place in its engine."""

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.lost_reason: str | None = None
        self._hooks_forks = False

    @property
    def engine_id(self) -> str | None:
        """The engine's name; None: this process belongs to none."""
        return os.environ.get(ID_VARIABLE) or None

    @property
    def is_registered(self) -> bool:
        """Whether this very process is, not only the one it was forked from."""
        return self.entry is not None and self.entry.pid == os.getpid()

    def join(self, role: str, **known: Any) -> None:
        """Registers this process, in the place of what it was before."""
        self.put(_entry_of(os.getpid(), role, **known))
        if role != USER and not self._hooks_forks:
            # A daemon that an engine's process forks off keeps neither parent nor, as it starts
            # no program, an environment that names the engine.
            os.register_at_fork(after_in_child=self._after_fork)
            self._hooks_forks = True

    def put(self, entry: Entry) -> None:
        """Writes an entry; where that fails, siblings stay foreign and the report says so."""
        if entry.pid == os.getpid():
            self.entry = entry
            os.environ[PROCESS_VARIABLE] = str(entry.pid)
        try:
            self.registry().write(entry)
        except OSError as error:
            self._lose(error)

    def registry(self) -> Registry:
        """The engine's files."""
        return Registry(self.engine_id or "")

    def entries(self) -> list[Entry]:
        """The engine's living processes; none where this process belongs to no engine."""
        if self.engine_id is None:
            return []
        try:
            return list(self.registry().entries().values())
        except OSError as error:
            self._lose(error)
            return []

    def _after_fork(self) -> None:
        parent = self.entry
        # Whatever goes wrong here is not the forked program's fault.
        try:
            if parent is None or parent.role == USER or self.engine_id is None:
                return
            self.registry().write(
                dataclasses.replace(
                    parent,
                    pid=os.getpid(),
                    started_ticks=start_ticks(os.getpid()),
                    role=f"fork of {parent.title}",
                    rank=None,
                    driver_pid=None,
                    belongs_to=parent.pid,
                )
            )
        except Exception:  # noqa: BLE001, S110
            pass

    def _lose(self, error: OSError) -> None:
        if self.lost_reason is None:
            self.lost_reason = f"the registry of the engine's processes is not usable: {error}"
            logger.warning(
                "memacct: %s. What they hold on this GPU counts as neighbours'", self.lost_reason
            )


family = Family()


# ---------------------------------------------------------------- joining


def begin_engine(usage: object = None, *, decodes: bool = False) -> None:
    """Names the engine that this process has just configured, and joins it.

    API servers beside the first configure the same engine once more and keep its name; so does
    one whose name the user has chosen.

    Args:
        usage: vLLM's usage context: whether this is a server's process or a user's.
        decodes: whether this process is to decode media on the GPU for the engine.
    """
    inherited = os.environ.get(ID_VARIABLE, "")
    is_another_server = multiprocessing.current_process().name.startswith("ApiServer")
    if not inherited or (inherited.startswith(_MADE) and not is_another_server):
        os.environ[ID_VARIABLE] = _MADE + os.urandom(8).hex()
        sweep()
    is_server = "API_SERVER" in str(getattr(usage, "value", usage)) or is_another_server
    family.join(API_SERVER if is_server or decodes else USER)


def join_engine_core(vllm_config: object) -> None:
    """Registers the process of an EngineCore, unless it is of no engine, or more than that."""
    if family.engine_id is None or family.is_registered:
        return
    family.join(ENGINE_CORE, dp_rank=_dp_rank(vllm_config))


def join_worker(worker: Any) -> None:
    """Registers a worker's process before it initialises its device."""
    config = getattr(worker, "vllm_config", None)
    if family.engine_id is None:
        # The plugin was kept out of the process that configured the engine.
        os.environ[ID_VARIABLE] = f"{_MADE}{getattr(config, 'instance_id', '') or 'unnamed'}"
    family.join(WORKER, rank=int(worker.rank), dp_rank=_dp_rank(config))


def found_device(device: DeviceMemory | None) -> None:
    """Adds to this worker's entry which device is its own and how the driver lists it there."""
    if device is None or family.entry is None or not family.is_registered:
        return
    now = dataclasses.replace(
        family.entry, device_uuid=device.uuid, driver_pid=device.attribution.own_pid
    )
    if now != family.entry:
        family.put(now)


def register_sibling(pid: int, *, role: str = "sibling", driver_pid: int | None = None) -> None:
    """Counts process ``pid`` as one of this process's engine from now on.

    To be called in any process of the engine (or one with its ``MEMACCT_ENGINE_ID``), for
    helpers that were started apart from it. Another way is to start them with the same
    ``MEMACCT_ENGINE_ID``.

    Args:
        pid: in this process's pid namespace.
        role: what it is, for reports.
        driver_pid: the number by which the driver lists it, where that is another one.

    Raises:
        ValueError: there is no such process, or this process belongs to no engine.
    """
    if family.engine_id is None:
        raise ValueError(
            f"{ID_VARIABLE} is not set: this process belongs to no engine with memacct's profiler"
        )
    entry = _entry_of(pid, role, driver_pid=driver_pid)
    if entry.started_ticks is None and pid_namespace() is not None:
        raise ValueError(f"there is no process {pid}")
    family.put(entry)


def _entry_of(pid: int, role: str, **known: Any) -> Entry:
    return Entry(
        pid=pid, role=role, started_ticks=start_ticks(pid), namespace=pid_namespace(), **known
    )


def _dp_rank(vllm_config: object) -> int | None:
    parallel = getattr(vllm_config, "parallel_config", None)
    # Engines of dense models are made independent: then only the index tells them apart.
    index = getattr(parallel, "data_parallel_index", None)
    found = getattr(parallel, "data_parallel_rank", None) if index is None else index
    return int(found) if isinstance(found, int) else None
