"""One CPU worker's start: a budget from what the worker really holds.

vLLM's CPU worker subtracts its RSS from what was requested. RSS counts pages that the
kernel can take back at any time: checkpoints read through mmap, the text of libraries.
Here the worker's anonymous, shared and dirty memory is subtracted instead, and memory
that the kernel could reclaim within the control group counts as available.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct._errors import BudgetError
from memacct.integrations.vllm._cpu_report import CPUReport
from memacct.integrations.vllm._hooks import wrap
from memacct.integrations.vllm._own_time import own_time
from memacct.integrations.vllm._report_file import write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.integrations.vllm._config import PluginConfig

logger = logging.getLogger("vllm.memacct")

_WORKER_MODULE = "vllm.v1.worker.cpu_worker"


class CPUSession:
    """Follows one CPU worker; corrects its budget where vLLM would have used RSS."""

    def __init__(self, worker: Any, config: PluginConfig) -> None:
        self.worker = worker
        self.config = config
        self.is_initialising = False
        self.report: CPUReport | None = None
        self._available_bytes: int | None = None

    def before_init_device(self) -> None:
        """Wraps the method that decides the budget."""
        self.is_initialising = True
        wrap(self.worker, "determine_available_memory", self._around_budget)

    def after_init_device(self) -> None:
        """Nothing more to wrap on a CPU."""
        self.is_initialising = False

    def _around_budget(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        module: Any = sys.modules.get(_WORKER_MODULE)
        explicit = self.worker.cache_config.kv_cache_memory_bytes is not None
        if explicit or not hasattr(self.worker, "requested_cpu_memory"):
            return original(*args, **kwargs)  # the user's own number: RSS plays no part
        if module is None or not hasattr(module, "psutil"):
            logger.warning("memacct: this vLLM's CPU worker is not known; profiling stays stock")
            return original(*args, **kwargs)
        with self._held_instead_of_rss(module):
            budget = original(*args, **kwargs)
        self._tell(budget)
        return budget

    @contextlib.contextmanager
    def _held_instead_of_rss(self, module: Any) -> Iterator[None]:
        psutil, node_info = module.psutil, getattr(module, "get_memory_node_info", None)
        module.psutil = _Psutil(psutil, self)
        if node_info is not None:
            module.get_memory_node_info = self._reclaimable_counted(node_info)
        try:
            yield
        finally:
            module.psutil = psutil
            if node_info is not None:
                module.get_memory_node_info = node_info

    def _reclaimable_counted(self, node_info: Callable[..., Any]) -> Callable[..., Any]:
        def get_memory_node_info(*args: Any, **kwargs: Any) -> Any:
            info = node_info(*args, **kwargs)
            with own_time, contextlib.suppress(Exception):
                info.available_memory = _available_with_cache(info.available_memory)
            self._available_bytes = info.available_memory
            return info

        return get_memory_node_info

    def consumed_bytes(self, rss_bytes: int) -> int:
        """Returns what vLLM is to subtract instead of its RSS.

        Raises:
            BudgetError: the budget does not fit and ``on_shortfall`` is ``error``.
        """
        with own_time:
            try:
                return self._consumed(rss_bytes)
            except BudgetError:
                raise
            except Exception:
                if self.config.strict:
                    raise
                logger.exception("memacct: could not read this process; RSS is used, as stock")
                return rss_bytes

    def _consumed(self, rss_bytes: int) -> int:
        # Once per start, and the only way to tell dirty file pages: a walk of the page
        # tables, about 10 ms per GiB.
        reading = _core.snapshot("rollup", None, limits=True)
        held = reading.host.held_bytes
        if held is None:
            raise ValueError("the kernel does not tell anonymous from file memory")
        requested = int(self.worker.requested_cpu_memory)
        report = CPUReport(
            rank=int(self.worker.rank),
            requested_bytes=requested,
            rss_bytes=rss_bytes,
            held_bytes=held,
            available_bytes=self._available_bytes,
            margin_bytes=self.config.margin_bytes,
            snapshot=reading,
        )
        self.report = report
        if report.shortfall_bytes > 0 and self.config.on_shortfall == "error":
            raise BudgetError(f"{report.shortfall_story()}; on_shortfall is 'error'")
        if report.shortfall_bytes > 0:
            logger.warning("memacct: KV cache clamped: %s", report.shortfall_story())
        return requested - report.budget_bytes

    def _tell(self, budget_bytes: int) -> None:
        if self.report is None:
            return
        with own_time:
            try:
                logger.info("%s", self.report.text(budget_bytes))
                data = self.report.as_dict(budget_bytes)
                write_report(self.config.report_dir, f"rank{self.report.rank}", data)
            except Exception:
                if self.config.strict:
                    raise
                logger.exception("memacct: the report could not be made; the budget stands")


class _Psutil:
    """psutil as the worker's module sees it: this process's ``rss`` is what is to be charged."""

    def __init__(self, psutil: Any, session: CPUSession) -> None:
        self._psutil = psutil
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._psutil, name)

    def Process(self, pid: int | None = None) -> Any:  # noqa: N802 (psutil's name)
        process = self._psutil.Process(pid)
        return _OwnProcess(process, self._session) if process.pid == os.getpid() else process


class _OwnProcess:
    def __init__(self, process: Any, session: CPUSession) -> None:
        self._process = process
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)

    def memory_info(self) -> Any:
        info = self._process.memory_info()
        return info._replace(rss=self._session.consumed_bytes(info.rss))


def _available_with_cache(available_bytes: int) -> int:
    """Counts page cache that the kernel can reclaim within the control group.

    vLLM takes limit − usage, and usage has the page cache in it: the weights that were
    just read are charged to the group although they can go. Never more than the machine
    has available.
    """
    cgroup = _core.read_cgroup()
    if cgroup is None or cgroup.limit_bytes is None or cgroup.usage_bytes is None:
        return available_bytes
    cache = (cgroup.inactive_file_bytes or 0) + (cgroup.active_file_bytes or 0)
    within_group = cgroup.limit_bytes - cgroup.usage_bytes + cache
    machine = _core.read_system().available_bytes
    if machine is not None:
        within_group = min(within_group, machine)
    return max(available_bytes, within_group)
