"""Dry runs: the real engine with made-up weights on a simulated GPU of the wanted card."""

from __future__ import annotations
