"""One GPU worker's start, with its neighbours left out of every reading.

vLLM takes the change of the device's free memory for its own consumption. Each reading
that feeds its arithmetic is replaced by the foreign-neutral one: what would be free had
the neighbours stood still since the baseline. Its arithmetic stays its own.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import torch
import vllm.envs

from memacct import _core
from memacct._errors import BudgetError
from memacct._units import format_bytes
from memacct.accounting.budget import BudgetTerms, decide_budget
from memacct.accounting.consumption import ConsumptionFollower, Reading
from memacct.integrations.vllm import _family, _family_hooks, _family_siblings, _gpu_hooks
from memacct.integrations.vllm._after_start import AfterStart
from memacct.integrations.vllm._cache_sizes import CacheSizes
from memacct.integrations.vllm._facts import engine_facts
from memacct.integrations.vllm._gpu_report import GPUReport
from memacct.integrations.vllm._own_time import own_time
from memacct.integrations.vllm._report_file import add_to_report
from memacct.integrations.vllm._shortfall import Shortfall
from memacct.integrations.vllm._shortfall_start import explain_refused_start, settle_start
from memacct.integrations.vllm._state import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.accounting.budget import EngineBudget
    from memacct.accounting.consumption import Consumption
    from memacct.integrations.vllm._config import PluginConfig

logger = logging.getLogger("vllm.memacct")


class GPUSession:
    """Follows one worker from its first memory snapshot on."""

    def __init__(self, worker: Any, config: PluginConfig) -> None:
        self.worker = worker
        self.config = config
        self.follower: ConsumptionFollower | None = None
        self.profiled: tuple[Reading, Consumption] | None = None
        self._latest: tuple[Reading, Consumption] | None = None
        self.lost_reason: str | None = None
        self.is_initialising = False
        self.is_reading = False
        self._scope_depth = 0
        self._said: set[str] = set()
        self.shortfall = Shortfall(self)
        self.after_start = AfterStart(self)
        self.cache_sizes = CacheSizes(self)
        # With vLLM's own allocator (sleep mode sets it too) memory is unmapped behind torch's
        # back, whose "reserved" then counts what the driver has taken back.
        model = worker.vllm_config.model_config
        self._trusts_allocator = not (
            model.enable_sleep_mode or getattr(model, "enable_cumem_allocator", False)
        )

    # ---------------------------------------------------------------- attaching

    def before_init_device(self) -> None:
        """Wraps what reads memory; the first measurement will be the baseline."""
        self.is_initialising = True
        self.follower = self.profiled = self._latest = self.lost_reason = None
        _family_hooks.worker_starts(self.worker)
        self.shortfall.restart()
        _gpu_hooks.hook_measurements(self)
        _gpu_hooks.hook_worker(self)

    def after_init_device(self) -> None:
        """Wraps what the model runner, made meanwhile, reads."""
        self.is_initialising = False
        _gpu_hooks.hook_runner(self)
        if self.follower is None and self.lost_reason is None:
            self.lose("vLLM took no memory snapshot that memacct knows")

    def explain_refusal(self) -> None:
        """Logs who holds what, where init_device ended because too little is free."""
        explain_refused_start(self)

    # ---------------------------------------------------------------- reading

    @property
    def device_ordinal(self) -> int:
        """The worker's device as CUDA numbers it in this process."""
        index: int | None = self.worker.device.index
        return int(torch.cuda.current_device()) if index is None else index

    @property
    def is_correcting(self) -> bool:
        """Whether readings are corrected: a baseline was taken."""
        return self.follower is not None

    def read(self, free_bytes: int) -> Reading:
        """Reads the driver beside vLLM's own reading of ``free_bytes``."""
        reserved = None
        if self._trusts_allocator:
            reserved = _reserved_bytes(self.device_ordinal)
        device = None
        # A driver's fault must not end the engine.
        try:
            device = _core.read_device(self.device_ordinal, allocator_reserved_bytes=reserved)
        except Exception as error:
            if self.config.strict:
                raise
            self._say_once(f"the driver's account could not be read: {error}")
        return Reading(
            free_bytes=free_bytes,
            device=device,
            allocator_reserved_bytes=reserved,
            siblings=() if device is None else _family_siblings.siblings_on(device),
        )

    def grown_bytes(self, free_bytes: int) -> int:
        """Returns how much less is free than would be had the neighbours stood still.

        Negative where they released; 0 where nothing is known. After a fault of ours the last
        known value stands: readings of one start must not be corrected in part.
        """
        if self.follower is None:
            return 0
        if self.lost_reason is None:
            self.guard(self._follow, free_bytes)
        return self.follower.last_grown_bytes

    def measured_grown_bytes(self, free_bytes: int) -> int | None:
        """Returns `grown_bytes` where the driver tells; None where it is not known."""
        grown = self.grown_bytes(free_bytes)
        is_measured = self._latest is not None and self._latest[1].is_measured
        return grown if is_measured and self.lost_reason is None else None

    def _follow(self, free_bytes: int) -> None:
        if self.follower is None:
            return
        reading = self.read(free_bytes)
        consumption = self.follower.follow(reading)
        self._latest = (reading, consumption)
        self.shortfall.movements.add(reading.device)
        if consumption.source == "held_over":
            self._say_once(consumption.reason)

    def raw_free(self) -> int:
        """Returns what is really free on the device now, as CUDA says (bytes)."""
        return int(torch.cuda.mem_get_info(self.device_ordinal)[0])

    def correct(self, snapshot: Any, measure: Callable[[], Any]) -> None:
        """Makes a ``MemorySnapshot`` that has just measured foreign-neutral, in place.

        The first of a start is the baseline, which ``measure`` may have to take again.

        Raises:
            BudgetError: too little is free at the start, and ``on_shortfall`` is ``error``.
        """
        if self._scope_depth > 0:
            return
        if self.follower is None:
            if self.lost_reason is None:
                self.guard(self._begin, snapshot, measure)
            return
        grown = self.grown_bytes(snapshot.free_memory)
        self.profiled = self._latest
        snapshot.free_memory += grown
        snapshot.cuda_memory -= grown
        snapshot.non_torch_memory -= grown

    def _begin(self, snapshot: Any, measure: Callable[[], Any]) -> None:
        if _is_integrated(self.device_ordinal):
            self.lose("this GPU shares the machine's memory, which the driver does not account")
            return
        with contextlib.suppress(Exception):
            # The active rung of the ladder, for containers that see other numbers; the
            # readings that follow say what was found.
            _core.identify(self.device_ordinal)
        settle_start(self, snapshot, measure)
        self._take_baseline(int(snapshot.free_memory))

    def _take_baseline(self, free_bytes: int) -> None:
        baseline = self.read(free_bytes)
        self.follower = ConsumptionFollower(baseline)
        self.shortfall.movements.add(baseline.device)
        device = baseline.device
        _family.found_device(device)
        if device is None or device.own_bytes is None:
            reason = "" if device is None else f": {device.attribution.reason}"
            self._say_once(
                f"this process was not found in the driver's list{reason}. {self._left()}"
            )

    def _left(self) -> str:
        """What can still be promised when this process's own number is not known."""
        if not self._trusts_allocator:
            return "Without it, and with vLLM's own allocator, the profiling is as stock"
        return (
            "The engine's own memory is known only from torch's side: a neighbour that releases "
            "memory cannot stop the start, but one that allocates meanwhile still makes the KV "
            "cache smaller"
        )

    def neutral_free(self, free_bytes: int) -> int:
        """Returns what would be free had the neighbours stood still since the baseline."""
        return free_bytes + self.grown_bytes(free_bytes)

    @contextlib.contextmanager
    def neutral_scope(self) -> Iterator[None]:
        """Inside, torch's functions for free memory give foreign-neutral readings."""
        self._scope_depth += 1
        try:
            with _gpu_hooks.neutral_torch(self):
                yield
        finally:
            self._scope_depth -= 1

    # ---------------------------------------------------------------- deciding

    def settle(self, available_bytes: int) -> int:
        """Returns the KV budget: vLLM's, capped by what is really free now.

        Raises:
            BudgetError: the budget does not fit and ``on_shortfall`` is ``error``.
        """
        if not self.is_correcting or self.profiled is None:
            return available_bytes
        self.shortfall.wanted_bytes = self.shortfall.available_bytes = available_bytes
        try:
            budget = decide_budget(
                lambda: self._terms(available_bytes),
                on_shortfall=self.config.on_shortfall,
                wait_s=self.config.wait_s,
                pause=own_time.pause,
            )
        except BudgetError as error:
            short_bytes = self._terms(available_bytes).shortfall_bytes
            self.shortfall.explain_budget(str(error), short_bytes)
            raise
        self.shortfall.available_bytes = budget.final_bytes
        if budget.clamped:
            logger.warning(
                "memacct: KV cache clamped to %s: %s.",
                format_bytes(max(0, budget.final_bytes)),
                budget.reason,
            )
            self.worker.available_kv_cache_memory_bytes = budget.final_bytes
        self._report(available_bytes, budget)
        return budget.final_bytes

    def _terms(self, available_bytes: int) -> BudgetTerms:
        free = self.raw_free()
        # What vLLM keeps back besides (for multimodal inputs) is still to be taken too.
        kept_back = int(self.worker.available_kv_cache_memory_bytes) - available_bytes
        return BudgetTerms(
            wanted_bytes=available_bytes,
            still_to_come_bytes=self.activations_peak_bytes + self.graphs_bytes + max(0, kept_back),
            margin_bytes=self.config.margin_bytes,
            free_bytes=free,
            grown_bytes=self.grown_bytes(free),
        )

    @property
    def graphs_bytes(self) -> int:
        """The engine's estimate of its CUDA graphs, whether or not it was taken off the budget."""
        return int(getattr(self.worker, "cudagraph_memory_estimate", 0))

    @property
    def activations_peak_bytes(self) -> int:
        """The transient peak, to which vLLM adds the graphs if it takes them off the budget."""
        applied = getattr(vllm.envs, "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", False)
        peak = int(self.worker.peak_activation_memory)
        return peak - self.graphs_bytes if applied else peak

    def _report(self, available_bytes: int, budget: EngineBudget) -> None:
        try:
            report = GPUReport.of(self, available_bytes, budget)
            logger.info("%s", report.text())
            status, reason = state_of(self.worker)
            facts = {**engine_facts(self.worker.vllm_config), "status": status, "reason": reason}
            # Beside what the start had to say before.
            add_to_report(
                self.config.report_dir, f"rank{report.rank}", {**facts, **report.as_dict()}
            )
        except Exception:
            if self.config.strict:
                raise
            logger.exception("memacct: the report could not be made; the budget stands")

    # ---------------------------------------------------------------- faults

    def guard(self, action: Any, *args: Any) -> Any:
        """Calls ``action``; a fault of memacct's own ends our readings, unless strict."""
        with own_time:
            try:
                return action(*args)
            except BudgetError:
                raise
            except Exception as error:
                if self.config.strict:
                    raise
                self.lose(repr(error))
                return None

    def lose(self, reason: str) -> None:
        """Ends our readings for good; corrections that were made already stand."""
        self.lost_reason = reason
        rest = "the profiling is vLLM's own"
        if self.follower is not None:
            rest = "the neighbours are taken to stand still"
        self._say_once(f"{reason}. From here on {rest}")

    def _say_once(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning("memacct: %s", what)


def _is_integrated(ordinal: int) -> bool:
    # There vLLM takes the machine's available memory for the device's.
    return bool(torch.cuda.get_device_properties(ordinal).is_integrated)


def _reserved_bytes(ordinal: int) -> int:
    # torch.cuda.memory_reserved() flattens and sorts all of its counters for this one: 1 ms.
    return int(torch.cuda.memory_stats_as_nested_dict(ordinal)["reserved_bytes"]["all"]["current"])
