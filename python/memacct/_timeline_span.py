"""A named stretch of a timeline, and which one this thread or task is in."""

from __future__ import annotations

import gc
import json
from contextvars import ContextVar
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from memacct._timeline_types import Note


_NEW, _OPEN, _ENDED = range(3)


class Span:
    """A context manager, to be entered once; adds an entry at its begin and one at its end.

    An exception that leaves it is named in the entry of its end, and goes on. What is put into
    ``notes`` before its end is told there, such as sizes in bytes.
    """

    __slots__ = (
        "_begin",
        "_collects",
        "_end",
        "_name",
        "depth",
        "index",
        "notes",
        "outer",
        "recording",
        "state",
    )

    def __init__(
        self,
        name: str,
        begin: Callable[[Span, str, str], None],
        end: Callable[[Span, str, str], None],
        *,
        collect_garbage: bool,
    ) -> None:
        self._name = encode_basestring_ascii(name)
        self._begin = begin
        self._end = end
        self._collects = collect_garbage
        self.notes: dict[str, Note] = {}
        self.state = _NEW
        self.outer: Span | None = None
        # Set by `begin`; a recording of None: nothing was begun, so nothing is ended.
        self.recording: Any = None
        self.index = -1
        self.depth = 0

    def __enter__(self) -> Self:
        """Adds the entry of its begin.

        Raises:
            ValueError: it was entered before, or its timeline takes no entries.
        """
        if self.state != _NEW:
            raise ValueError("a span can be entered once; make another")
        self.outer = _innermost.get()
        self._begin(self, self._name, self._garbage())
        self.state = _OPEN
        _innermost.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.state = _ENDED
        _innermost.set(self.outer)
        more = "" if kind is None else f',"error":{encode_basestring_ascii(kind.__qualname__)}'
        self._end(self, self._name, more + notes_text(self.notes) + self._garbage())

    def _garbage(self) -> str:
        return f',"garbage_count":{gc.collect()}' if self._collects else ""

    def around(self, recording: object) -> Span | None:
        """Returns this span, or the next one around it, that is open and of ``recording``.

        A task that was made inside a span keeps it in its context, also after its end.
        """
        span: Span | None = self
        while span is not None and (span.state == _ENDED or span.recording is not recording):
            span = span.outer
        return span


def notes_text(notes: Mapping[str, Note] | None) -> str:
    """Returns notes as a further field of an entry; empty if there are none.

    Raises:
        TypeError: a value is neither a number nor text.
    """
    if not notes:
        return ""
    for key, value in notes.items():
        if not isinstance(value, (int, float, str)):
            raise TypeError(f"note {key!r} is {value!r}, but must be a number or a text")
    return f',"notes":{json.dumps(dict(notes), separators=(",", ":"))}'


# Of this thread or task, and of any timeline.
_innermost: ContextVar[Span | None] = ContextVar("memacct_span", default=None)


def place(recording: object) -> tuple[int, int | None]:
    """Returns how many spans of ``recording`` are open here, and the innermost one's index."""
    innermost = _innermost.get()
    span = None if innermost is None else innermost.around(recording)
    return (0, None) if span is None else (span.depth + 1, span.index)
