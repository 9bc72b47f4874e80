"""GPU cards as drivers and engines tell of them: names, totals, capabilities, each with its source.

The data are in cards.json; a figure that no source tells is None, never a guess.
"""

from __future__ import annotations

from .catalogue import Card, all_cards, context_readings, find_card, known_names, near_names
from .filled import FilledCard, filled_card
from .readings import Reading

__all__ = [
    "Card",
    "FilledCard",
    "Reading",
    "all_cards",
    "context_readings",
    "filled_card",
    "find_card",
    "known_names",
    "near_names",
]
