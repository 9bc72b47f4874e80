"""A named stretch of a timeline, and which one this thread or task is in."""

from __future__ import annotations

import gc
from contextvars import ContextVar
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


_NEW, _OPEN, _ENDED = range(3)


class Span:
    """A context manager, to be entered once; adds an entry at its begin and one at its end.

    An exception that leaves it is named in the entry of its end, and goes on.
    """

    __slots__ = (
        "_begin",
        "_collects",
        "_end",
        "_name",
        "depth",
        "index",
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
        self.state = _NEW
        self.outer: Span | None = None
        # Set by `begin`; a recording of None: nothing was begun, so nothing is ended.
        self.recording: Any = None
        self.index = -1
        self.depth = 0

    def __enter__(self) -> None:
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.state = _ENDED
        _innermost.set(self.outer)
        more = "" if kind is None else f',"error":{encode_basestring_ascii(kind.__qualname__)}'
        self._end(self, self._name, more + self._garbage())

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


# Of this thread or task, and of any timeline.
_innermost: ContextVar[Span | None] = ContextVar("memacct_span", default=None)


def place(recording: object) -> tuple[int, int | None]:
    """Returns how many spans of ``recording`` are open here, and the innermost one's index."""
    innermost = _innermost.get()
    span = None if innermost is None else innermost.around(recording)
    return (0, None) if span is None else (span.depth + 1, span.index)
