"""Reports of an engine's processes, merged into one account of its start.

Pure data in and out, whether it comes from files or from the engine itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Of what is merged; docs/vllm.md says what the fields mean.
SCHEMA_VERSION = 1

NO_REPORT = "plugin not loaded (VLLM_PLUGINS) or not installed there"
_SUMMED = ("requested_bytes", "own_bytes", "budget_bytes", "stock_bytes")


def merge_reports(
    main: Mapping[str, Any] | None,
    cores: Sequence[Mapping[str, Any]],
    *,
    api_servers: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns one start: its processes' reports, a row for each rank, sums, and what is missing.

    Args:
        main: of the process that configured the engine; None: there is none.
        cores: each engine core's, with its ``workers``.
        api_servers: of further processes that only take requests.
    """
    engines = sorted((_engine(core) for core in cores), key=lambda e: _number(e["rank"]))
    rows = [_row(engine, worker) for engine in engines for worker in engine["workers"]]
    records = [main, *api_servers, *cores, *(w for e in engines for w in e["workers"])]
    reports = [record for record in records if record is not None]
    missing = [*_missing_ranks(main, engines, rows), *_missing_cores(engines)]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "engine_start",
        "instance_id": _first(reports, "instance_id"),
        "vllm_version": _first(reports, "vllm_version"),
        "memacct_version": _first(reports, "memacct_version"),
        "profiler": _first(reports, "profiler"),
        "written_unix_ns": max((_number(r.get("written_unix_ns")) for r in reports), default=0),
        "setup": dict((main or {}).get("setup") or {}),
        "main": None if main is None else dict(main),
        "api_servers": [dict(server) for server in api_servers],
        "engines": engines,
        "rows": rows,
        "sums": _sums(rows, reports),
        "missing": missing,
        "failures": _failures(engines),
    }


def is_fine(start: Mapping[str, Any]) -> bool:
    """Whether nothing in a start is missing, failed, fell back to stock or was clamped."""
    if start["missing"] or start["failures"]:
        return False
    return not any(row["clamped"] or row["status"] == "fallback" for row in start["rows"])


def _engine(core: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in core.items() if key != "workers"}
    workers = sorted(core.get("workers") or (), key=lambda w: _number(w.get("rank")))
    first: Mapping[str, Any] = workers[0] if workers else {}
    rank = own.get("data_parallel_rank", first.get("data_parallel_rank"))
    return {"rank": _number(rank), "core": own or None, "workers": [dict(w) for w in workers]}


def _row(engine: Mapping[str, Any], worker: Mapping[str, Any]) -> dict[str, Any]:
    # A report on request holds what the process said at its start; a file is that itself.
    said = worker.get("start") or worker
    consumption = said.get("consumption") or {}
    status = worker.get("status") or ("native" if "final_bytes" in said else None)
    budget = _int(said.get("final_bytes"))
    stock = budget if status == "stock" else _int(said.get("stock_bytes"))
    return {
        "data_parallel_rank": engine["rank"],
        "rank": _int(worker.get("rank")),
        "pid": _int(worker.get("pid")),
        "hostname": worker.get("hostname"),
        "device": said.get("device"),
        "status": status,
        "reason": worker.get("reason"),
        "requested_bytes": _int(said.get("requested_bytes")),
        "own_bytes": _int(consumption.get("consumed_bytes", said.get("held_bytes"))),
        "budget_bytes": budget,
        "stock_bytes": stock,
        # Known to be nothing, which is not the same as not known.
        "stock_ended": status == "native" and "stock_bytes" in said and stock is None,
        "clamped": bool(said.get("clamped")),
        "foreign_delta_bytes": _int(said.get("foreign_delta_bytes")),
        "overhead_ns": _int(worker.get("overhead_ns")),
        "error": said.get("error") or worker.get("error"),
    }


