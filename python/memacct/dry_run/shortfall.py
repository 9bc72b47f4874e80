"""What weights that do not fit lack: an engine stops at an allocation, formulas know all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from memacct._errors import ConfigError

from .planned import plan_of
from .result import Amount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .request import Request
    from .result import Rank, Refusal

_SOURCE = (
    "the weights by `memacct plan`'s formulas, less what was free at the start; nothing else "
    "would fit then"
)


def with_planned_weights(
    refused: Refusal, request: Request, ranks: Sequence[Rank], settings: Mapping[str, object]
) -> Refusal:
    """The refusal with what the weights lack in all, where they are what ran out of memory.

    Args:
        refused: by the engine; what it says is missing is the least that is.
        request: what was asked.
        ranks: the first one's free memory counts.
        settings: what the engine made of its arguments.
    """
    free = ranks[0].free_at_start_bytes if ranks else None
    if refused.kind != "weights" or refused.missing is None or free is None:
        return refused
    try:
        weights = plan_of(request, settings).weights
    except ConfigError:
        return refused
    if weights.bytes is None or weights.bytes - free <= refused.missing.bytes:
        return refused
    least, low, high = refused.missing.bytes, weights.low_bytes, weights.high_bytes
    missing = Amount(
        bytes=weights.bytes - free,
        low_bytes=max(least, (least if low is None else low - free)),
        high_bytes=max(weights.bytes, high or 0) - free,
        source=_SOURCE,
    )
    return replace(refused, missing=missing)
