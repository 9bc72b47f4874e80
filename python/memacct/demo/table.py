"""The demo's results as rows: what is compared, what is right, and how it is shown."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from memacct._units import GIB, MIB

from .scenarios import TOLERANCE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import EngineResult
    from .scenarios import Scenario

# Room for what vLLM says in its first sentence.
ERROR_LENGTH = 60


@dataclass(frozen=True, kw_only=True)
class Row:
    """One engine in one scenario.

    Attributes:
        difference_bytes: native's KV cache less the isolated engine's; None if either is unknown.
        ok: native did what it should.
        native_overhead_ns: time in memacct's own code, summed over the engine's processes.
        native_overhead_cpu_ns: of that, what it computed.
    """

    scenario: str
    title: str
    gpu_memory_bytes: int
    isolated_bytes: int | None
    stock_outcome: str
    stock_bytes: int | None
    stock_error: str | None
    native_outcome: str
    native_bytes: int | None
    native_error: str | None
    native_clamped: bool
    native_overhead_ns: int | None
    native_overhead_cpu_ns: int | None
    native_attribution: str | None
    difference_bytes: int | None
    ok: bool


def clamp_warning(result: EngineResult) -> str | None:
    """The engine's warning that memacct reduced the budget, if it gave one."""
    for line in result.log().splitlines():
        if "WARNING" in line and "memacct" in line and "clamped" in line:
            return line
    return None


def reports(result: EngineResult) -> list[dict[str, Any]]:
    """What memacct wrote in each of the engine's processes."""
    folder = result.log_path.parent / "memacct"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("vllm-*.json"))]


def own_time_ns(told: list[dict[str, Any]], key: str) -> int | None:
    """The sum over processes of their time in memacct; several reports may be of one process."""
    latest: dict[int, int] = {}
    for report in told:
        latest[report["pid"]] = max(latest.get(report["pid"], 0), report[key])
    return sum(latest.values()) if told else None


def judge(
    scenario: Scenario,
    index: int,
    isolated: EngineResult,
    stock: EngineResult,
    native: EngineResult,
) -> Row:
    """Compares the three runs of the scenario's engine number `index`."""
    difference = None
    if native.kv_cache_bytes is not None and isolated.kv_cache_bytes is not None:
        difference = native.kv_cache_bytes - isolated.kv_cache_bytes
    clamped = clamp_warning(native) is not None
    if scenario.clamps:
        ok = native.served and clamped and difference is not None and difference <= 0
    else:
        ok = native.served and difference is not None and abs(difference) <= TOLERANCE_BYTES
    told = reports(native)
    sources = [report["attribution_source"] for report in told if "attribution_source" in report]
    options = scenario.engines[index]
    several = len(scenario.engines) > 1
    return Row(
        scenario=scenario.key + (str(index + 1) if several else ""),
        title=scenario.title,
        gpu_memory_bytes=options.budget_bytes,
        isolated_bytes=isolated.kv_cache_bytes,
        stock_outcome=stock.outcome,
        stock_bytes=stock.kv_cache_bytes,
        stock_error=stock.error,
        native_outcome=native.outcome,
        native_bytes=native.kv_cache_bytes,
        native_error=native.error,
        native_clamped=clamped,
        native_overhead_ns=own_time_ns(told, "overhead_ns"),
        native_overhead_cpu_ns=own_time_ns(told, "overhead_cpu_ns"),
        native_attribution=sources[0] if sources else None,
        difference_bytes=difference,
        ok=ok,
    )


def _gib(value: int | None) -> str:
    return "?" if value is None else f"{value / GIB:.3f} GiB"


def _first_sentence(error: str) -> str:
    return error.split(". ", maxsplit=1)[0][:ERROR_LENGTH].rstrip(".").replace("[", r"\[")


def _outcome(value: int | None, isolated: int | None, error: str | None) -> str:
    if error is not None:
        return f"[red]fails:[/red] {_first_sentence(error)}"
    if isolated is None or value is None or value == isolated:
        return f"serves with {_gib(value)}"
    return f"serves with {_gib(value)} ({(value - isolated) / MIB:+,.0f} MiB)"


def _difference(row: Row) -> str:
    if row.difference_bytes is None:
        return "?"
    return f"{row.difference_bytes / MIB:+,.2f} MiB"


def _own_time(rows: list[Row]) -> str | None:
    """How long memacct's own code held up the engines."""
    spent_ms = [row.native_overhead_ns / 1e6 for row in rows if row.native_overhead_ns is not None]
    if not spent_ms:
        return None
    return (
        f"time in memacct's own code, all processes of an engine: "
        f"{min(spent_ms):.0f} to {max(spent_ms):.0f} ms a start"
    )


def render(rows: list[Row], world: str) -> Table:
    """The table that `memacct demo` prints."""
    table = Table(title=f"KV cache of a real vLLM engine on {world}", show_lines=True)
    for name in ("", "scenario", "isolated", "stock vLLM", "vLLM with memacct", "difference", ""):
        table.add_column(name, no_wrap=name in ("isolated", "difference"))
    table.caption = _own_time(rows)
    for row in rows:
        native = _outcome(row.native_bytes, None, row.native_error)
        if row.native_clamped:
            native += ", clamped with a warning"
        table.add_row(
            row.scenario,
            row.title,
            _gib(row.isolated_bytes),
            _outcome(row.stock_bytes, row.isolated_bytes, row.stock_error),
            native,
            _difference(row),
            "[green]ok[/green]" if row.ok else "[red]WRONG[/red]",
        )
    return table


def write_json(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Writes the same as data; all quantities in bytes and nanoseconds."""
    data = {
        **about,
        "tolerance_bytes": TOLERANCE_BYTES,
        "ok": all(row.ok for row in rows),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(data, indent=1) + "\n")
