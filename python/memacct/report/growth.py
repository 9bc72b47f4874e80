"""What grew over a piece of code, by kind, in one table; and who of many grew most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._units import MIB, format_bytes
from memacct.report.text import render_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KINDS = ("rss", "anon", "file", "shmem", "swap", "hugetlb")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthRow:
    """One kind of memory before and after; None is unknown, or does not apply.

    Attributes:
        limit_bytes: of the growth, or of the value afterwards where not ``of_growth``.
    """

    name: str
    after_bytes: int | None
    before_bytes: int | None = None
    limit_bytes: int | None = None
    of_growth: bool = True

    @property
    def growth_bytes(self) -> int | None:
        """Signed; None where a side is unknown."""
        if self.before_bytes is None or self.after_bytes is None:
            return None
        return self.after_bytes - self.before_bytes

    @property
    def is_over(self) -> bool:
        """Whether it is known to be above its limit."""
        value = self.growth_bytes if self.of_growth else self.after_bytes
        return value is not None and self.limit_bytes is not None and value > self.limit_bytes


def growth_text(rows: Sequence[GrowthRow]) -> str:
    """Returns a table of all rows; the first line names those that are over their limits."""
    over = [_breach(row) for row in rows if row.is_over]
    body = [
        (
            row.name,
            _size(row.before_bytes),
            _size(row.after_bytes),
            _signed(row.growth_bytes),
            "" if row.limit_bytes is None else format_bytes(row.limit_bytes),
            "over" if row.is_over else "",
        )
        for row in rows
    ]
    header = ("memory", "before", "after", "growth", "limit", "")
    return "\n".join(["; ".join(over), render_table(header, body)])


def top_text(grown: Sequence[tuple[str, Mapping[str, int]]], most_count: int) -> str:
    """Returns the names of the most growth of rss, the largest first, in MiB by kind."""
    largest = sorted(grown, key=lambda each: (-each[1].get("rss", 0), each[0]))[:most_count]
    if not largest:
        return "no test was measured"
    kinds = [kind for kind in _KINDS if any(each.get(kind) for _, each in largest)] or ["rss"]
    lines = [(*kinds, "test")]
    lines += [(*(_mib(each.get(kind)) for kind in kinds), name) for name, each in largest]
    width = max(len(cell) for line in lines for cell in line[:-1])
    return "\n".join("  ".join([*(c.rjust(width) for c in line[:-1]), line[-1]]) for line in lines)


def _breach(row: GrowthRow) -> str:
    limit = format_bytes(row.limit_bytes or 0)
    if row.of_growth:
        return f"{row.name} grew by {format_bytes(row.growth_bytes or 0)}, above its limit {limit}"
    return f"{row.name} {format_bytes(row.after_bytes or 0)}, above its limit {limit}"


def _size(value: int | None) -> str:
    return "" if value is None else format_bytes(value)


def _signed(value: int | None) -> str:
    return "" if value is None else ("+" if value > 0 else "") + format_bytes(value)


def _mib(value: int | None) -> str:
    return "" if value is None else f"{value / MIB:+.1f}"
