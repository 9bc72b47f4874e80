"""GPU cards as drivers and engines tell of them: names, totals, capabilities, each with its source.

The data are in cards.json; a figure that no source tells is None, never a guess.
"""

from __future__ import annotations

from .catalogue import Card, all_cards, context_readings, find_card, near_names
from .readings import Reading

__all__ = ["Card", "Reading", "all_cards", "context_readings", "find_card", "near_names"]
