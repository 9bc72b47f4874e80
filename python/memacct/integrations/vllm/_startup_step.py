"""One span of a start, in which no fault of memacct's own reaches the engine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from memacct.integrations.vllm._own_time import own_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from memacct._timeline import Timeline
    from memacct._timeline_span import Span
    from memacct._timeline_types import Note

logger = logging.getLogger("vllm.memacct")

_failed: list[bool] = []


def guarded(action: Callable[[], None]) -> None:
    """Does ``action`` in memacct's own time; the first error is logged, none is raised."""
    with own_time:
        try:
            action()
        except Exception:
            if not _failed:
                _failed.append(True)
                logger.exception("memacct: the start-up timeline is incomplete, vLLM goes on")


class Step:
    """A span around one of vLLM's functions; the function's own errors pass through it.

    Attributes:
        notes: told at its end.
    """

    __slots__ = ("_name", "_span", "_timeline", "notes")

    def __init__(self, timeline: Timeline, name: str) -> None:
        self._timeline = timeline
        self._name = name
        self._span: Span | None = None
        self.notes: dict[str, Note] = {}

    def __enter__(self) -> Self:
        guarded(self._begin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        span, self._span = self._span, None
        if span is None:
            return

        def end() -> None:
            span.notes.update(self.notes)
            span.__exit__(kind, error, trace)

        guarded(end)

    def _begin(self) -> None:
        span = self._timeline.span(self._name)
        span.__enter__()
        self._span = span
