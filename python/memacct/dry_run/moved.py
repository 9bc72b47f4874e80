"""Amounts and equations of a run with some bytes moved from one row to another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from memacct.dry_run.result import Amount, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SOURCE = "reckoned from a run"


def amount_by(amount: Amount, delta_bytes: int) -> Amount:
    """An amount and its range, moved by so many bytes."""
    return replace(
        amount,
        bytes=amount.bytes + delta_bytes,
        low_bytes=amount.low_bytes + delta_bytes,
        high_bytes=amount.high_bytes + delta_bytes,
    )


def rows_by(rows: Sequence[Row], deltas_bytes: Mapping[str, int]) -> tuple[Row, ...]:
    """An equation with rows changed; one that it had not is put before its last, what is free.

    The sum of all rows stays the device's total only if the changes add up to 0.
    """
    if not rows:
        return ()
    known = {row.name for row in rows}
    moved = [
        replace(row, amount=amount_by(row.amount, deltas_bytes.get(row.name, 0))) for row in rows
    ]
    added = [
        Row(name=name, amount=_exact(delta))
        for name, delta in deltas_bytes.items()
        if name not in known and delta
    ]
    return (*moved[:-1], *added, moved[-1])


def row_bytes(rows: Sequence[Row], name: str) -> int | None:
    """A row's bytes; None if there is no such row."""
    return next((row.amount.bytes for row in rows if row.name == name), None)


def _exact(value_bytes: int) -> Amount:
    return Amount(bytes=value_bytes, low_bytes=value_bytes, high_bytes=value_bytes, source=_SOURCE)
