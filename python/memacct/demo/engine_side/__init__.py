"""Programs for other interpreters: this folder is put on their PYTHONPATH, not imported here."""

from __future__ import annotations
