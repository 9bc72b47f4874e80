"""A bar that shows what a whole is divided into, by colour and, without colour, by letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memacct.look.styled import Span, cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.look.styled import Line


class Part(NamedTuple):
    """One part of a whole.

    Attributes:
        size: how much of it; what is not above 0 is not drawn.
        mark: one character, with which it is drawn where there is no colour.
        style: its colour.
        text: written into it where there is room.
        hollow: it is drawn by its mark in colour, too.
        keyed: its mark is told in colour, too, as it stands for it elsewhere.
    """

    size: int
    mark: str
    style: str
    text: str = ""
    hollow: bool = False
    keyed: bool = True


def shares(sizes: Sequence[int], columns: int) -> list[int]:
    """Returns the columns of each part; they add up to ``columns``.

    What is there is seen: a part above 0 has at least one column as long as there are columns
    for all. The rest is by largest remainder.

    Args:
        sizes: of the parts, none negative.
        columns: of the bar.
    """
    total = sum(sizes)
    if total <= 0 or columns <= 0:
        return [0] * len(sizes)
    found = [size * columns // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(sizes[i] * columns % total))
    for i in by_remainder[: columns - sum(found)]:
        found[i] += 1
    for i, size in enumerate(sizes):
        if size > 0 and found[i] == 0:
            widest = max(range(len(found)), key=found.__getitem__)
            if found[widest] > 1:
                found[widest] -= 1
                found[i] = 1
    return found


def bar(parts: Sequence[Part], columns: int, *, colour: bool) -> Line:
    """Returns the parts side by side, as wide as they are large, in exactly so many columns."""
    drawn = [part for part in parts if part.size > 0]
    spans = [
        Span(_fill(part, count, colour=colour), part.style)
        for part, count in zip(drawn, shares([p.size for p in drawn], columns), strict=True)
        if count
    ]
    return tuple(spans) or (Span(" " * columns),)


def _fill(part: Part, count: int, *, colour: bool) -> str:
    """The part's columns, with as much text as there is room for and a column beside it."""
    solid = colour and not part.hollow
    start = f" {part.mark} " if solid and part.keyed else " " if solid else f"{part.mark} "
    fill = " " if solid else part.mark
    for text in (f"{start}{part.text} " if part.text else "", start if solid else ""):
        if text and cells(text) <= count:
            return text + fill * (count - cells(text))
    return (part.mark + " " * (count - 1)) if solid and part.keyed else fill * count
