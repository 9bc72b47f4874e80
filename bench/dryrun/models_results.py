"""The stored results of the starts of models_start.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "dryrun-models-vllm0.33.0.json"


def read_results() -> dict[str, Any]:
    """What came of each case so far, by its key."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found
