"""Programs for the engine's Python: this folder is put on its PYTHONPATH, not imported here."""

from __future__ import annotations
