"""A dry run beside `memacct plan`'s formulas for the same settings: where they differ, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct._units import format_bytes
from memacct.dry_run.planned import plan_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.dry_run.result import DryRun, Rank
    from memacct.planning import MemoryPlan

# Why a formula may be off, by term; what it is made of stands in the plan's own source.
_WHY = {
    "weights": "what an engine adds for its kernels (copies, padding, scales) is not in them",
    "buffers, libraries": "no formula knows what this runner and its libraries keep",
    "activation peak": "the largest tensors of this engine's batch are others",
    "CUDA graphs": "they depend on the attention's kernels and on how many sizes are captured",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One term of both; bytes of the fullest GPU.

    Attributes:
        name: as in the plan.
        run_bytes: of the dry run.
        plan_bytes: of the formula; None where it has none.
        low_bytes: hardly less by the formula.
        high_bytes: hardly more by it.
        why: the reason, where the run is outside that range.
    """

    name: str
    run_bytes: int
    plan_bytes: int | None
    low_bytes: int | None
    high_bytes: int | None
    why: str | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether the run is within the plan's range; None where the plan has none."""
        if self.low_bytes is None or self.high_bytes is None:
            return None
        return self.low_bytes <= self.run_bytes <= self.high_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VersusPlan:
    """Both answers.

    Attributes:
        unknown: why there is no plan; None: there is one.
        terms: in the plan's order, what is left for the KV cache last.
        plan_tokens: by the plan alone.
        tokens_of_room: by the plan's arithmetic of blocks for the bytes that the run left.
        run_tokens: of the run.
        fits: by the plan.
        starts: by the run.
        differs: why only one of them fits; None where they agree on that.
    """

    unknown: str | None = None
    terms: tuple[Term, ...] = ()
    plan_tokens: int | None = None
    tokens_of_room: int | None = None
    run_tokens: int | None = None
    fits: bool | None = None
    starts: bool | None = None
    differs: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether each term is in its range, the blocks are counted alike, and both fit or not."""
        if self.differs is not None:
            return False
        same = self.run_tokens is None or self.tokens_of_room == self.run_tokens
        return self.unknown is None and same and all(each.agrees for each in self.terms)


def versus_plan(run: DryRun) -> VersusPlan:
    """Sets a dry run beside the plan for what the engine made of its arguments."""
    try:
        plan = plan_of(run.request, run.settings)
    except ConfigError as error:
        return VersusPlan(unknown=str(error))
    rank = min(
        (each for each in run.ranks if each.kv_room_bytes is not None),
        key=lambda each: each.kv_room_bytes or 0,
        default=None,
    )
    room = None if rank is None else rank.kv_room_bytes
    return VersusPlan(
        terms=() if rank is None else tuple(_terms(rank, plan)),
        plan_tokens=None if plan.capacity is None else plan.capacity.tokens_count,
        tokens_of_room=(None if not room else plan.pool.capacity(room, plan.serving).tokens_count),
        run_tokens=None if run.kv_tokens is None else int(run.kv_tokens.value),
        fits=plan.fits,
        starts=run.verdict == "starts",
        differs=_differs(run, plan),
    )


def _differs(run: DryRun, plan: MemoryPlan) -> str | None:
    """Why the engine starts where the plan does not fit, or the other way round."""
    if plan.fits is None or plan.fits == (run.verdict == "starts"):
        return None
    if run.refusal is not None and run.refusal.kind == "free below requested":
        return "an engine finds its CUDA context taken before it looks, and a plan has none"
    if run.refusal is not None and run.refusal.kind in {"weights", "activation", "graphs"}:
        return "the GPU itself was full for a moment; a plan adds up what the engine asks for"
    return "what is left for the KV cache is near to what one request needs"


def _terms(rank: Rank, plan: MemoryPlan) -> Iterator[Term]:
    weights, activation, graphs = (
        None if each is None else each.bytes
        for each in (rank.weights, rank.activation_peak, rank.graphs_estimated)
    )
    room = rank.kv_room_bytes or 0
    if weights is not None:
        yield _term("weights", weights, plan.weights)
    if plan.settings.kv_cache_bytes is None and rank.requested_bytes is not None:
        known = (weights or 0) + (activation or 0) + (graphs or 0)
        yield _term("buffers, libraries", rank.requested_bytes - room - known, plan.buffers)
    if activation is not None:
        yield _term("activation peak", activation, plan.activation)
    if plan.settings.kv_cache_bytes is None:
        yield _term("CUDA graphs", graphs or 0, plan.graphs)
    if plan.kv_room is not None:
        yield Term(
            name="left for KV cache",
            run_bytes=room,
            plan_bytes=plan.kv_room.bytes,
            low_bytes=plan.kv_room.low_bytes,
            high_bytes=plan.kv_room.high_bytes,
            why=None
            if plan.kv_room.low_bytes <= room <= plan.kv_room.high_bytes
            else "the sum of what differs above",
        )


def _term(name: str, run_bytes: int, planned: object) -> Term:
    value, low, high = (getattr(planned, each) for each in ("bytes", "low_bytes", "high_bytes"))
    why = None
    if low is not None and high is not None and not low <= run_bytes <= high:
        by = format_bytes(run_bytes - high if run_bytes > high else low - run_bytes)
        more = "more" if run_bytes > high else "less"
        source = getattr(planned, "source", "its formula")
        why = f"{by} {more} than planned from {source}: {_WHY[name]}"
    return Term(
        name=name,
        run_bytes=run_bytes,
        plan_bytes=value,
        low_bytes=low,
        high_bytes=high,
        why=why,
    )
