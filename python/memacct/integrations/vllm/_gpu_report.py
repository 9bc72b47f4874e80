"""What memacct says about one GPU worker's start: one table in the log, one JSON file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from memacct._units import format_bytes
from memacct.accounting.equation import engine_equation
from memacct.accounting.foreign import ForeignChange, foreign_changes
from memacct.integrations.vllm import _family_siblings
from memacct.report.text import render_equation

if TYPE_CHECKING:
    from memacct.accounting.budget import EngineBudget
    from memacct.accounting.consumption import Consumption, Reading
    from memacct.accounting.equation import EquationRow
    from memacct.accounting.siblings import EngineProcess, Sibling
    from memacct.integrations.vllm._gpu_session import GPUSession


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUReport:
    """The budget of one worker, the device equation beside it, and who moved.

    ``stock_bytes`` is what vLLM's own readings before and after its profile run would have
    given: None where they would have ended the start instead. What a neighbour's move between
    two graph samples would have done besides is not in it. ``foreign_delta_bytes`` is None
    where the driver does not tell this process's memory from others'. ``engine`` are the engine's
    processes on this device, and ``siblings_reason`` why those beside this worker's own tree
    could not all be told from neighbours; empty where they could.
    """

    rank: int
    device: str
    attribution_source: str
    consumption: Consumption
    requested_bytes: int
    stock_bytes: int | None
    native_bytes: int
    budget: EngineBudget
    total_bytes: int | None
    equation: tuple[EquationRow, ...]
    foreign: tuple[ForeignChange, ...]
    foreign_delta_bytes: int | None
    engine: tuple[EngineProcess, ...]
    siblings_reason: str

    @classmethod
    def of(cls, session: GPUSession, available_bytes: int, budget: EngineBudget) -> GPUReport:
        """Reads the device once more and makes the report of ``session``'s worker."""
        if session.follower is None or session.profiled is None:
            raise ValueError("a report needs a baseline and a profiled reading")
        worker, baseline = session.worker, session.follower.baseline
        profiled, consumption = session.profiled
        free = session.raw_free()
        now = session.read(free)
        # Those too that have ended meanwhile.
        known = {sibling.pid: sibling for sibling in (*session.follower.siblings, *now.siblings)}
        siblings = tuple(known.values())
        rows, moved = _device_rows(session, now, budget, siblings)
        return cls(
            rank=int(worker.rank),
            device=now.device.uuid if now.device else f"cuda:{session.device_ordinal}",
            attribution_source=profiled.device.attribution.source if profiled.device else "none",
            consumption=consumption,
            requested_bytes=int(worker.requested_memory),
            stock_bytes=_stock_bytes(baseline, profiled, consumption, available_bytes),
            native_bytes=available_bytes,
            budget=budget,
            total_bytes=now.device.total_bytes if now.device else None,
            equation=rows,
            foreign=moved,
            foreign_delta_bytes=session.measured_grown_bytes(free),
            engine=()
            if now.device is None
            else _family_siblings.engine_processes(now.device, baseline.device, siblings),
            siblings_reason=_family_siblings.why_siblings_unknown(now.device),
        )

    def text(self) -> str:
        """Returns the log message: the budget in a sentence, then the equation."""
        head = (
            f"memacct: KV cache budget {format_bytes(self.budget.final_bytes)} "
            f"(requested {format_bytes(self.requested_bytes)}, own consumption "
            f"{format_bytes(self.consumption.consumed_bytes)} by {self.attribution_source}; "
            f"{self.budget.reason}). vLLM's own reading {_stock_outcome(self.stock_bytes)}."
        )
        lines = [head]
        if self.total_bytes is not None:
            lines.append(render_equation(self.equation, self.total_bytes))
        lines += [_held(row) for row in self.engine if row.owner != "own"]
        lines += [_moved(change) for change in self.foreign[:5]]
        if self.foreign and self.siblings_reason:
            lines.append(f"some of these may be the engine's own: {self.siblings_reason}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        data = asdict(self)
        data["profiler"] = "native"
        data["final_bytes"] = self.budget.final_bytes
        data["clamped"] = self.budget.clamped
        return data


def _device_rows(
    session: GPUSession, now: Reading, budget: EngineBudget, siblings: tuple[Sibling, ...]
) -> tuple[tuple[EquationRow, ...], tuple[ForeignChange, ...]]:
    if now.device is None or session.follower is None:
        return (), ()
    baseline = session.follower.baseline.device
    rows = engine_equation(
        now.device,
        weights_bytes=int(session.worker.model_runner.model_memory_usage),
        allocator_reserved_bytes=now.allocator_reserved_bytes,
        activations_peak_bytes=session.activations_peak_bytes,
        graphs_bytes=session.graphs_bytes,
        kv_cache_bytes=budget.final_bytes,
        baseline=baseline,
        siblings=siblings,
    )
    moved = () if baseline is None else foreign_changes(baseline, now.device, siblings)
    return rows, moved


def _stock_bytes(
    baseline: Reading, profiled: Reading, consumption: Consumption, available_bytes: int
) -> int | None:
    if profiled.free_bytes > baseline.free_bytes:
        return None  # "Error in memory profiling": free memory grew
    stock_consumed = baseline.free_bytes - profiled.free_bytes
    return available_bytes + consumption.consumed_bytes - stock_consumed


def _stock_outcome(stock_bytes: int | None) -> str:
    if stock_bytes is None:
        return "would have ended the start"
    if stock_bytes <= 0:
        return f"would have left nothing for it ({format_bytes(stock_bytes)}), ending the start"
    return f"would have given {format_bytes(stock_bytes)}"


def _held(row: EngineProcess) -> str:
    def said(value: int | None) -> str:
        return "an unknown amount" if value is None else format_bytes(value)

    title = row.role if row.rank is None else f"{row.role} rank {row.rank}"
    return (
        f"the engine's {title} (pid {row.pid}) holds {said(row.process_used_bytes)}, of which "
        f"{said(row.since_start_bytes)} since the start"
    )


def _moved(change: ForeignChange) -> str:
    delta = change.delta_bytes
    amount = "by an unknown amount" if delta is None else format_bytes(abs(delta))
    verbs = {
        "grew": "took",
        "appeared": "came with",
        "shrank": "gave back",
        "left": "left, freeing",
    }
    return f"since the start, pid {change.pid} {verbs.get(change.event, 'changed')} {amount}"