def _sums(
    rows: Sequence[Mapping[str, Any]], reports: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    sums: dict[str, Any] = {name: _sum(row[name] for row in rows) for name in _SUMMED}
    # One process may be the engine's and a rank's, and each report has the time of all of it.
    spent: dict[tuple[Any, Any], int] = {}
    for report in reports:
        of = (report.get("hostname"), report.get("pid"))
        spent[of] = max(spent.get(of, 0), _number(report.get("overhead_ns")))
    return {**sums, "overhead_ns": sum(spent.values()), "processes_count": len(spent)}


def _sum(values: Iterable[int | None]) -> int | None:
    terms = list(values)
    known = [value for value in terms if value is not None]
    return sum(known) if terms and len(known) == len(terms) else None


def _failures(engines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    told = []
    for engine in engines:
        core = engine["core"] or {}
        for who, record in [("engine core", core), *((_rank(w), w) for w in engine["workers"])]:
            error = (record.get("start") or record).get("error")
            if error:
                told.append({"data_parallel_rank": engine["rank"], "who": who, **error})
    return told


def _rank(worker: Mapping[str, Any]) -> str:
    return f"rank {worker.get('rank')}"


# ---------------------------------------------------------------- what is not there


def expected_engines(main: Mapping[str, Any] | None) -> list[int]:
    """Returns the data-parallel ranks whose engines belong to the process ``main``."""
    setup = (main or {}).get("setup") or {}
    size = _number(setup.get("data_parallel_size")) or 1
    first = _number((main or {}).get("data_parallel_rank"))
    if setup.get("data_parallel_external_lb") or setup.get("data_parallel_by_environment"):
        return [first]  # each engine has a main process of its own
    if setup.get("data_parallel_hybrid_lb"):
        return list(range(first, first + (_number(setup.get("data_parallel_size_local")) or 1)))
    return list(range(size))


def _missing_ranks(
    main: Mapping[str, Any] | None,
    engines: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    told = [
        _lacking(row["data_parallel_rank"], row["rank"], row["reason"] or NO_REPORT)
        for row in rows
        if row["status"] == "missing"
    ]
    there = {(row["data_parallel_rank"], row["rank"]) for row in rows}
    sizes = [(main or {}).get("setup") or {}, *(engine["core"] or {} for engine in engines)]
    world_size = max((_number(size.get("world_size")) for size in sizes), default=0) or 1
    expected = expected_engines(main) if main else [engine["rank"] for engine in engines]
    told += [
        _lacking(engine, rank, _why(main, engine, engines))
        for engine in expected
        for rank in range(world_size)
        if (engine, rank) not in there
    ]
    return told


def _why(main: Mapping[str, Any] | None, engine: int, engines: Sequence[Mapping[str, Any]]) -> str:
    cores: list[dict[str, Any]] = [e["core"] or {} for e in engines if e["rank"] == engine]
    core = cores[0] if cores else {}
    if core.get("workers_unread"):
        return f"it could not be asked: {core['workers_unread']}"
    if core.get("status") == "missing" and core.get("reason") not in (None, NO_REPORT):
        return f"its engine core could not be asked: {core['reason']}"
    if core.get("state") in ("starting", "failed"):
        return "its start ended before it had anything to report"
    setup = (main or {}).get("setup") or {}
    elsewhere = _number(setup.get("nnodes")) > 1 or "ay" in str(setup.get("executor"))
    elsewhere |= engine >= (_number(setup.get("data_parallel_size_local")) or 1)
    return f"{NO_REPORT}{', or its report_dir is on another machine' if elsewhere else ''}"


def _missing_cores(engines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        _lacking(engine["rank"], None, engine["core"].get("reason") or NO_REPORT)
        for engine in engines
        if engine["core"] and engine["core"].get("status") == "missing"
    ]


def _lacking(engine: int, rank: int | None, reason: str) -> dict[str, Any]:
    return {"data_parallel_rank": engine, "rank": rank, "reason": reason}


def _first(reports: Sequence[Mapping[str, Any]], key: str) -> Any:
    return next((report[key] for report in reports if report.get(key) is not None), None)


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> int:
    return _int(value) or 0
