"""The exporter of Prometheus metrics: reads one snapshot a scrape, and answers on one port."""

from __future__ import annotations

from memacct.exporter.reader import Reader
from memacct.exporter.server import Exporter, render

__all__ = ["Exporter", "Reader", "render"]
