"""From what an engine's processes left to the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import equation
from .host import host_of
from .refusals import exact, refusal
from .result import Count, DryRun, Phase, Rank, Row
from .shortfall import with_planned_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .engine_process import Outcome
    from .request import Request
    from .result import Amount

_GRAPHS_SOURCE = "the engine's own reading around the capture"


def answer(
    request: Request,
    outcome: Outcome,
    *,
    context_bytes: int,
    neighbours: Iterable[int],
    checkpoint_bytes: int | None,
    notes: Iterable[str] = (),
) -> DryRun:
    """What the dry run says.

    Args:
        request: what was asked.
        outcome: what the engine's processes left.
        context_bytes: what a CUDA context was set to take.
        neighbours: process ids of those that are none of the engine's.
        checkpoint_bytes: of the weights' files, if they are there.
        notes: what was assumed, for people.

    Raises:
        ConfigError: the engine refuses what it was given.
        EngineError: it ended without an answer that is about memory.
    """
    refused = refusal(outcome)
    core = next(iter(outcome.of_kind("core")), {})
    plan = {**core, **core.get("error", {})}
    blocks = plan.get("block_bytes") or [None]
    ranks = tuple(
        _rank(file, context_bytes, frozenset(neighbours), blocks[int(file["rank"]) % len(blocks)])
        for file in outcome.of_kind("worker")
    )
    settings = _settings(outcome, core)
    if refused is not None:
        refused = with_planned_weights(refused, request, ranks, settings)
    return DryRun(
        request=request,
        verdict="starts" if refused is None else "does not fit",
        versions=_versions(outcome),
        settings=settings,
        ranks=ranks,
        kv_tokens=_count(core.get("kv_tokens")) if refused is None else None,
        concurrency=_count(core.get("concurrency")) if refused is None else None,
        kv_blocks_count=plan.get("blocks_count") if refused is None else None,
        kv_request_blocks_count=plan.get("request_blocks_count"),
        host=host_of(outcome.samples, outcome.files, ranks, checkpoint_bytes),
        timeline=_timeline(outcome),
        refusal=refused,
        notes=tuple(dict.fromkeys((*notes, *outcome.main.get("notes", ()), *_told(outcome)))),
        took_s=outcome.wall_s,
    )


def _told(outcome: Outcome) -> Iterator[str]:
    """What the workers say for people."""
    for file in outcome.of_kind("worker"):
        yield from file.get("notes", ())


def _count(value: float | None) -> Count | None:
    return None if value is None else Count(value=value, low=value, high=value)


def _versions(outcome: Outcome) -> dict[str, str]:
    from memacct._core import __version__

    return {**outcome.main.get("versions", {}), "memacct": __version__}


def _settings(outcome: Outcome, core: Mapping[str, Any]) -> dict[str, Any]:
    """The core's view, and what only the first worker knows."""
    worker = next(iter(outcome.of_kind("worker")), {})
    told = {**worker.get("resolved", {}), **core.get("settings", {})}
    return {**told, **worker.get("settings", {})}


def _rank(
    file: Mapping[str, Any],
    context_bytes: int,
    neighbours: frozenset[int],
    block_bytes: int | None,
) -> Rank:
    moments, start = file["moments"], file.get("start", {})
    weights = file.get("weights_bytes")
    known = equation.Known(
        uuid=str(file.get("device_uuid", "")),
        pid=int(file["pid"]),
        context_bytes=context_bytes,
        neighbours=neighbours,
    )
    cache = moments.get("allocated", {}).get("kv_cache_bytes")
    peak, started = _equations(moments, weights, cache, known)
    device = equation.device_of(moments.get("initialised", moments["begin"]), known.uuid) or {}
    amounts = {
        "weights": _amount(weights, equation.SOURCES[equation.WEIGHTS]),
        "activation_peak": _of_row(peak, equation.ACTIVATION),
        "non_torch": _amount(_non_torch(file), "the engine's own reading, since its first"),
        "graphs_estimated": _amount(
            file.get("graphs_estimated_bytes") or None, "the engine's own sample of graphs"
        ),
        "graphs": _amount(file.get("graphs_bytes"), _GRAPHS_SOURCE),
        "kv_cache": _amount(cache, equation.SOURCES[equation.KV_CACHE]),
        "context": _of_row(started or peak, equation.CONTEXT),
    }
    return Rank(
        rank=int(file["rank"]),
        device=int(device.get("index", file.get("device") or 0)),
        total_bytes=int(start.get("total_memory") or device.get("cuda_total_bytes") or 0),
        requested_bytes=file.get("requested_bytes"),
        free_at_start_bytes=start.get("free_memory"),
        **amounts,
        graphs_driver_bytes=equation.graphs_driver_bytes(moments, known),
        kv_room_bytes=moments.get("profiled", {}).get("available_bytes"),
        kv_block_bytes=block_bytes,
        peak=_rows(peak),
        started=_rows(started),
    )


def _equations(
    moments: Mapping[str, Any], weights: int | None, cache: int | None, known: equation.Known
) -> tuple[dict[str, int] | None, dict[str, int] | None]:
    peak = started = None
    if "forward" in moments and weights is not None:
        before, forward = moments["before forward"], moments["forward"]
        peak = equation.peak_rows(before, forward, weights, known)
    if "started" in moments and weights is not None:
        started = equation.started_rows(moments, weights, cache or 0, known)
    return peak, started


def _non_torch(file: Mapping[str, Any]) -> int | None:
    """What the engine counts outside PyTorch within its budget."""
    profiling = file.get("profiling", {})
    found = profiling.get("non_torch_increase")
    return None if found is None else int(found)


def _amount(value: int | None, source: str) -> Amount | None:
    return None if value is None else exact(int(value), source)


def _of_row(rows: Mapping[str, int] | None, name: str) -> Amount | None:
    return None if rows is None else exact(rows.get(name, 0), equation.SOURCES[name])


def _rows(rows: Mapping[str, int] | None) -> tuple[Row, ...]:
    return tuple(
        Row(name=name, amount=exact(value, equation.SOURCES[name]))
        for name, value in (rows or {}).items()
    )


def _timeline(outcome: Outcome) -> tuple[Phase, ...]:
    found = []
    for name, file in outcome.files.items():
        rank = int(file["rank"]) if name.startswith("worker-") else None
        for phase in _phases(file):
            begin_s, seconds = phase["begin_s"], phase["end_s"] - phase["begin_s"]
            begun_s = begin_s - outcome.begin_s
            found.append(Phase(name=phase["name"], rank=rank, begin_s=begun_s, seconds=seconds))
    return tuple(sorted(found, key=lambda phase: (phase.begin_s, phase.rank or 0)))


def _phases(file: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The steps that ended; compiling is counted by the engine, and within the first pass."""
    for phase in file.get("phases", ()):
        if phase["end_s"] is None:
            continue
        yield phase
        if phase["name"] == "profile: forward pass" and file.get("compile_s"):
            end_s = phase["begin_s"] + file["compile_s"]
            yield {"name": "compile", "begin_s": phase["begin_s"], "end_s": end_s}
