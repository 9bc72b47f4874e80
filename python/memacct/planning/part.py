"""A piece of a model's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PartKind = Literal["embedding", "attention", "mlp", "experts", "mixer", "norms", "head", "copies"]
FIRST, LAST = -1, -2  # in place of a layer: before the first and after the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some parameters of one layer, on one GPU.

    Attributes:
        kind: what they are; "copies" are what vLLM adds to the model's own.
        layer: their layer, FIRST or LAST.
        elements_count: how many.
        quantised: whether a quantisation of the model applies to them.
        wide: kept in float32 whatever the model's type.
    """

    kind: PartKind
    layer: int
    elements_count: int
    quantised: bool = False
    wide: bool = False
