"""Lines for a stream: its width, its colours, its encoding."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from memacct.look.styled import PLAIN_CODES, RICH_CODES, ansi_of, encodable, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from memacct.look.styled import Line

#: Columns where the output goes to a file or a pipe, which have no width of their own.
FILE_COLUMNS = 140


def is_live(stream: TextIO) -> bool:
    """Returns whether the stream is a terminal that can be drawn on."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def codes_of(stream: TextIO, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the styles' codes that suit a stream; none for NO_COLOR and what is no terminal."""
    if environ.get("NO_COLOR") or not is_live(stream):
        return {}
    rich = "256" in environ.get("TERM", "") or environ.get("COLORTERM")
    return RICH_CODES if rich else PLAIN_CODES


def size_of(stream: TextIO, *, otherwise: int = FILE_COLUMNS) -> tuple[int, int]:
    """Returns the columns and the lines of a stream; ``COLUMNS`` says otherwise."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted) > 0 and columns == 0:
        columns = int(wanted)
    return columns or otherwise, lines or 24


def write_lines(stream: TextIO, lines: Iterable[Line], codes: dict[str, str]) -> None:
    """Writes lines with their styles, in what the stream can hold.

    Raises:
        BrokenPipeError: nobody reads it any more.
    """
    texts = [ansi_of(each, codes) if codes else text_of(each) for each in lines]
    stream.write(encodable("\n".join(texts) + "\n", stream.encoding or "utf-8"))
    stream.flush()
