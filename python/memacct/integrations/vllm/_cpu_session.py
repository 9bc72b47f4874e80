"""One CPU worker's start: a budget from what the worker really holds.

vLLM's CPU worker subtracts its RSS from what was requested. RSS counts pages that the
kernel can take back at any time: checkpoints read through mmap, the text of libraries.
Here the worker's anonymous, shared and dirty memory is subtracted instead, and memory
that the kernel could reclaim within the control group counts as available there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct._errors import BudgetError
from memacct.integrations.vllm._cpu_available import (
    Available,
    cache_left_out,
    room_within,
    wait_until_it_fits,
)
from memacct.integrations.vllm._cpu_node import available_on, node_of, requested_bytes
from memacct.integrations.vllm._cpu_report import CPUReport
from memacct.integrations.vllm._facts import engine_facts
from memacct.integrations.vllm._hooks import wrap
from memacct.integrations.vllm._own_time import own_time
from memacct.integrations.vllm._report_file import write_report
from memacct.integrations.vllm._state import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.integrations.vllm._config import PluginConfig

logger = logging.getLogger("vllm.memacct")

# The user's own size of the KV cache in GiB; newer versions turn it into kv_cache_memory_bytes.
SPACE = "VLLM_CPU_KVCACHE_SPACE"
_WORKER_MODULE = "vllm.v1.worker.cpu_worker"
_RESOURCE_MODULE = "vllm.utils.cpu_resource_utils"
_NODE_FUNCTION = "get_memory_node_info"


class CPUSession:
    """Follows one CPU worker; corrects its budget where vLLM would have used RSS."""

    def __init__(self, worker: Any, config: PluginConfig) -> None:
        self.worker = worker
        self.config = config
        self.is_initialising = False
        self.report: CPUReport | None = None
        self.lost_reason: str | None = None

    def before_init_device(self) -> None:
        """Wraps the method that decides the budget."""
        self.is_initialising = True
        self.lost_reason = None
        wrap(self.worker, "determine_available_memory", self._around_budget)

    def after_init_device(self) -> None:
        """Nothing more to wrap on a CPU."""
        self.is_initialising = False

    def lose(self, reason: str) -> None:
        """Ends the corrections for good: what follows is stock."""
        self.lost_reason = reason
        self.report = None
        logger.warning("memacct: %s. From here on the profiling is vLLM's own", reason)

    # ---------------------------------------------------------------- replacing

    def _around_budget(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        module: Any = sys.modules.get(_WORKER_MODULE)
        explicit = self.worker.cache_config.kv_cache_memory_bytes is not None
        if self.lost_reason is not None or explicit:
            return original(*args, **kwargs)  # the user's own number: RSS plays no part
        if not hasattr(self.worker, "requested_cpu_memory"):
            fixed = original(*args, **kwargs)
            if os.environ.get(SPACE):
                return fixed  # the user's own number, as in newer versions
            self._pass_through_model()
            measured = self._guard(self._measure, fixed)
            return fixed if measured is None else measured
        if module is None or not hasattr(module, "psutil"):
            logger.warning("memacct: this vLLM's CPU worker is not known; profiling stays stock")
            return original(*args, **kwargs)
        self.report = None
        with self._held_instead_of_rss(module):
            budget = original(*args, **kwargs)
        self._tell(budget)
        return budget

    @contextlib.contextmanager
    def _held_instead_of_rss(self, module: Any) -> Iterator[None]:
        psutil, node_info = module.psutil, getattr(module, _NODE_FUNCTION, None)
        module.psutil = _Psutil(psutil, self)
        if node_info is not None:
            setattr(module, _NODE_FUNCTION, self._fitting(node_info))
        try:
            yield
        finally:
            module.psutil = psutil
            if node_info is not None:
                setattr(module, _NODE_FUNCTION, node_info)

    def _fitting(self, node_info: Callable[..., Any]) -> Callable[..., Any]:
        # The budget is decided here and not where RSS is asked for: vLLM compares it with
        # what this call returns, so that is when the waiting must be over.
        @functools.wraps(node_info)
        def get_memory_node_info(*args: Any, **kwargs: Any) -> Any:
            info = node_info(*args, **kwargs)  # an error here is vLLM's own
            if self.lost_reason is None:
                read = functools.partial(_read_available, node_info, *args, **kwargs)
                report = self._guard(self._decide, read)
                if report is not None:
                    info.available_memory = report.available_bytes
            return info

        return get_memory_node_info

    def consumed_bytes(self, rss_bytes: int) -> int:
        """Returns what vLLM is to subtract instead of its RSS.

        Raises:
            BudgetError: the budget does not fit and ``on_shortfall`` is ``error``.
        """
        if self.report is None and self.lost_reason is None:
            self._guard(self._decide, None)  # a vLLM that does not ask for the node
        if self.report is None:
            return rss_bytes
        self.report = dataclasses.replace(self.report, rss_bytes=rss_bytes)
        return self.report.requested_bytes - self.report.budget_bytes

    # ---------------------------------------------------------------- deciding

    def _pass_through_model(self) -> None:
        """Brings in what the first request would; newer versions do it here, these later too."""
        warm_up = getattr(getattr(self.worker, "model_runner", None), "warming_up_model", None)
        try:
            if warm_up is not None:
                warm_up()
        except Exception:
            if self.config.strict:
                raise
            logger.exception("memacct: the model could not be run before the budget is decided")

    def _measure(self, fixed_bytes: int) -> int:
        """Returns the budget where vLLM has a fixed number (0.11) or half the node (to 0.18.1).

        As newer versions do it: the share of the node or group less what the worker holds.
        """
        node = node_of(getattr(self.worker, "local_omp_cpuid", None))
        read = functools.partial(available_on, node)
        report = self._decide(read, requested_bytes(self.worker, node), fixed_bytes)
        budget = max(0, report.budget_bytes)  # vLLM refuses 0 in its own words
        self._tell(budget)
        return budget

    def _decide(
        self,
        read: Callable[[], Available] | None,
        requested: int | None = None,
        fixed_bytes: int | None = None,
    ) -> CPUReport:
        # Once per start, and the only way to tell dirty and locked file pages exactly: a walk
        # of the page tables, about 10 ms per GiB.
        reading = _core.snapshot("mappings", None, limits=True)
        held = reading.host.held_bytes
        if held is None:
            raise ValueError("the kernel does not tell anonymous from file memory")
        report = CPUReport(
            rank=int(self.worker.rank),
            requested_bytes=(
                int(self.worker.requested_cpu_memory) if requested is None else requested
            ),
            fixed_bytes=fixed_bytes,
            rss_bytes=reading.host.rss_bytes,
            held_bytes=held,
            margin_bytes=self.config.margin_bytes,
            snapshot=reading,
        )
        self.report = report if read is None else self._fitted(report, read)
        return self.report

    def _fitted(self, report: CPUReport, read: Callable[[], Available]) -> CPUReport:
        wait_s = self.config.wait_s if self.config.on_shortfall == "wait" else 0.0

        def say(found: Available) -> None:
            story = report.given(found).shortfall_story()
            logger.warning("memacct: %s; waiting for up to %g s", story, wait_s)

        found, waited_s = wait_until_it_fits(
            read, report.wanted_bytes, wait_s=wait_s, say=say, pause=own_time.pause
        )
        report = report.given(found, waited_s=waited_s)
        if report.shortfall_bytes > 0 and self.config.on_shortfall == "error":
            raise BudgetError(f"{report.shortfall_story()}; on_shortfall is 'error'")
        if report.shortfall_bytes > 0:
            logger.warning("memacct: KV cache clamped: %s", report.shortfall_story())
        return report

    def _guard(self, action: Callable[..., Any], *args: Any) -> Any:
        """Calls ``action``; after a fault of memacct's own the rest is stock, unless strict."""
        with own_time:
            try:
                return action(*args)
            except BudgetError:
                raise
            except Exception as error:
                if self.config.strict:
                    raise
                logger.exception("memacct: the budget could not be corrected")
                self.lose(repr(error))
                return None

    def _tell(self, budget_bytes: int) -> None:
        if self.report is None:
            return
        with own_time:
            try:
                logger.info("%s", self.report.text(budget_bytes))
                status, reason = state_of(self.worker)
                facts = {**engine_facts(self.worker.vllm_config), "status": status}
                data = {**facts, "reason": reason, **self.report.as_dict(budget_bytes)}
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


def _read_available(node_info: Callable[..., Any], *args: Any, **kwargs: Any) -> Available:
    stock = node_info(*args, **kwargs).available_memory
    with cache_left_out(sys.modules.get(_RESOURCE_MODULE)):
        node = node_info(*args, **kwargs).available_memory
    return Available(
        node_bytes=node, group_bytes=room_within(_core.read_cgroup()), stock_bytes=stock
    )
