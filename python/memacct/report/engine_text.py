"""Engines' starts as text for a terminal: a row for each rank, and what is not as it should be."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from memacct._printable import printable
from memacct.report.text import gib, render_table, signed_gib

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER = (
    *("rank", "host", "pid", "device", "requested", "own", "KV budget", "stock", "others since"),
    *("memacct ms", "note"),
)
_DEVICE_WIDTH = 12


def start_text(start: Mapping[str, Any]) -> str:
    """Returns the text of one start, as ``merge_reports`` gives it."""
    several = len({row["data_parallel_rank"] for row in start["rows"]}) > 1
    body = [_cells(row, several=several) for row in start["rows"]]
    sums = start["sums"]
    amounts = [gib(sums[f"{name}_bytes"]) for name in ("requested", "own", "budget", "stock")]
    body.append(("sum", "", "", "", *amounts, "", _ms(sums["overhead_ns"]), "GiB"))
    lines = [_head(start)]
    if start["rows"]:
        lines.append(render_table(_HEADER, body))
    lines += [_missing(lack) for lack in start["missing"]]
    lines += [_failure(failure) for failure in start["failures"]]
    return "\n".join(lines)


def _head(start: Mapping[str, Any]) -> str:
    setup = start["setup"]
    parts = [f"engine {start['instance_id'] or 'of unknown name'}"]
    if start["written_unix_ns"]:
        when = datetime.fromtimestamp(start["written_unix_ns"] / 1e9, tz=timezone.utc)
        parts.append(f"{when:%Y-%m-%d %H:%M:%S} UTC")
    parts.append(f"vLLM {start['vllm_version'] or '?'}, profiler {start['profiler'] or '?'}")
    sizes = {"TP": "tensor", "PP": "pipeline", "DP": "data"}
    shape = [f"{name} {setup.get(f'{kind}_parallel_size') or '?'}" for name, kind in sizes.items()]
    if setup:
        parts.append(" ".join(shape))
        parts.append(printable(str(setup.get("model") or "?")))
    if start["api_servers"]:
        parts.append(f"{len(start['api_servers'])} API servers besides")
    return ", ".join(parts)


def _cells(row: Mapping[str, Any], *, several: bool) -> tuple[str, ...]:
    rank = "?" if row["rank"] is None else str(row["rank"])
    stock = "ends" if row["stock_ended"] else gib(row["stock_bytes"])
    return (
        f"engine {row['data_parallel_rank']} rank {rank}" if several else rank,
        printable(str(row["hostname"] or "?")),
        str(row["pid"] or "?"),
        printable(str(row["device"] or "?"))[:_DEVICE_WIDTH],
        gib(row["requested_bytes"]),
        gib(row["own_bytes"]),
        gib(row["budget_bytes"]),
        stock,
        signed_gib(row["foreign_delta_bytes"]) or "?",
        _ms(row["overhead_ns"]),
        _note(row),
    )


def _ms(value_ns: int | None) -> str:
    return "?" if value_ns is None else f"{value_ns / 1e6:.1f}"


def _note(row: Mapping[str, Any]) -> str:
    notes = ["CLAMPED"] if row["clamped"] else []
    if row["error"]:
        notes.append("FAILED")
    status = row["status"] or "?"
    reason = f" ({printable(str(row['reason']))})" if row["reason"] else ""
    return ", ".join([*notes, f"{status}{reason}"])


def _missing(lack: Mapping[str, Any]) -> str:
    where = f"engine {lack['data_parallel_rank']}, " if lack["data_parallel_rank"] else ""
    who = f"{where}rank {lack['rank']}" if lack["rank"] is not None else f"{where}engine core"
    return f"{who}: no report: {printable(str(lack['reason']))}"


def _failure(failure: Mapping[str, Any]) -> str:
    where = f"engine {failure['data_parallel_rank']}, " if failure["data_parallel_rank"] else ""
    said = printable(str(failure.get("message") or "").split("\n", maxsplit=1)[0])
    return f"{where}{failure['who']}: ended in {failure.get('step')}: {failure.get('type')}: {said}"
