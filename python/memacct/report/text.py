"""Plain text tables for logs and terminals without colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import GIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.accounting.equation import EquationRow


def gib(value: int | None) -> str:
    """Returns bytes as GiB with two decimals; ``?`` for unknown."""
    return "?" if value is None else f"{value / GIB:.2f}"


def signed_gib(value: int | None) -> str:
    """Returns a change in GiB with its sign; empty where there is none to tell."""
    return "" if value is None else f"{value / GIB:+.2f}"


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns an aligned table: the first and the last column left, the others right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    last = len(cells) - 1
    aligned = [
        cell.ljust(width) if i in (0, last) else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()


def render_equation(rows: Sequence[EquationRow], total_bytes: int) -> str:
    """Returns the device equation as a table in GiB, its columns summed up below."""
    body = [
        (
            row.name,
            gib(row.now_bytes),
            signed_gib(row.since_start_bytes),
            gib(row.planned_bytes),
            row.source,
        )
        for row in rows
    ]
    now = _sum([row.now_bytes for row in rows])
    planned = _sum([row.planned_bytes for row in rows])
    verdict = "unknown terms: not checked"
    if now is not None and planned is not None:
        holds = now == planned == total_bytes
        verdict = "the sum, equal to the byte" if holds else f"of {total_bytes} bytes, sum {now}"
    body.append(("total", gib(total_bytes), "", gib(total_bytes), verdict))
    return render_table(("GiB", "now", "since start", "serving", "from"), body)


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
