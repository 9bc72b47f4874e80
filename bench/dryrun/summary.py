"""What all judgements together say: how near, how often within the range."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .judge import Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of one group of cases.

    Attributes:
        count: with an answer and a logged KV cache.
        kv_ratio_median: of the absolute relative errors; kv_ratio_worst likewise.
        near_count: within 2 % or 0.3 GiB.
        contained_count: the logged value is within the stated range.
        weights_near_count: of weights_count that log their weights.
        verdicts_right_count: of verdicts_count: starts or does not fit.
    """

    count: int
    kv_ratio_median: float | None
    kv_ratio_worst: float | None
    kv_gib_median: float | None
    kv_gib_worst: float | None
    near_count: int
    contained_count: int
    weights_count: int
    weights_near_count: int
    weights_ratio_worst: float | None
    verdicts_count: int
    verdicts_right_count: int


def summarize(judgements: Iterable[Judgement]) -> Summary:
    """One group's summary."""
    every = list(judgements)
    judged = [one for one in every if one.kv_ratio is not None]
    ratios = [abs(one.kv_ratio or 0.0) for one in judged]
    differences = [abs(one.kv_difference_gib or 0.0) for one in judged]
    weights = [abs(one.weights_ratio) for one in every if one.weights_ratio is not None]
    return Summary(
        count=len(judged),
        kv_ratio_median=statistics.median(ratios) if ratios else None,
        kv_ratio_worst=max(ratios, default=None),
        kv_gib_median=statistics.median(differences) if differences else None,
        kv_gib_worst=max(differences, default=None),
        near_count=sum(bool(one.is_kv_near) for one in judged),
        contained_count=sum(bool(one.is_contained) for one in judged),
        weights_count=len(weights),
        weights_near_count=sum(bool(one.is_weights_near) for one in every),
        weights_ratio_worst=max(weights, default=None),
        verdicts_count=len(every),
        verdicts_right_count=sum(one.is_verdict_right for one in every),
    )
