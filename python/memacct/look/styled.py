"""Text in named styles: lines of spans, cut and padded by the cells that they take."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESC = "\x1b["
_RESET = f"{_ESC}0m"

#: The slots of processes: a process keeps its slot, so its colour, as long as it is listed.
PROCESS_STYLES = tuple(f"p{i}" for i in range(8))

_BLACK = "38;5;16"
#: SGR codes on terminals of 256 colours. What is drawn in a bar has a background.
RICH_CODES = {
    "bold": "1",
    "dim": "38;5;245",
    "title": "1;38;5;117",
    "head": "38;5;250;4",
    "good": "38;5;114",
    "warn": "38;5;215",
    "bad": "1;38;5;203",
    "selected": "7",
    "own": f"{_BLACK};48;5;114",
    "tree": f"{_BLACK};48;5;72",
    "held": f"{_BLACK};48;5;110",
    "reclaimable": "38;5;253;48;5;60",
    "unattributed": "38;5;253;48;5;95",
    "reserved": "38;5;250;48;5;238",
    "free": "38;5;246",
    **{
        name: f"{_BLACK};48;5;{colour}"
        for name, colour in zip(PROCESS_STYLES, (75, 215, 176, 222, 80, 211, 146, 180), strict=True)
    },
}
#: The same on terminals of 16 colours.
PLAIN_CODES = {
    "bold": "1",
    "dim": "2",
    "title": "1;36",
    "head": "4",
    "good": "32",
    "warn": "33",
    "bad": "1;31",
    "selected": "7",
    "own": "30;42",
    "tree": "30;46",
    "held": "30;44",
    "reclaimable": "37;100",
    "unattributed": "37;41",
    "reserved": "37;100",
    "free": "2",
    **{
        name: f"30;{colour}"
        for name, colour in zip(PROCESS_STYLES, (104, 43, 45, 103, 46, 105, 47, 101), strict=True)
    },
}


class Span(NamedTuple):
    """Text in one style; "" is the terminal's own."""

    text: str
    style: str = ""


Line = tuple[Span, ...]

_LEAST_LEFT = 14  # columns of a title, below which what stands beside it is told shorter


def line(*parts: Span | str) -> Line:
    """Returns a line of spans; bare text has no style."""
    return tuple(part if isinstance(part, Span) else Span(part) for part in parts)


def cells(text: str) -> int:
    """Returns how many columns of a terminal printable text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_cell, text))


def _cell(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """Returns text of at most so many columns; "…" says that there was more."""
    if cells(text) <= columns:
        return text
    if columns < 1:
        return ""
    kept, room = [], columns - 1
    for char in text:
        room -= _cell(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + "…"


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Returns text of exactly so many columns, cut or padded."""
    text = cut(text, columns)
    blanks = " " * (columns - cells(text))
    return blanks + text if right else text + blanks


def fit(spans: Line, columns: int) -> Line:
    """Returns a line of at most so many columns."""
    kept: list[Span] = []
    for span in spans:
        room = columns - sum(cells(each.text) for each in kept)
        if cells(span.text) > room:
            kept.append(Span(cut(span.text, room), span.style))
            break
        kept.append(span)
    return tuple(kept)


def wrap(text: str, columns: int) -> list[str]:
    """Returns text in lines of at most so many columns, parted at its spaces."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if cells(longer) <= columns or not lines[-1]:
            lines[-1] = cut(longer, columns)
        else:
            lines.append(cut(word, columns))
    return lines


def width(spans: Line) -> int:
    """Returns the columns that a line takes."""
    return sum(cells(span.text) for span in spans)


def spread(left: Line, right: Line, columns: int) -> Line:
    """Returns both ends in one line; the right one goes where there is no room for it."""
    room = columns - width(right)
    if room <= width(left):
        return fit(left, columns)
    return (*left, Span(" " * (room - width(left))), *right)


def beside(left: Line, rights: Sequence[Line], columns: int) -> Line:
    """Returns the longest right end beside the left one, which is cut where none fits.

    Args:
        left: as long as it gets.
        rights: of which one is taken, the longest first.
        columns: that there are.
    """
    for right, least in zip(rights, (width(left), *[_LEAST_LEFT] * len(rights)), strict=False):
        if min(width(left), least) + width(right) + 2 <= columns:
            return spread(fit(left, columns - width(right) - 2), right, columns)
    return fit(left, columns)


def text_of(spans: Line) -> str:
    """Returns a line without its styles."""
    return "".join(span.text for span in spans).rstrip()


def ansi_of(spans: Line, codes: dict[str, str]) -> str:
    """Returns a line with its styles as terminal escapes."""
    return "".join(
        f"{_ESC}{codes[span.style]}m{span.text}{_RESET}" if span.style in codes else span.text
        for span in spans
    )


_ASCII = str.maketrans({"·": ".", "…": "~", "─": "-", "►": ">", "↑": "^", "↓": "v", "−": "-"})


def encodable(text: str, encoding: str) -> str:
    """Returns text that a stream of this encoding can hold, in plain characters if it must."""
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII).encode("ascii", "replace").decode()
    return text
