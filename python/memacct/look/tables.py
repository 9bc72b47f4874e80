"""Aligned tables of styled cells, within a number of columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memacct.look.styled import Span, cells, fit, pad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.look.styled import Line

_GAP = 2


class Column(NamedTuple):
    """A column: its title, and how it gives way.

    Attributes:
        right: numbers; else text.
        stretch: text that is cut to what the others leave; one a table.
    """

    title: str
    right: bool = True
    stretch: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str | Span]], room: int) -> list[Line]:
    """Returns the header and the rows, none wider than ``room`` columns."""
    plain = [[cell.text if isinstance(cell, Span) else cell for cell in row] for row in rows]
    widths = [
        max([cells(column.title), *(cells(row[i]) for row in plain)])
        for i, column in enumerate(columns)
    ]
    for i, column in enumerate(columns):
        if column.stretch:
            others = sum(widths) - widths[i] + _GAP * (len(columns) - 1)
            widths[i] = max(min(widths[i], room - others), min(widths[i], cells(column.title)))
    header: Sequence[str | Span] = [Span(column.title, "head") for column in columns]
    return [fit(_row(columns, widths, row), room) for row in (header, *rows)]


def _row(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str | Span]) -> Line:
    spans: list[Span] = []
    for i, (column, width, cell) in enumerate(zip(columns, widths, row, strict=True)):
        text, style = cell if isinstance(cell, Span) else (cell, "")
        if i:
            spans.append(Span(" " * _GAP))
        last = i == len(columns) - 1
        if last and not column.right:
            spans.append(Span(pad(text, width).rstrip(), style))
        elif style == "head":  # underlined: the words, not the gaps
            filled = pad(text, width, right=column.right)
            blanks = Span(filled[: len(filled) - len(filled.lstrip())])
            spans += [
                blanks,
                Span(filled.strip(), style),
                Span(" " * (width - len(filled.rstrip()))),
            ]
        else:
            spans.append(Span(pad(text, width, right=column.right), style))
    return tuple(spans)
