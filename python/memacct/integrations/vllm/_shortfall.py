"""Why a GPU worker does not fit: one table of who holds what, and what would make it fit."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

from memacct._units import format_bytes
from memacct.accounting.movements import Movements
from memacct.integrations.vllm._report_file import add_to_report
from memacct.integrations.vllm._witness import report_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.accounting.advice import Suggestion
    from memacct.accounting.holders import EngineHolding
    from memacct.integrations.vllm._gpu_session import GPUSession
    from memacct.integrations.vllm._shortfall_view import DeviceView

logger = logging.getLogger("vllm.memacct")


class Shortfall:
    """Explains one worker's refusals; remembers for that who moved during its start."""

    def __init__(self, session: GPUSession) -> None:
        self.session = session
        self.movements = Movements()
        #: What the user asked for, where the start had to lower it.
        self.asked_utilization: float | None = None
        #: What vLLM's arithmetic gave the KV cache, and what was left of it by the cap.
        self.wanted_bytes: int | None = None
        self.available_bytes: int | None = None
        self._has_explained = False

    def restart(self) -> None:
        """Forgets the start before: the worker is initialised again, as it was configured."""
        if self.asked_utilization is not None:
            self.session.worker.cache_config.gpu_memory_utilization = self.asked_utilization
        self.asked_utilization = self.wanted_bytes = self.available_bytes = None
        self.movements, self._has_explained = Movements(), False

    def view(self) -> DeviceView:
        """Returns the device as it is now."""
        # Here, as all that imports advice: most starts have nothing to explain.
        from memacct.integrations.vllm._shortfall_view import DeviceView

        return DeviceView(self.session, self)

    # ---------------------------------------------------------------- explaining

    def explain_start(self, free_bytes: int, wanted_bytes: int, *, level: int) -> None:
        """Logs why less than ``wanted_bytes`` is free at the start, and what would help."""
        from memacct.accounting.advice import advise_start

        view = self.view()
        around = view.surroundings(free_bytes)
        engine = view.holding(requested_bytes=wanted_bytes)
        self._tell(
            f"vLLM asks for {format_bytes(wanted_bytes)} of this GPU "
            f"(gpu_memory_utilization={around.utilization:g}), and "
            f"{format_bytes(free_bytes)} are free: {format_bytes(wanted_bytes - free_bytes)} "
            "are missing",
            engine,
            advise_start(around),
            level=level,
        )

    def explain_cache(self, needed_bytes: int, model_len: int, fitting_model_len: int) -> None:
        """Logs why the KV cache is too small for one request, and what would help."""
        from memacct.accounting.advice import advise_cache

        view = self.view()
        terms = view.cache_terms(needed_bytes, model_len, fitting_model_len)
        if terms is None or terms.short_bytes <= 0:
            return
        around = view.surroundings(view.free_at_a_start())
        engine = view.holding(planned=True, kv_cache_bytes=needed_bytes)
        self._tell(
            f"the KV cache needs {format_bytes(needed_bytes)} for one request of {model_len} "
            f"tokens, and there are {format_bytes(terms.available_bytes)} for it: "
            f"{format_bytes(terms.short_bytes)} are missing",
            engine,
            advise_cache(around, terms),
            level=logging.ERROR,
        )

    def explain_waking(self, what: str, short_bytes: int, *, level: int) -> None:
        """Logs why waking up takes more than is free."""
        from memacct.accounting.advice import advise_wait

        self._has_explained = False
        view = self.view()
        around = view.surroundings(self.session.raw_free())
        suggestions = tuple(advise_wait(around.neighbours, short_bytes))
        self._tell(what, view.holding(), suggestions, level=level)

    def explain_budget(self, what: str, short_bytes: int) -> None:
        """Logs why the budget exceeds what is free after profiling, and what would help."""
        from memacct.accounting.advice import advise_budget

        view = self.view()
        around = view.surroundings(view.free_at_a_start())
        engine = view.holding(planned=True, kv_cache_bytes=self.wanted_bytes or 0)
        self._tell(what, engine, advise_budget(around, short_bytes), level=logging.ERROR)

    def explain(self, what: str, *, level: int = logging.ERROR) -> None:
        """Logs who holds what, for a refusal that no single number decides."""
        self._tell(what, self.view().holding(planned=True), (), level=level)

    def _tell(
        self, what: str, engine: EngineHolding, suggestions: Sequence[Suggestion], *, level: int
    ) -> None:
        if level >= logging.ERROR:
            if self._has_explained:
                return  # one refusal passes several places
            self._has_explained = True
        table, rows = self.view().table(engine)
        lines = [f"memacct: {what}.", table]
        if suggestions:
            lines.append("Each of these alone makes it fit, all else being as it is now:")
            lines += [f"  {suggestion.text}" for suggestion in suggestions]
        logger.log(level, "%s", "\n".join(lines))
        told = {
            "story": what,
            "suggestions": [asdict(suggestion) for suggestion in suggestions],
            "rows": [asdict(row) for row in rows],
        }
        folder = self.session.config.report_dir
        add_to_report(folder, report_name(self.session.worker), {"shortfall": told})
